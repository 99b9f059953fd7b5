"""A shop for the matrix: every kind of stream and consumer that a version has, used as clients use it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
from nats.js.api import KeyValueConfig, ObjectMeta, ObjectMetaOptions, ObjectStoreConfig

from jetkeep.jetstream import JetStream
from jetkeep.model import JsonDict
from tests.publisher import Publisher, header_block
from tests.restoring import HOUR, SECOND, consumer, publish

Release = tuple[int, int]
REPEATED = b"NATS/1.0\r\nA: 1\r\na: 2\r\nB: x\r\nA: 3\r\n\r\n"
#: Nothing that encrypts may leave this on its disk.
PLAIN = b"a secret of the shop, in plain words"
#: Long enough that nothing is delivered again while a test looks.
QUIET = HOUR
PICTURE = bytes(range(256)) * 700
MANUAL = b"second edition " * 500
ATOMIC = 4


def streams(release: Release) -> list[JsonDict]:
    """Configurations that a server of this release takes; buckets and stores are made by their clients."""
    made: list[JsonDict] = [
        {"name": "LIMITS", "subjects": ["limits.>"], "compression": "s2", "allow_direct": True},
        {"name": "INTEREST", "subjects": ["interest.>"], "retention": "interest"},
        {"name": "WORK", "subjects": ["work.>"], "retention": "workqueue"},
        {"name": "MEMORY", "subjects": ["memory.>"], "storage": "memory", "duplicate_window": HOUR},
        {"name": "PERSUBJECT", "subjects": ["per.>"], "max_msgs_per_subject": 2},
        {"name": "EMPTY", "subjects": ["empty.>"]},
        {"name": "ADVANCED", "subjects": ["advanced.>"]},
        {"name": "SEALED", "subjects": ["sealed.>"]},
        {"name": "MIRROR", "mirror": {"name": "LIMITS"}, "allow_direct": True},
        {"name": "SOURCED", "subjects": ["sourced.>"], "sources": [{"name": "PERSUBJECT"}]},
        {"name": "ZERO", "subjects": ["zero.>"]},
        {"name": "PACKED", "subjects": ["packed.>"], "compression": "s2"},
        {"name": "DEDUPE", "subjects": ["dedupe.>"], "duplicate_window": HOUR},
    ]
    if release >= (2, 11):
        marked = {"subject_delete_marker_ttl": 60 * SECOND, "allow_rollup_hdrs": True}
        made.append({"name": "TTL", "subjects": ["ttl.>"], "allow_msg_ttl": True, **marked})
    if release >= (2, 12):
        made.append({"name": "COUNTER", "subjects": ["counter.>"], "allow_msg_counter": True, "allow_direct": True})
        made.append({"name": "ATOMIC", "subjects": ["atomic.>"], "allow_atomic": True})
        made.append({"name": "ASYNC", "subjects": ["async.>"], "persist_mode": "async"})
        planned = {"allow_msg_schedules": True, "allow_rollup_hdrs": True}
        made.append({"name": "SCHEDULES", "subjects": ["schedules.>"], **planned})
    if release >= (2, 14):
        made.append({"name": "FAST", "subjects": ["fast.>"], "allow_batched": True})
    return made


async def fill(js: JetStream, url: str, release: Release) -> list[str]:
    """Create and fill the shop, and wait until mirrors and sources have followed; returns the streams' names."""
    made = streams(release)
    for config in made:
        await js.create_stream({"storage": "file", **config})
    await consumer(js, "INTEREST", "keeps", ack_wait=QUIET)
    async with Publisher(url) as publisher:
        await _publish(publisher, release)
    if release >= (2, 12):
        await _publish_batch(js)
    await js.request("STREAM.PURGE.ADVANCED", {})
    await js.request("STREAM.PURGE.LIMITS", {"filter": "limits.3"})
    for seq in (5, 6, 7, 90, 202, 203):
        await js.request("STREAM.MSG.DELETE.LIMITS", {"seq": seq, "no_erase": seq % 2 == 0})
    # A secure delete in a compressed block is what 2.10 loses the block by (ADR 003).
    await js.request("STREAM.MSG.DELETE.PACKED", {"seq": 2, "no_erase": release < (2, 11)})
    await _consumers(js, release)
    await _clients(url)
    await js.update_stream((await js.stream_info("SEALED"))["config"] | {"sealed": True})
    await _followed(js)
    return [*(str(config["name"]) for config in made), "KV_profiles", "OBJ_files"]


