"""The v1 snapshot form against every server version: what it sends is read right, what is written it restores."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jetkeep.codecs.s2 import S2Decoder, S2Encoder
from jetkeep.errors import BadDataError
from jetkeep.jetstream import JetStream
from jetkeep.jetstream.messages import read, time_ns
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict, Message, Pending, Position
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.msgblocks import FIRST_TIME, decode, encode, make_rows
from tests.publisher import Publisher, header_block
from tests.restoring import connected
from tests.versions import VERSIONS, ends_first

SENDERS = [version for version in VERSIONS if version < "2.15"]
SECOND = 1_000_000_000


async def received(js: JetStream, stream: str) -> tuple[JsonDict, bytes]:
    """The state that the server gave with its snapshot, and the tar."""
    s2 = S2Decoder()
    async with js.snapshot(stream) as snapshot:
        parts = [bytes(part) async for chunk in snapshot for part in s2.feed(chunk)]
        s2.close()
        return snapshot.state, b"".join(parts)


async def stored(js: JetStream, stream: str) -> list[Message]:
    """Every message, read one by one."""
    state = (await js.stream_info(stream))["state"]
    if not state["messages"]:
        return []
    return [row async for row in read(js, stream, state["first_seq"], state["last_seq"], {})]


# What servers send.


class Filler:
    """Makes streams of a kind: every method is one, and returns the stream's name."""

    def __init__(self, publisher: Publisher, js: JetStream) -> None:
        self.publisher, self.js = publisher, js
        self.source = random.Random(5)

    async def publish(self, stream: str, count: int, size: int = 200, subjects: int = 7) -> None:
        """Random payloads; every fifth with repeated header keys."""
        headers = header_block(("A", "1"), ("b", "x"), ("A", "2"))
        await self.publisher.store_all(
            (
                f"{stream}.{at % subjects}",
                self.source.randbytes(self.source.randrange(size)),
                headers if at % 5 == 0 else b"",
            )
            for at in range(count)
        )

    async def deletes(self) -> str:
        """Over several blocks, secure and plain, at the head and the tail, and more after."""
        await self.publisher.create("DEL")
        await self.publish("DEL", 12_000, 2000)
        await self.publisher.delete("DEL", *range(5, 300, 7))
        for seq in (*range(9000, 9200, 2), 1, 2, 3, 12_000, 11_999):
            await self.js.request("STREAM.MSG.DELETE.DEL", {"seq": seq, "no_erase": True})
        await self.publish("DEL", 10)
        return "DEL"

    async def purges(self) -> str:
        """A subject, then up to a sequence."""
        await self.publisher.create("PUR")
        await self.publish("PUR", 12_000, 2000)
        await self.js.request("STREAM.PURGE.PUR", {"filter": "PUR.3"})
        await self.js.request("STREAM.PURGE.PUR", {"seq": 4777})
        return "PUR"

    async def purged_whole(self) -> str:
        """Empty, but advanced."""
        await self.publisher.create("NUL")
        await self.publish("NUL", 300)
        await self.js.request("STREAM.PURGE.NUL")
        return "NUL"

    async def never_used(self) -> str:
        """Empty and fresh."""
        await self.publisher.create("NEW")
        return "NEW"

    async def max_msgs(self) -> str:
        """The limit has cut inside a block."""
        await self.publisher.create("MSG", max_msgs=3315)
        await self.publish("MSG", 12_000, 2000)
        return "MSG"

    async def max_bytes(self) -> str:
        """The same by size, with small blocks."""
        await self.publisher.create("BYT", max_bytes=3_000_000)
        await self.publish("BYT", 12_000, 2000)
        return "BYT"

    async def max_age(self) -> str:
        """The first messages have expired, the others have not."""
        await self.publisher.create("AGE", max_age=2 * SECOND)
        await self.publish("AGE", 1000)
        while (await self.publisher.info("AGE"))["state"]["messages"]:
            await asyncio.sleep(0.05)
        await self.publish("AGE", 100)
        await self.js.request("STREAM.UPDATE.AGE", {**(await self.publisher.info("AGE"))["config"], "max_age": 0})
        return "AGE"

    async def subject_limit(self) -> str:
        """Few live messages in many dead ones."""
        await self.publisher.create("SUB", max_msgs_per_subject=30)
        await self.publish("SUB", 12_000, 2000)
        return "SUB"

    async def history_2(self) -> str:
        """As a key-value bucket has it."""
        await self.publisher.create("KV_b", subjects=["$KV.b.>"], max_msgs_per_subject=2, allow_rollup_hdrs=True)
        await self.publisher.store_all((f"$KV.b.{at * at % 311}", b"v%d" % at, b"") for at in range(2000))
        return "KV_b"

    async def compressed(self) -> str:
        """S2 in the store; a secure delete there is what 2.10 cannot read back, so a plain one."""
        await self.publisher.create("S2", compression="s2")
        await self.publish("S2", 12_000, 2000)
        for seq in range(3000, 4000, 17):
            await self.js.request("STREAM.MSG.DELETE.S2", {"seq": seq, "no_erase": True})
        return "S2"

    async def work_queue(self) -> str:
        """Acknowledged messages are gone, the others pending."""
        await self.publisher.create("WQ", retention="workqueue")
        await self.publish("WQ", 500)
        await self.publisher.create_consumer("WQ", "w", ack_wait=3600 * SECOND)
        await self.fetch("WQ", "w", 200, acknowledge=lambda at: at % 3 > 0)
        return "WQ"

    async def consumers(self) -> str:
        """With a filter, pending and redelivered; and one that was never used."""
        await self.publisher.create("CON")
        await self.publish("CON", 500)
        await self.publisher.create_consumer("CON", "fresh")
        await self.publisher.create_consumer("CON", "three", filter_subject="CON.3", ack_wait=SECOND // 2)
        await self.fetch("CON", "three", 40, acknowledge=lambda at: at < 20)
        await asyncio.sleep(0.7)
        await self.fetch("CON", "three", 5, acknowledge=lambda _: False)
        return "CON"

    async def fetch(self, stream: str, consumer: str, count: int, acknowledge: Callable[[int], bool]) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        inbox = self.js.client.new_inbox()
        await self.js.client.subscribe(inbox, cb=queue.put)
        await self.js.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", json.dumps({"batch": count}).encode(), reply=inbox
        )
        for at in range(count):
            message = await asyncio.wait_for(queue.get(), 10)
            if acknowledge(at):
                await self.js.client.request(message.reply, b"+ACK", timeout=5)


