"""A shop for the matrix: as many kinds of streams as every version from 2.10 on has, and what newer ones add."""

from __future__ import annotations

from typing import Any

from jetkeep.jetstream import JetStream
from jetkeep.model import JsonDict, Message
from tests.publisher import Publisher
from tests.restoring import consumer, fetch

REPEATED = b"NATS/1.0\r\nA: 1\r\na: 2\r\nB: x\r\nA: 3\r\n\r\n"


def streams(release: tuple[int, int]) -> list[JsonDict]:
    """Configurations that a server of this release takes."""
    made: list[JsonDict] = [
        {"name": "LIMITS", "subjects": ["limits.>"], "compression": "s2", "allow_direct": True},
        {"name": "INTEREST", "subjects": ["interest.>"], "retention": "interest"},
        {"name": "WORK", "subjects": ["work.>"], "retention": "workqueue"},
        {"name": "MEMORY", "subjects": ["memory.>"], "storage": "memory", "allow_direct": True},
        {"name": "PERSUBJECT", "subjects": ["per.>"], "max_msgs_per_subject": 2},
        {"name": "EMPTY", "subjects": ["empty.>"]},
        {"name": "ADVANCED", "subjects": ["advanced.>"]},
        {"name": "SEALED", "subjects": ["sealed.>"]},
        {"name": "MIRROR", "mirror": {"name": "LIMITS"}, "allow_direct": True},
        {"name": "SOURCED", "subjects": ["sourced.>"], "sources": [{"name": "PERSUBJECT"}]},
    ]
    if release >= (2, 11):
        made.append({"name": "TTL", "subjects": ["ttl.>"], "allow_msg_ttl": True})
    if release >= (2, 12):
        made.append({"name": "COUNTER", "subjects": ["counter.>"], "allow_msg_counter": True, "allow_direct": True})
    return made


async def fill(js: JetStream, url: str, release: tuple[int, int]) -> list[str]:
    """Create and fill the shop; returns the streams' names."""
    made = streams(release)
    for config in made:
        await js.create_stream({"storage": "file", **config})
    await consumer(js, "INTEREST", "keeps")
    async with Publisher(url) as publisher:
        await publisher.store_all(
            (f"limits.{at % 7}", b"p" * at, REPEATED if at % 3 == 0 else b"") for at in range(400)
        )
        await publisher.store_all([(b"limits.caf\xe9.\xff", b"not UTF-8", b""), ("limits.zero", b"", b"")])
        await publisher.store_all((f"interest.{at}", b"i%d" % at, b"") for at in range(30))
        await publisher.store_all((f"work.{at % 3}", b"w%d" % at, b"") for at in range(60))
        await publisher.store_all((f"memory.{at % 3}", b"m%d" % at, b"") for at in range(50))
        await publisher.store_all((f"per.{at % 9}", b"s%d" % at, b"") for at in range(40))
        await publisher.store_all(("advanced.x", b"a", b"") for _ in range(12))
        await publisher.store_all(("sealed.x", b"s", b"") for _ in range(5))
        if release >= (2, 11):
            await publisher.store("ttl.long", b"t", b"NATS/1.0\r\nNats-TTL: 24h\r\n\r\n")
            await publisher.store("ttl.never", b"t", b"NATS/1.0\r\nNats-TTL: never\r\n\r\n")
        if release >= (2, 12):
            for _ in range(5):
                await publisher.store("counter.visits", b"", b"NATS/1.0\r\nNats-Incr: 3\r\n\r\n")
    await js.request("STREAM.PURGE.ADVANCED", {})
    await js.request("STREAM.PURGE.LIMITS", {"filter": "limits.3"})
    for seq in (5, 6, 7, 90, 202, 203):
        await js.request("STREAM.MSG.DELETE.LIMITS", {"seq": seq, "no_erase": seq % 2 == 0})
    await _consumers(js, release)
    sealed = (await js.stream_info("SEALED"))["config"] | {"sealed": True}
    await js.update_stream(sealed)
    return [str(config["name"]) for config in made]


async def _consumers(js: JetStream, release: tuple[int, int]) -> None:
    await consumer(js, "LIMITS", "all", max_ack_pending=500)
    await fetch(js, "LIMITS", "all", 40, acks=[0, 1, 2, 5, 9])
    await consumer(js, "LIMITS", "one", filter_subject="limits.2")
    await consumer(js, "LIMITS", "several", filter_subjects=["limits.1", "limits.5"], max_deliver=4)
    await fetch(js, "LIMITS", "several", 10, acks=[0, 3])
    await consumer(js, "LIMITS", "fromhere", deliver_policy="by_start_sequence", opt_start_seq=100)
    await consumer(js, "WORK", "worker", ack_wait=600_000_000_000)
    await fetch(js, "WORK", "worker", 20, acks=[0, 1, 2, 3, 8, 9, 15])
    await fetch(js, "INTEREST", "keeps", 12, acks=[0, 1, 4])
    if release >= (2, 11):
        await consumer(js, "LIMITS", "paused", pause_until="2999-01-01T00:00:00Z")


async def look(js: JetStream, stream: str) -> tuple[tuple[int, int, int], list[Message], dict[str, Any]]:
    """A stream as the API tells it, not as a snapshot does: state, every message, every consumer's positions."""
    info = await js.stream_info(stream)
    state = info["state"]
    numbers = (int(state["messages"]), int(state["first_seq"]), int(state["last_seq"]))
    messages = []
    if numbers[0]:
        messages = [one async for one in js.messages(stream, numbers[1], numbers[2], info["config"])]
    consumers = {}
    for one in await js.consumers(stream):
        positions = tuple((one[key]["consumer_seq"], one[key]["stream_seq"]) for key in ("delivered", "ack_floor"))
        consumers[str(one["name"])] = (positions, one["num_ack_pending"], one["num_pending"], one["num_redelivered"])
    return numbers, messages, consumers