async def _publish(publisher: Publisher, release: Release) -> None:
    await publisher.store_all((f"limits.{at % 7}", b"p" * at, REPEATED if at % 3 == 0 else b"") for at in range(400))
    await publisher.store_all([(b"limits.caf\xe9.\xff", b"not UTF-8", b""), ("limits.plain", PLAIN, b"")])
    # A server compresses a block once it is full, with 8 MiB.
    await publisher.store_all((f"packed.{at}", b"paper %04d " % at * 90_000, b"") for at in range(10))
    await publisher.store_all((f"interest.{at}", b"i%d" % at, b"") for at in range(30))
    await publisher.store_all((f"work.{at % 3}", b"w%d" % at, b"") for at in range(60))
    for name in ("memory", "dedupe"):
        await publisher.store_all(
            (f"{name}.{at % 3}", b"m%d" % at, header_block(("Nats-Msg-Id", f"id-{at}"))) for at in range(50)
        )
    await publisher.store_all((f"per.{at % 9}", b"s%d" % at, b"") for at in range(40))
    await publisher.store_all(("advanced.x", b"a", b"") for _ in range(12))
    await publisher.store_all(("sealed.x", b"s", b"") for _ in range(5))
    await publisher.store_all((f"zero.{at % 2}", b"", REPEATED if at % 5 == 0 else b"") for at in range(20))
    if release >= (2, 11):
        await publisher.store("ttl.long", b"t", header_block(("Nats-TTL", "24h")))
        await publisher.store("ttl.never", b"t", header_block(("Nats-TTL", "never")))
    if release >= (2, 12):
        for _ in range(5):
            await publisher.store("counter.visits", b"", header_block(("Nats-Incr", "3")))
        await publisher.store_all((f"async.{at}", b"a", b"") for at in range(10))
        await publisher.store("schedules.once", b"call", _schedule("@at 2199-01-01T00:00:00Z"))
    if release >= (2, 14):
        await publisher.store("schedules.daily", b"clean", _schedule("@every 24h"))
        await publisher.store_all((f"fast.{at}", b"f", b"") for at in range(10))


def _schedule(when: str) -> bytes:
    return header_block(("Nats-Schedule", when), ("Nats-Schedule-Target", "schedules.fired"))


async def _publish_batch(js: JetStream) -> None:
    """One batch that is committed, and one that never is: it is no part of the stream."""
    told = await atomic_batch(js, "whole")
    assert (told["batch"], told["count"]) == ("whole", ATOMIC)
    headers = {"Nats-Batch-Id": "half", "Nats-Batch-Sequence": "1"}
    await js.client.request("atomic.half", b"never", timeout=5, headers=headers)


async def atomic_batch(js: JetStream, name: str) -> JsonDict:
    """Publish a batch that counts whole or not at all; the stream's answer to its end."""
    for at in range(1, ATOMIC):
        headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(at)}
        await js.client.publish(f"atomic.{at}", b"part", headers=headers)
    return await publish(
        js,
        "atomic.end",
        b"last",
        Nats_Batch_Id=name,
        Nats_Batch_Sequence=str(ATOMIC),
        Nats_Batch_Commit="1",
    )


async def pull(
    js: JetStream, stream: str, name: str, count: int, acks: dict[int, bytes] | None = None, **asked: Any
) -> None:
    """Let a pull consumer deliver `count` messages, and answer those at these positions so."""
    inbox = js.client.new_inbox()
    subscription = await js.client.subscribe(inbox)
    body = json.dumps({"batch": count, "expires": 5 * SECOND, **asked}).encode()
    await js.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", body, reply=inbox)
    await _answer(js, [await subscription.next_msg(timeout=10) for _ in range(count)], acks or {})
    await subscription.unsubscribe()


async def _answer(js: JetStream, got: list[Any], acks: dict[int, bytes]) -> None:
    for message in got:
        assert message.reply, message.headers
    for at, answer in acks.items():
        await js.client.request(got[at].reply, answer, timeout=5)


def acked(*positions: int) -> dict[int, bytes]:
    """Acknowledge these."""
    return dict.fromkeys(positions, b"+ACK")


async def _pushed(js: JetStream, name: str, count: int, acks: dict[int, bytes], **config: Any) -> None:
    """A push consumer whose client received `count` messages, left, and then answered some."""
    subject = f"to.{name}"
    subscription = await js.client.subscribe(subject, queue=config.get("deliver_group", ""))
    await js.client.flush()
    await consumer(js, "LIMITS", name, deliver_subject=subject, max_ack_pending=count, ack_wait=QUIET, **config)
    got = [await subscription.next_msg(timeout=10) for _ in range(count)]
    await subscription.unsubscribe()
    await js.client.flush()
    # The server looks on its own time whether anybody listens; until then an answer would bring the next message.
    while (await js.request(f"CONSUMER.INFO.LIMITS.{name}")).get("push_bound"):
        await asyncio.sleep(0.02)
    await _answer(js, got, acks)


