from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from jetkeep.config import ConnectionSettings
from jetkeep.errors import ServerError
from jetkeep.jetstream import JetStream, connect
from jetkeep.model import Message
from jetkeep.sandbox import Sandbox, SandboxCluster
from tests.conftest import StartServer
from tests.publisher import Publisher, header_block

EVIL = header_block(
    ("A", "1"), ("a", "2"), ("A", "3"), b"no-space:x", b"Empty:", ("Nats-Sequence", "7"), ("Nats-Subject", "evil"),
    ("Nats-Time-Stamp", "2001-01-01T00:00:00Z"), ("Nats-Stream", "OTHER"), ("Nats-Num-Pending", "9"),
    ("Nats-Last-Sequence", "8"),
)  # fmt: skip
STATUS = b"NATS/1.0 404 Not Found\r\nA: b\r\n\r\n"
STORED = [
    (b"S.a", b"plain", b""),
    (b"S.b", b"", b""),
    (b"S.c", b"with headers", EVIL),
    (b"S.d", b"", EVIL),
    (b"S.e", os.urandom(300), header_block(("K", "ümlaut"))),
    (b"S.f", b"looks like the end of a batch", b"NATS/1.0\r\nStatus: 204\r\nDescription: EOB\r\n\r\n"),
    (b"S.g", b"large", b"" + header_block(("L", "x" * 5000))),
]


def reach(url: str, **more: Any) -> contextlib.AbstractAsyncContextManager[JetStream]:
    return connect(ConnectionSettings(servers=tuple(url.split(",")), timeout_s=3.0, **more))


async def read(js: JetStream, first: int = 1, last: int | None = None, direct: bool = True) -> list[Message]:
    if last is None:
        last = int((await js.stream_info("S"))["state"]["last_seq"])
    config = {"allow_direct": direct}
    return [message async for message in js.messages("S", first, last, config)]


@pytest.mark.parametrize("storage", ["file", "memory"])
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "one by one"])
async def test_messages_are_read_exactly(any_server: Sandbox, direct: bool, storage: str) -> None:
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", allow_direct=direct, storage=storage)
        before = time.time_ns()
        await publisher.store_all(STORED)
        after = time.time_ns()
    async with reach(any_server.url) as js:
        found = await read(js, direct=direct)
        assert await js.consumers("S") == []
    assert [(one.subject, one.payload, one.headers) for one in found] == STORED
    assert [one.seq for one in found] == list(range(1, len(STORED) + 1))
    times = [one.ts for one in found]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after
    assert any(one % 1000 for one in times), "nanoseconds were lost"


async def test_a_stored_status_line_is_not_taken_for_the_servers_word(any_server: Sandbox) -> None:
    """Servers from 2.12 on take the status off when they store; older ones keep it."""
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", allow_direct=True)
        await publisher.store_all([(b"S.a", b"1", STATUS), (b"S.a", b"2", b"")])
    async with reach(any_server.url) as js:
        batched, one_by_one = await read(js), await read(js, direct=False)
    assert batched == one_by_one
    assert [one.payload for one in batched] == [b"1", b"2"]


async def test_a_subject_that_is_not_utf8(any_server: Sandbox) -> None:
    subject = b"S.\xff\xfe.\x80"
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", allow_direct=True)
        await publisher.store_all([(b"S.a", b"1", b""), (subject, b"2", EVIL), (b"S.b", b"3", b"")])
    async with reach(any_server.url) as js:
        assert [one.subject for one in await read(js)] == [b"S.a", subject, b"S.b"]
        assert (await read(js))[1].headers == EVIL
        with pytest.raises(ServerError, match="not UTF-8") as caught:
            await read(js, direct=False)
    assert "allow-direct" in caught.value.hint


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "one by one"])
async def test_gaps_are_stepped_over(any_server: Sandbox, direct: bool) -> None:
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", allow_direct=direct)
        await publisher.store_all((b"S.a", b"%d" % at, b"") for at in range(1, 3001))
        await publisher.ask("$JS.API.STREAM.PURGE.S", {"seq": 500})
        gone = [*range(700, 720), 1000, 2999, 3000]
        await publisher.delete("S", *gone)
    async with reach(any_server.url) as js:
        expected = [seq for seq in range(500, 3001) if seq not in gone]
        assert [one.seq for one in await read(js, direct=direct)] == expected
        assert [one.seq for one in await read(js, 710, 1001, direct=direct)] == [*range(720, 1000), 1001]
        assert await read(js, 2999, 3000, direct=direct) == []
        assert await read(js, 5000, 6000, direct=direct) == []
        assert await read(js, 1, 499, direct=direct) == []


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "one by one"])
async def test_a_gap_of_millions_costs_nothing(any_server: Sandbox, direct: bool) -> None:
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", allow_direct=direct, max_msgs_per_subject=1)
        await publisher.store_all([(b"S.a", b"1", b"")])
        await publisher.ask("$JS.API.STREAM.PURGE.S", {"seq": 50_000_000})
        await publisher.store_all([(b"S.b", b"2", b"")])
    async with reach(any_server.url) as js:
        began = time.monotonic()
        assert [one.payload for one in await read(js, direct=direct)] == [b"2"]
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "one by one"])
async def test_messages_as_large_as_the_server_takes(any_server: Sandbox, direct: bool) -> None:
    payloads = [os.urandom(1024 * 1024) for _ in range(20)]
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", allow_direct=direct)
        await publisher.store_all((b"S.a", payload, b"") for payload in payloads)
    async with reach(any_server.url) as js:
        assert [one.payload for one in await read(js, direct=direct)] == payloads


