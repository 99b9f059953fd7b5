"""Sizes at which things break elsewhere: huge gaps, huge messages, many subjects, many streams, bounded memory."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jetkeep.codecs.archive import ArchiveEncoder
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.s2 import S2Encoder
from jetkeep.jetstream import JetStream
from jetkeep.model import Message
from tests.conftest import StartServer
from tests.publisher import Publisher
from tests.restoring import connected, keep, put_back, state_of
from tests.versions import VERSIONS

pytestmark = [pytest.mark.large, pytest.mark.timeout(600)]
GAP = 50_000_000


async def lay(js: JetStream, name: str, messages: list[Message]) -> None:
    """Make a stream of exactly these messages, on a server that takes archives."""
    config = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "num_replicas": 1, "retention": "limits"}
    state = {
        "messages": len(messages),
        "bytes": sum(len(one.payload) + 100 for one in messages),
        "first_seq": messages[0].seq,
        "last_seq": messages[-1].seq,
        "first_ts": "2026-11-23T00:00:00Z",
        "last_ts": "2026-11-23T00:00:00Z",
        "consumer_count": 0,
    }
    archive, s2 = ArchiveEncoder(), S2Encoder()
    async with js.restore(name, config, state) as sender:
        for piece in (archive.begin(state, []), archive.messages(MessageBatch.of(messages)), archive.end()):
            await sender.send(s2.encode(piece))
        await sender.finish()


@pytest.mark.parametrize("target", VERSIONS)
async def test_a_gap_of_fifty_million(start_server: StartServer, tmp_path: Path, target: str) -> None:
    source = await start_server()
    rows = [Message(seq, 10**18 + seq, b"GAPS.a", b"", b"x") for seq in (1, 2, GAP, GAP + 1, 2 * GAP)]
    async with connected(source) as js:
        await lay(js, "GAPS", rows)
        kept = await keep(js, tmp_path)
    assert kept.manifests[0].messages == 5
    assert len(kept.manifests[0].deleted) < 60
    server = await start_server(target)
    async with connected(server) as js:
        await put_back(js, kept)
        assert await state_of(js, "GAPS") == (5, 1, 2 * GAP)
        found = [one async for one in js.messages("GAPS", GAP - 1, 2 * GAP, {})]
        assert found == rows[2:]


async def test_messages_of_24_mebibytes_and_of_nothing(start_server: StartServer, tmp_path: Path) -> None:
    """The largest record that every server reads again is 32 MiB (docs/explanation/restore.md)."""
    config: dict[str, Any] = {"max_payload": 64 * 1024 * 1024, "max_pending": 256 * 1024 * 1024}
    source = await start_server(None, config)
    async with connected(source) as js:
        await js.create_stream({"name": "HUGE", "subjects": ["huge"], "storage": "file"})
        async with Publisher(source.url) as publisher:
            for at in range(4):
                await publisher.store("huge", bytes([at]) * (24 * 1024 * 1024), b"")
                await publisher.store("huge", b"", b"")
        kept = await keep(js, tmp_path)
    assert kept.manifests[0].messages == 8
    target = await start_server(None, config)
    async with connected(target) as js:
        await put_back(js, kept)
        assert await state_of(js, "HUGE") == (8, 1, 8)


async def test_messages_of_64_mebibytes_are_stored_and_their_restore_is_refused_with_a_number(
    start_server: StartServer, tmp_path: Path
) -> None:
    config: dict[str, Any] = {"max_payload": 64 * 1024 * 1024, "max_pending": 256 * 1024 * 1024}
    # 2.11 and later refuse to store them; 2.10 takes them.
    source = await start_server("2.10.26", config)
    async with connected(source) as js:
        await js.create_stream({"name": "HUGE", "subjects": ["huge"], "storage": "file"})
        async with Publisher(source.url) as publisher:
            await publisher.store("huge", b"\x07" * (64 * 1024 * 1024 - 100), b"")
            await publisher.store("huge", b"small", b"")
        kept = await keep(js, tmp_path / "r")
    assert kept.manifests[0].messages == 2
    target = await start_server(None, config)
    run = subprocess.run(
        [sys.executable, "-m", "jetkeep", "restore", "-n", "--json", "-s", target.url, "--repo", str(tmp_path / "r")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 40, run.stderr
    losses = json.loads(run.stdout)["steps"][0]["losses"]
    assert [one["count"] for one in losses] == [1]


async def test_a_hundred_thousand_subjects(start_server: StartServer, tmp_path: Path) -> None:
    source = await start_server()
    rows = [Message(at, 10**18 + at, b"SUBJ.%d.%d" % (at % 1000, at), b"", b"%d" % at) for at in range(1, 100_001)]
    async with connected(source) as js:
        await lay(js, "SUBJ", rows)
        kept = await keep(js, tmp_path)
    target = await start_server("2.12.8")
    async with connected(target) as js:
        await put_back(js, kept)
        info = await js.stream_info("SUBJ")
        assert (info["state"]["messages"], info["state"]["num_subjects"]) == (100_000, 100_000)


async def test_a_thousand_streams(start_server: StartServer, tmp_path: Path) -> None:
    source = await start_server()
    names = [f"S{at:04d}" for at in range(1000)]
    async with connected(source) as js:
        for name in names:
            await js.create_stream({"name": name, "subjects": [f"{name}.>"], "storage": "file"})
        async with Publisher(source.url) as publisher:
            await publisher.store_all((f"{name}.x", name.encode(), b"") for name in names)
        kept = await keep(js, tmp_path)
        assert sorted(one.stream for one in kept.manifests) == names
        assert {one.messages for one in kept.manifests} == {1}
    target = await start_server("2.14.6")
    async with connected(target) as js:
        await put_back(js, kept)
        listing = await js.stream_list()
        assert listing.total == 1000


@pytest.mark.parametrize(("count", "size"), [(100_000, 128), (1_000_000, 128), (4_000, 65_536), (300, 1_000_000)])
async def test_memory_is_bounded_whatever_the_size(
    start_server: StartServer, tmp_path: Path, count: int, size: int
) -> None:
    config = {"max_payload": 2 * 1024 * 1024}
    source, target = await start_server(None, config), await start_server(None, config)
    async with connected(source) as js:
        await js.create_stream({"name": "MANY", "subjects": ["many.>"], "storage": "file"})
        body = bytes(range(256)) * (size // 256 + 1)
        async with Publisher(source.url) as publisher:
            await publisher.store_all((f"many.{at % 50}", body[at % 199 :][:size], b"") for at in range(count))
    for command, server in (("backup", source), ("restore", target)):
        resident = await asyncio.to_thread(
            run_measured, [command, "-q", "-s", server.url, "--repo", str(tmp_path / "r")]
        )
        sys.stdout.write(f"{command} of {count} x {size}: {resident / 2**20:.0f} MiB resident\n")
        assert resident <= 256 * 2**20


def run_measured(arguments: list[str]) -> int:
    """Run jetkeep as a process; its peak of resident memory in bytes."""
    script = (
        "import resource, subprocess, sys; "
        "done = subprocess.run([sys.executable, '-m', 'jetkeep', *sys.argv[1:]], stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024