async def ephemeral(js: JetStream, stream: str, name: str, **config: Any) -> None:
    """A consumer that goes an hour after its client."""
    full = {"name": name, "ack_policy": "explicit", "inactive_threshold": HOUR, "ack_wait": QUIET, **config}
    await js.request(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": full})


async def _consumers(js: JetStream, release: Release) -> None:
    await consumer(js, "LIMITS", "all", max_ack_pending=500, ack_wait=QUIET)
    await pull(js, "LIMITS", "all", 40, acked(0, 1, 2, 5, 9))
    await consumer(js, "LIMITS", "one", filter_subject="limits.2")
    await consumer(js, "LIMITS", "several", filter_subjects=["limits.1", "limits.5"], max_deliver=4, ack_wait=QUIET)
    await pull(js, "LIMITS", "several", 10, acked(0, 3))
    await consumer(js, "LIMITS", "fromhere", deliver_policy="by_start_sequence", opt_start_seq=100)
    await consumer(js, "LIMITS", "again", ack_wait=QUIET)
    await pull(js, "LIMITS", "again", 6, {0: b"+ACK", 2: b"-NAK", 4: b"-NAK"})
    await pull(js, "LIMITS", "again", 2, acked(1))
    await consumer(js, "WORK", "worker", ack_wait=QUIET)
    await pull(js, "WORK", "worker", 20, acked(0, 1, 2, 3, 8, 9, 15))
    await pull(js, "INTEREST", "keeps", 12, acked(0, 1, 4))
    await _pushed(js, "pushed", 12, acked(0, 1, 5), flow_control=True, idle_heartbeat=30 * SECOND)
    await _pushed(js, "shared", 8, acked(0, 2), deliver_group="clerks")
    await ephemeral(js, "LIMITS", "passing")
    await pull(js, "LIMITS", "passing", 7, acked(0, 3))
    await consumer(js, "LIMITS", "inmemory", mem_storage=True, ack_wait=QUIET)
    await pull(js, "LIMITS", "inmemory", 9, acked(0, 2))
    await ephemeral(js, "MEMORY", "both", mem_storage=True)
    await pull(js, "MEMORY", "both", 5, acked(0, 1))
    if release >= (2, 11):
        await consumer(js, "LIMITS", "paused", pause_until="2999-01-01T00:00:00Z")
        grouped = {"priority_groups": ["desk"], "ack_wait": QUIET}
        await consumer(js, "LIMITS", "overflow", priority_policy="overflow", **grouped)
        await pull(js, "LIMITS", "overflow", 6, acked(0, 4), group="desk", min_pending=1)
        await consumer(js, "LIMITS", "pinned", priority_policy="pinned_client", priority_timeout=HOUR, **grouped)
        await pull(js, "LIMITS", "pinned", 6, acked(0, 1), group="desk")
    if release >= (2, 12):
        await consumer(js, "LIMITS", "prioritized", priority_policy="prioritized", **grouped)
        await pull(js, "LIMITS", "prioritized", 5, acked(0, 2), group="desk", priority=1)
    if release >= (2, 14):
        flow = {"ack_policy": "flow_control", "flow_control": True, "idle_heartbeat": SECOND}
        await consumer(js, "LIMITS", "flowing", deliver_subject="to.flowing", **flow)


async def _clients(url: str) -> None:
    """A bucket with history and a store of objects, by the clients that people use."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        bucket = await js.create_key_value(KeyValueConfig(bucket="profiles", history=4))
        for at in range(6):
            await bucket.put("ann", b"ann %d" % at)
        await bucket.put("bob", b"bob")
        await bucket.delete("bob")
        await bucket.put("eve", b"eve")
        await bucket.purge("eve")
        await bucket.put("dan", b"")
        files = await js.create_object_store("files", ObjectStoreConfig())
        small = ObjectMeta(description="a cat", options=ObjectMetaOptions(max_chunk_size=50_000))
        await files.put("picture", PICTURE, small)
        await files.put("manual", b"first edition")
        await files.put("manual", MANUAL)
        await files.put("old", b"gone")
        await files.delete("old")
    finally:
        await client.close()


async def _followed(js: JetStream) -> None:
    for name, origin in (("MIRROR", "LIMITS"), ("SOURCED", "PERSUBJECT")):
        want = (await js.stream_info(origin))["state"]
        while True:
            have = (await js.stream_info(name))["state"]
            if have["last_seq"] >= want["last_seq"] if name == "MIRROR" else have["messages"] >= want["messages"]:
                break
            await asyncio.sleep(0.05)