async def test_a_mirror_that_answers_for_its_origin_is_not_believed(any_server: Sandbox) -> None:
    """With mirror_direct it answers direct gets of the origin, from what it has itself."""
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", allow_direct=True)
        await publisher.store_all((b"S.a", b"%d" % at, b"") for at in range(1, 101))
        mirror = {"name": "M", "mirror": {"name": "S"}, "mirror_direct": True, "allow_direct": True, "storage": "file"}
        answer = await publisher.ask("$JS.API.STREAM.CREATE.M", mirror)
        assert "error" not in answer
        for _ in range(100):
            if (await publisher.info("M"))["state"]["messages"] == 100:
                break
            await asyncio.sleep(0.05)
        await publisher.delete("S", *range(1, 51))
    async with reach(any_server.url) as js:
        for _ in range(20):
            assert [one.seq for one in await read(js)] == list(range(51, 101))


async def test_replicas_that_lag_hide_nothing(cluster: SandboxCluster) -> None:
    async with Publisher(cluster.url) as publisher:
        await publisher.create("S", allow_direct=True, num_replicas=3)
        for _ in range(5):
            await publisher.store_all((b"S.a", b"x" * 200, b"") for _ in range(500))
            async with reach(cluster.url) as js:
                last = int((await js.stream_info("S"))["state"]["last_seq"])
                config = {"allow_direct": True, "num_replicas": 3}
                assert len([one async for one in js.messages("S", 1, last, config)]) == last


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "one by one"])
@pytest.mark.parametrize("what", ["pause", "kill"])
async def test_a_server_that_stops_answering(server: Sandbox, what: str, direct: bool) -> None:
    async with Publisher(server.url) as publisher:
        await publisher.create("S", allow_direct=direct)
        await publisher.store_all((b"S.a", b"x" * 1000, b"") for _ in range(20_000))
    stop: Callable[[], None] = getattr(server, what)

    async def interrupted() -> None:
        async for message in js.messages("S", 1, 20_000, {"allow_direct": direct}):
            if message.seq == 3000:
                stop()

    async with reach(server.url) as js:
        began = time.monotonic()
        with pytest.raises(ServerError) as caught:
            await interrupted()
        assert caught.value.retryable
        assert time.monotonic() - began < 6
    server.resume()


@pytest.mark.parametrize(("subject", "direct"), [("$JS.API.DIRECT.GET.*", True), ("$JS.API.STREAM.MSG.GET.*", False)])
async def test_a_subject_that_is_not_permitted_is_named(start_server: StartServer, subject: str, direct: bool) -> None:
    denied = {"publish": {"deny": [subject]}}
    users = [{"user": "ann", "password": "pw", "permissions": denied}, {"user": "bob", "password": "pw"}]
    server = await start_server(config={"authorization": {"users": users}})
    async with Publisher(server.url, "bob", "pw") as publisher:
        await publisher.create("S", allow_direct=direct)
        await publisher.store_all([(b"S.a", b"", b"")])
    began = time.monotonic()
    async with reach(server.url, user="ann", password="pw") as js:
        with pytest.raises(ServerError) as caught:
            await read(js, direct=direct)
    assert caught.value.code == "nats.permission"
    assert subject.rstrip("*") in caught.value.what
    assert time.monotonic() - began < 2
