"""Evidence of real drills: what the command line keeps, shows and checks, on a disk and in a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jetkeep import evidence
from jetkeep.capture.run import BackupOptions, back_up
from jetkeep.repository.address import store_at
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.object_stores.seaweed import Bucket
from tests.publisher import Publisher
from tests.restoring import connected, quiet


async def kept(server: Sandbox, repository: Repository, count: int = 20) -> None:
    async with connected(server) as js:
        if await js.find_stream("S") is None:
            await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file", "retention": "limits"})
        async with Publisher(server.url) as publisher:
            await publisher.store_all(("s", b"%d" % at, b"") for at in range(count))
        await back_up(js, repository, BackupOptions(label="one"), emit=quiet, now_ns=time.time_ns)


def jetkeep(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jetkeep", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def documents(*arguments: str, **variables: str) -> Any:
    done = jetkeep(*arguments, "--json", **variables)
    return done.returncode, json.loads(done.stdout)


async def test_signed_drills_are_listed_shown_and_proven(start_server: StartServer, tmp_path: Path) -> None:
    folder, key = tmp_path / "r", str(tmp_path / "drill.key")
    await kept(await start_server(), await Repository.create(LocalStore(folder), now_ns=time.time_ns))
    repo = ("--repo", str(folder))
    _, made = documents("evidence", "keygen", key)
    assert jetkeep("evidence", "keygen", key).returncode == 2
    assert "no drill was made yet" in jetkeep("evidence", "list", *repo).stdout
    assert jetkeep("evidence", "show", *repo).returncode == 2
    done = jetkeep("drill", *repo, "--signing-key", key, "--rto-target", "10m", "--rpo-target", "1h", "--next-due", "90",
                   "--triggered-by", "a ticket")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"signed by key {made['key_id'][:16]}" in done.stdout
    status, first = documents("evidence", "show", *repo)
    assert (status, first["schema"], first["triggered_by"]) == (0, "jetkeep.evidence/1", "a ticket")
    assert (first["rto"]["met"], first["rto"]["target_seconds"], first["rpo"]["met"]) == (True, 600, True)
    assert first["signer"]["key_id"] == made["key_id"]
    assert int(first["next_due"][:4]) >= int(first["finished_at"][:4])
    failed, second = documents("drill", *repo, "--run", "exit 1", JETKEEP_SIGNING_KEY=Path(key).read_text())
    assert (failed, second["verdict"], second["number"]) == (31, "FAILED", 2)
    page = jetkeep("evidence", "show", "2", "--html", *repo).stdout
    assert "FAILED" in page
    assert hashlib.sha256(page.encode()).hexdigest() == second["page"]["sha256"]
    listed = jetkeep("evidence", "list", *repo)
    assert "SUCCESSFUL" in listed.stdout
    assert "FAILED" in listed.stdout
    assert jetkeep("evidence", "verify", "--key", key + ".pub", *repo).returncode == 0
    status, proof = documents("evidence", "verify", "--key", key + ".pub", *repo)
    assert (status, proof["sound"], proof["documents"], proof["findings"]) == (0, True, 2, [])
    assert jetkeep("evidence", "verify", "--holds", proof["head"]["sha256"], *repo).returncode == 0
    assert jetkeep("evidence", "verify", "--holds", "0" * 64, *repo).returncode == 30
    assert jetkeep("evidence", "verify", "--holds", "0" * 63, *repo).returncode == 2
    assert "FAILED: drill 2" in jetkeep("evidence", "show", *repo).stdout
    assert jetkeep("evidence", "show", "7", *repo).returncode == 2


async def test_a_removed_failure_shows_in_verify_and_in_check(start_server: StartServer, tmp_path: Path) -> None:
    await kept(await start_server(), await Repository.create(LocalStore(tmp_path), now_ns=time.time_ns))
    repo = ("--repo", str(tmp_path))
    for command, status in (("exit 0", 0), ("exit 1", 31), ("exit 0", 0)):
        assert jetkeep("drill", *repo, "--run", command, "-q").returncode == status
    assert "evidence is whole" not in jetkeep("check", "--no-server", *repo).stdout
    (tmp_path / "evidence/00000002.json").unlink()
    (tmp_path / "evidence/00000002.html").unlink()
    done = jetkeep("evidence", "verify", *repo)
    assert done.returncode == 30
    assert "DAMAGE missing: evidence/00000002.json is gone" in done.stdout
    assert "the evidence of drill 2 is gone" in jetkeep("check", "--no-server", *repo).stdout


async def test_a_missed_target_fails_the_drill_and_says_what_to_do(start_server: StartServer, tmp_path: Path) -> None:
    await kept(await start_server(), await Repository.create(LocalStore(tmp_path), now_ns=time.time_ns))
    status, found = documents("drill", "--repo", str(tmp_path), "--rto-target", "1ms", "--rpo-target", "2ms")
    assert (status, found["verdict"], found["rto"]["met"], found["rpo"]["met"]) == (31, "FAILED", False, False)
    assert [one[:4] for one in found["failures"]] == ["RTO:", "RPO:"]
    assert "recover faster" in found["required_action"]
    assert all(one["verdict"] == "SUCCESSFUL" for one in found["streams"])


async def test_the_source_says_how_many_messages_would_be_lost(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    await kept(server, await Repository.create(LocalStore(tmp_path), now_ns=time.time_ns))
    async with Publisher(server.url) as publisher:
        await publisher.store_all(("s", b"", b"") for _ in range(7))
    repo = ("--repo", str(tmp_path))
    _, found = documents("drill", *repo, "--ask-source", NATS_URL=server.url)
    assert found["rpo"]["messages"] == 7
    assert found["rpo"]["messages_by_stream"] == [{"stream": "S", "messages": 7}]
    _, found = documents("drill", *repo)
    assert found["rpo"]["messages"] is None
    assert "was not asked" in found["rpo"]["messages_basis"]
    async with connected(server) as js:
        await js.delete_stream("S")
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file", "retention": "limits"})
        async with Publisher(server.url) as publisher:
            await publisher.store_all(("s", b"", b"") for _ in range(3))
    _, found = documents("drill", *repo, "--ask-source", NATS_URL=server.url)
    assert found["rpo"]["messages"] == 3
    status, found = documents("drill", *repo, "--ask-source", NATS_URL="nats://127.0.0.1:1")
    assert (status, found["verdict"], found["rpo"]["messages"]) == (20, "SUCCESSFUL", None)
    assert "nats.unreachable" in found["rpo"]["messages_basis"]


async def test_evidence_is_kept_and_proven_in_a_bucket(start_server: StartServer, bucket: Bucket) -> None:
    await kept(await start_server(), await Repository.create(store_at(bucket.url), now_ns=time.time_ns))
    repo = ("--repo", bucket.url)
    # Two at once: the one that ends second follows the first.
    together = [subprocess.Popen([sys.executable, "-m", "jetkeep", "drill", *repo, "-q"]) for _ in range(2)]
    assert [one.wait(60) for one in together] == [0, 0]
    status, proof = documents("evidence", "verify", *repo)
    assert (status, proof["documents"]) == (0, 2)
    opened, (_, facts) = await Repository.open(store_at(bucket.url)), documents("evidence", "show", *repo)
    place = evidence.Place()
    several = [evidence.keep(opened, {**facts, "drill_id": f"{at:012x}"}, place, None) for at in range(6)]
    for stored, page in await asyncio.gather(*several):
        await evidence.keep_page(opened, stored, page)
    status, proof = documents("evidence", "verify", *repo)
    assert (status, proof["documents"]) == (0, 8)
    store = store_at(bucket.url)
    data = await store.read("evidence/00000002.json", 1 << 20)
    await store.replace("evidence/00000002.json", data.replace(b"SUCCESSFUL", b"SUCCESSFUI", 1))
    assert jetkeep("evidence", "verify", *repo).returncode == 30


async def test_a_bad_key_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    done = jetkeep("drill", "--repo", str(tmp_path), "--signing-key", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert "usage.signing-key" in done.stderr