KINDS = [
    name for name, one in vars(Filler).items() if asyncio.iscoroutinefunction(one) and name not in ("publish", "fetch")
]


@asynccontextmanager
async def filling(server: Sandbox) -> AsyncIterator[tuple[JetStream, Filler]]:
    async with connected(server) as js, Publisher(server.url) as publisher:
        yield js, Filler(publisher, js)


@pytest.mark.parametrize("version", ends_first(SENDERS))
async def test_a_snapshot_holds_what_the_server_gives_by_message(version: str, start_server: StartServer) -> None:
    server = await start_server(version)
    async with filling(server) as (js, filler):
        for kind in KINDS:
            make: Callable[[], Awaitable[str]] = getattr(filler, kind)
            stream = await make()
            state, tar = await received(js, stream)
            found = decode(tar, stream, state["last_seq"], piece=50_000)
            assert found.live == await stored(js, stream), kind
            assert len(found.live) == state["messages"], kind
            for name, consumer in found.consumers.items():
                info = await js.request(f"CONSUMER.INFO.{stream}.{name}")
                # Servers up to 2.11 store another reading of the clock than they tell.
                assert consumer.created
                assert abs(time_ns(consumer.created) - time_ns(info["created"])) < SECOND // 10
                assert consumer.state.delivered._asdict() == delivered(info["delivered"])
                assert consumer.state.ack_floor._asdict() == delivered(info["ack_floor"])
                assert len(consumer.state.pending) == info["num_ack_pending"]
                assert len(consumer.state.redelivered) == info["num_redelivered"]
            assert len(found.consumers) == (await js.stream_info(stream))["state"]["consumer_count"]


def delivered(position: JsonDict) -> JsonDict:
    return {key: position[key] for key in ("consumer_seq", "stream_seq")}


@pytest.mark.parametrize("version", ends_first(SENDERS))
async def test_a_snapshot_of_a_busy_stream_is_cut_at_its_state(version: str, start_server: StartServer) -> None:
    server = await start_server(version)
    async with filling(server) as (js, filler), filling(server) as (_, busy):
        await filler.publisher.create("BUSY")
        await filler.publish("BUSY", 12_000, 2000)
        publishing = asyncio.create_task(busy.publish("BUSY", 20_000, 100))
        for _ in range(3):
            state, tar = await received(js, "BUSY")
            last = state["last_seq"]
            found = decode(tar, "BUSY", last)
            assert [row.seq for row in found.live] == list(range(1, last + 1))
        await publishing
        assert found.live == (await stored(js, "BUSY"))[:last]


async def test_what_2_10_cannot_read_back_is_a_failure(start_server: StartServer) -> None:
    server = await start_server("2.10.26")
    async with filling(server) as (js, filler):
        stream = await filler.compressed()
        await filler.publisher.delete(stream, 10, 11)
        state, tar = await received(js, stream)
        assert state["messages"] > 0
        with pytest.raises(BadDataError, match="corrupt input") as failed:
            decode(tar, stream)
        assert failed.value.code == "data.snapshot-errors"


