"""Every run leaves a record in the repositories that it worked on, whatever became of it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from jetkeep.repository import runs
from jetkeep.repository.address import store_at
from jetkeep.repository.documents import RunRecord
from jetkeep.repository.repository import Repository
from tests.backing_up import fill, run, start, wait_for
from tests.conftest import StartServer
from tests.object_stores.seaweed import Bucket


def records(url: Path | str) -> list[RunRecord]:
    async def read() -> list[RunRecord]:
        repository = await Repository.open(store_at(str(url)))
        found = [await runs.read(repository, one) for one in await runs.runs(repository)]
        return sorted((one for one in found if one), key=lambda one: one.finished_at)

    return asyncio.run(read())


def told(url: Path | str) -> list[tuple[str, str, int, str]]:
    return [(one.kind, one.outcome, one.exit_status, one.error) for one in records(url)]


def test_success_and_failure_of_each_kind_are_kept(
    start_server: StartServer, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = asyncio.run(start_server())
    asyncio.run(fill(server.url, "S", 1))
    local, dead = tmp_path / "local", "nats://127.0.0.1:1"
    run("backup", repo=local, url=dead, check=20)
    assert not local.exists()  # a run that fails makes no repository
    run("backup", "--label", "one", repo=local, url=server.url)
    run("backup", repo=local, url=dead, check=20)
    run("backup", "--label", "one", repo=local, url=server.url, check=2)  # a refused command line is no run
    run("verify", repo=local)
    run("expire", "--keep-last", "3", "--dry-run", repo=local)
    run("expire", "--keep-last", "3", repo=local)
    run("drill", repo=local)
    run("copy", "--from", str(local), "--to", bucket.url, repo="")
    segment = next((local / "sources").rglob("*.parquet"))
    segment.write_bytes(segment.read_bytes()[:-9])
    run("verify", repo=local, check=30)
    assert told(local)[:6] == [
        ("backup", "success", 0, ""),
        ("backup", "failure", 20, "nats.unreachable"),
        ("verify", "success", 0, ""),
        ("expire", "success", 0, ""),
        ("drill", "success", 0, ""),
        ("verify", "failure", 30, ""),
    ]
    assert told(bucket.url) == [("copy", "success", 0, "")]
    run("copy", "--from", str(local), "--to", "s3://no-such-bucket/x", repo="", check=13)
    assert told(local)[-1] == ("copy", "failure", 13, "store.no-bucket")
    backup, _, _, _, drill, damaged, _ = records(local)
    assert (backup.label, backup.streams, backup.messages, backup.bytes > 2**20) == ("one", 1, 4, True)
    assert damaged.damage == 1
    assert drill.rto_seconds
    assert "127.0.0.1" not in str(records(local)[1])


def test_a_run_that_is_stopped_says_so(start_server: StartServer, tmp_path: Path) -> None:
    server = asyncio.run(start_server())
    asyncio.run(fill(server.url, "S", 96))
    run("init", repo=tmp_path / "repo")
    process = start("backup", repo=tmp_path / "repo", url=server.url)
    wait_for(lambda: any((tmp_path / "repo").rglob("*.parquet*")), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) in (130, 0)
    (one,) = told(tmp_path / "repo")
    assert one in [("backup", "failure", 130, "interrupted"), ("backup", "success", 0, "")]
