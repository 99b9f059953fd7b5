"""The drill finds what is wrong and keeps evidence either way; the demo works twice and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jetkeep import evidence
from jetkeep.catalog import choose_streams, find_backup
from jetkeep.drill import DrillOptions, DrillReport, drill
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from tests.conftest import StartServer
from tests.publisher import Publisher
from tests.restoring import connected, consumer, fetch, keep, quiet


async def kept_shop(start_server: StartServer, folder: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        for name, storage, retention in (
            ("A", "file", "limits"),
            ("M", "memory", "limits"),
            ("W", "file", "workqueue"),
        ):
            config = {"name": name, "subjects": [f"{name}.>"], "storage": storage, "retention": retention}
            await js.create_stream(config | ({"max_age": 3_600_000_000_000} if name == "A" else {}))
        async with Publisher(server.url) as publisher:
            block = b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n"
            await publisher.store_all((f"{name}.x", b"%d" % at, block) for name in "AMW" for at in range(60))
        await consumer(js, "W", "c", ack_wait=600_000_000_000)
        await fetch(js, "W", "c", 10, acks=[0, 1, 5])
        await keep(js, folder)


async def rehearse(folder: Path, options: DrillOptions, forge: str = "") -> tuple[DrillReport, Repository]:
    repository = await Repository.open(LocalStore(folder))
    chosen = await choose_streams(repository, await find_backup(repository, None))
    if forge:
        object.__setattr__(chosen[0], "manifest", msgspec.structs.replace(chosen[0].manifest, fingerprint=forge))
    return await drill(repository, chosen, options, emit=quiet), repository


@pytest.mark.parametrize("version", ["2.10.26", "2.15.1"])
async def test_everything_is_compared_on_the_chosen_version(
    start_server: StartServer, tmp_path: Path, version: str
) -> None:
    await kept_shop(start_server, tmp_path)
    report, repository = await rehearse(tmp_path, DrillOptions(version=version, sample=10, seed=1))
    assert (report.verdict, report.failures) == ("SUCCESSFUL", [])
    assert report.server_version == version
    assert [one["sample"]["compared"] for one in report.streams] == [10, 10, 10]
    stored = await evidence.kept(repository)
    assert [one.key for one in stored] == [report.key]
    assert stored[0].body["verdict"] == "SUCCESSFUL"
    assert stored[0].body["backup"]["manifests"].keys() == {"A", "M", "W"}


async def test_a_forged_fingerprint_fails_the_drill_and_leaves_evidence(
    start_server: StartServer, tmp_path: Path
) -> None:
    await kept_shop(start_server, tmp_path)
    report, repository = await rehearse(tmp_path, DrillOptions(), forge="0" * 32)
    assert report.verdict == "FAILED"
    assert (await evidence.kept(repository))[0].body["required_action"]


async def test_the_user_s_check_decides_and_sees_no_secret(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept_shop(start_server, tmp_path)
    monkeypatch.setenv("NATS_PASSWORD", "s3cr3t")
    report, _ = await rehearse(tmp_path, DrillOptions(command="env; echo at $NATS_URL; exit 7"))
    assert report.verdict == "FAILED"
    assert report.check is not None
    assert report.check.status == 7
    assert "at nats://127.0.0.1:" in report.check.output
    assert "s3cr3t" not in json.dumps(report.document)
    slow, _ = await rehearse(tmp_path, DrillOptions(command="sleep 100", command_timeout_s=0.5))
    assert slow.verdict == "TIMED_OUT"


def test_the_demo_works_twice_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "jetkeep", "demo"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(done.stdout.splitlines()) <= 40
        assert max(map(len, done.stdout.splitlines())) <= 100
        assert done.stdout.count("identical") == 5
        assert list(tmp_path.iterdir()) == []


async def check(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jetkeep", "check", "-s", url, *arguments], capture_output=True, text=True, check=False
    )


DENIED = ["STREAM.SNAPSHOT.*", "STREAM.INFO.*", "CONSUMER.LIST.*", "STREAM.MSG.GET.*", "STREAM.LIST"]


@pytest.mark.parametrize("subject", [*(f"$JS.API.{one}" for one in DENIED), "$JS.SNAPSHOT.ACK.>"])
async def test_a_missing_permission_is_named(start_server: StartServer, subject: str) -> None:
    user = {"user": "u", "password": "p", "permissions": {"publish": {"deny": [subject]}}}
    server = await start_server(None, {"authorization": {"users": [user]}})
    done = await check(server.url, "--user", "u", "--password", "p", "--timeout", "1s")
    assert done.returncode == 20, done.stdout
    assert "nats.permission" in done.stdout
    assert subject.rstrip("*>").rstrip(".") in done.stdout


async def test_check_in_four_shapes(start_server: StartServer, tmp_path: Path) -> None:
    await kept_shop(start_server, tmp_path)
    server = await start_server("2.10.26")
    for shape, begins in (("text", "ok "), ("json", '{"schema": "jetkeep.check/1"'), ("nagios", "JETKEEP OK"), ("prometheus", "# HELP")):  # fmt: skip
        done = await check(server.url, "--restore", "--format", shape, "--repo", str(tmp_path))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(begins)
    old = await check(server.url, "--format", "nagios", "--critical-age", "0", "--repo", str(tmp_path))
    assert old.returncode == 2
    assert old.stdout.startswith("JETKEEP CRITICAL: newest backup")
    gone = await check("nats://127.0.0.1:1", "--format", "nagios")
    assert gone.returncode == 2
