"""What is large: gaps of fifty million, messages of sixty MiB, a hundred thousand subjects, a thousand streams."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import CannotRestoreError
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.restoring import connected, keep, planned, publish, put_back, state_of

pytestmark = pytest.mark.large
MIB = 1024 * 1024


async def test_a_gap_of_fifty_million(any_server: Sandbox, tmp_path: Path) -> None:
    async with connected(any_server, timeout_s=60.0) as js:
        config = {"name": "S", "subjects": ["s"], "storage": "file"}
        await js.create_stream(config)
        await publish(js, "s", b"first")
        kept = await keep(js, tmp_path)
        # A stream that lost its middle: the same as one whose messages were deleted one by one, and made at once.
        one = kept.manifests[0]
        one.last_seq = 50_000_001
        one.deleted = SequenceSet.from_ranges([(2, 50_000_001)]).encode()
        await js.delete_stream("S")
        began = time.monotonic()
        await put_back(js, kept)
        assert time.monotonic() - began < 60
        assert await state_of(js, "S") == (1, 1, 50_000_001)
        assert (await publish(js, "s"))["seq"] == 50_000_002


async def test_messages_above_what_a_server_reads_back_from_disk(start_server: StartServer, tmp_path: Path) -> None:
    """Memory storage holds 60 MiB; on disk no server finds it again, so going there is a loss, in numbers."""
    server = await start_server(None, {"max_payload": 64 * MIB})
    async with connected(server, timeout_s=60.0) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "memory"})
        for size in (5, 60 * MIB, 5):
            await js.client.request("s", bytes(size), timeout=60)
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        await put_back(js, kept)
        assert await state_of(js, "S") == (3, 1, 3)
        await js.delete_stream("S")
        loss = (await planned(js, kept, storage="file")).steps[0].losses[0]
        assert (loss.cause, loss.count) == ("message_size", 1)
        with pytest.raises(CannotRestoreError):
            await put_back(js, kept, storage="file")
        report = await put_back(js, kept, storage="file", accept_loss=True)
        assert report.streams[0].lost == 1
        assert await state_of(js, "S") == (2, 1, 3)


async def test_a_hundred_thousand_subjects(server: Sandbox, tmp_path: Path) -> None:
    async with connected(server, timeout_s=60.0) as js:
        await js.create_stream({"name": "S", "subjects": ["s.>"], "storage": "file", "max_msgs_per_subject": 2})
        for at in range(200_000):
            await js.client.publish(f"s.{at % 100_000}", b"x")
            if at % 2000 == 0:
                await js.client.flush()
        while (await state_of(js, "S"))[0] < 200_000:
            await asyncio.sleep(0.1)
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        kept.manifests[0].config["max_msgs_per_subject"] = 1
        kept.manifests[0].server_version = "2.12.8"  # newer sources have kept to the limit, so nobody would look
        report = await put_back(js, kept, accept_loss=True)
        assert (report.streams[0].lost, report.streams[0].as_foreseen) == (100_000, True)
        assert await state_of(js, "S") == (100_000, 100_001, 200_000)


async def test_a_thousand_streams(server: Sandbox, tmp_path: Path) -> None:
    async with connected(server, timeout_s=60.0) as js:
        for at in range(1000):
            await js.create_stream({"name": f"S{at}", "subjects": [f"s{at}"], "storage": "file"})
            await publish(js, f"s{at}")
        kept = await keep(js, tmp_path)
        for at in range(1000):
            await js.delete_stream(f"S{at}")
        report = await put_back(js, kept)
        assert len(report.streams) == 1000
        assert (await js.stream_list()).total == 1000