# What servers restore.

STATE = ConsumerState(
    Position(60, 50),
    Position(40, 40),
    {45: Pending(45, FIRST_TIME // SECOND * SECOND), 48: Pending(60, FIRST_TIME // SECOND * SECOND)},
    {48: 2},
)
LONG = "n" * 120
CONSUMERS = [
    ConsumerRecord("fresh", {"durable_name": "fresh", "name": "fresh", "ack_policy": "explicit"}, ConsumerState()),
    ConsumerRecord(
        LONG,
        {"durable_name": LONG, "name": LONG, "ack_policy": "explicit", "ack_wait": 3600 * SECOND},
        STATE,
        "2024-02-02T03:04:05Z",
    ),
]


def shapes() -> Iterable[tuple[str, list[Message], int]]:
    source = random.Random(3)
    yield "DENSE", make_rows(range(1, 3001)), 3000
    yield "LEAD", make_rows(range(100_001, 100_501)), 100_500
    yield "HOLES", make_rows(sorted(source.sample(range(1, 9000), 2000))), 9500
    yield "SPARSE", make_rows(range(1, 2_000_000, 1000)), 1_999_001
    yield "WIDE", make_rows([1, 2, 50_000_000, 50_000_001, 110_000_000]), 110_000_000
    yield "TAIL", make_rows(range(1, 50)), 20_000_000
    yield "BLOCKS", make_rows((*range(1, 4000), *range(4500, 8000)), 8000), 8000
    yield "LARGE", [*make_rows([5]), Message(7, FIRST_TIME, b"s.1", b"", bytes(20_000_000)), *make_rows([9])], 9
    yield "ADVANCED", [], 777
    yield "FRESH", [], 0


async def restore(js: JetStream, config: JsonDict, rows: list[Message], last: int) -> JsonDict:
    consumers = CONSUMERS if config["name"] == "DENSE" else []
    tar = encode(rows, last, consumers, config=config, created="2024-01-02T03:04:05.678901Z")
    state = {"messages": len(rows), "bytes": len(tar), "first_seq": 0, "last_seq": last}
    async with js.restore(config["name"], config, state) as sender:
        await sender.send(S2Encoder().encode(tar))
        return await sender.finish()


async def check(js: JetStream, stream: str, rows: list[Message], last: int) -> None:
    info = await js.stream_info(stream)
    first = rows[0].seq if rows else last + 1 if last else 0
    missing = last - first + 1 - len(rows) if rows else 0
    state = info["state"]
    assert (state["messages"], state["first_seq"], state["last_seq"]) == (len(rows), first, last), stream
    assert state.get("num_deleted", 0) == missing, stream
    assert state["bytes"] == sum(30 + len(b"".join(row[2:])) + (4 if row.headers else 0) for row in rows)
    assert await stored(js, stream) == rows, stream


async def check_consumers(js: JetStream) -> None:
    info = await js.request(f"CONSUMER.INFO.DENSE.{LONG}")
    assert info["created"] == "2024-02-02T03:04:05Z"
    assert delivered(info["delivered"]) == STATE.delivered._asdict()
    assert delivered(info["ack_floor"]) == STATE.ack_floor._asdict()
    assert (info["num_ack_pending"], info["num_redelivered"], info["num_pending"]) == (2, 1, 2950)
    assert (await js.request("CONSUMER.INFO.DENSE.fresh"))["num_pending"] == 3000


async def test_every_server_restores_what_was_written_exactly(any_server: Sandbox) -> None:
    async with connected(any_server) as js:
        for name, rows, last in shapes():
            config = {"name": name, "subjects": [f"{name}.>", *(["s.>"] if name == "DENSE" else [])], "storage": "file"}
            # Up to 2.12 a restart makes it the time of the restore.
            assert (await restore(js, config, rows, last))["created"] == "2024-01-02T03:04:05.678901Z"
            await check(js, name, rows, last)
        await check_consumers(js)
    await any_server.restart()
    async with connected(any_server) as js, Publisher(any_server.url) as publisher:
        await check_consumers(js)
        for name, rows, last in shapes():
            await check(js, name, rows, last)
            assert await publisher.store(f"{name}.more") == last + 1


async def test_wide_gaps_cost_a_server_nothing(any_server: Sandbox) -> None:
    async with connected(any_server) as js, asyncio.timeout(2):
        rows = make_rows(range(1, 10**12, 10**10))
        await restore(js, {"name": "S", "subjects": ["s.>"], "storage": "file"}, rows, 10**12)
        assert (await js.stream_info("S"))["state"]["messages"] == 100
