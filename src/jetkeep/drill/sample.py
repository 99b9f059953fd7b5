"""Compare chosen messages byte by byte, read by ordinary consumers: another road than the one that wrote them."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

from jetkeep.catalog import live_batches
from jetkeep.errors import ServerError
from jetkeep.jetstream import JetStream
from jetkeep.jetstream.client import status_of
from jetkeep.model import JsonDict, Message
from jetkeep.repository.documents import Manifest, SegmentRef
from jetkeep.repository.repository import Repository

FETCH_S = 30.0
#: Segments of one stream that a sample is drawn from: each is read as a whole.
SEGMENTS = 3
#: A stream's sample ends when it has so many bytes: at the next message of a work queue, the next segment of others.
SAMPLE_BYTES = 64 * 1024 * 1024
_AT_ONCE = 8
_IDLE_NS = 300 * 10**9


@dataclass(slots=True)
class Sampled:
    """How many messages were compared, how many a client cannot show, and what differed (a few words each)."""

    compared: int = 0
    left_out: int = 0
    differences: list[str] = field(default_factory=list)


def consumes(manifest: Manifest) -> bool:
    """Whether reading this stream through a consumer may remove messages or consumers from it."""
    return manifest.config.get("retention") in ("workqueue", "interest")


async def choose(repository: Repository, manifest: Manifest, size: int, chance: random.Random) -> list[Message]:
    """Up to `size` live messages from up to three segments, rising. In memory: these, and what `live_batches` holds."""
    if not size:
        return []
    if manifest.config.get("retention") == "workqueue":
        return await _first(repository, manifest, size)
    refs = chance.sample(manifest.segments, min(SEGMENTS, len(manifest.segments)))
    found: list[Message] = []
    for at, ref in enumerate(sorted(refs, key=lambda one: one.first_seq)):
        # What an earlier segment could not give, a later one does.
        if share := (size - len(found)) // (len(refs) - at):
            found += await _some(repository, manifest, ref, share, chance)
        if sum(len(one.payload) for one in found) >= SAMPLE_BYTES:
            break
    return sorted(found, key=lambda one: one.seq)


async def _first(repository: Repository, manifest: Manifest, size: int) -> list[Message]:
    """A work queue gives its messages from the first on, and only so."""
    found: list[Message] = []
    room = SAMPLE_BYTES
    for ref in manifest.segments:
        async for batch in live_batches(repository, manifest, ref.first_seq, ref.last_seq):
            for message in batch:
                if len(found) == size or room <= 0:
                    return found
                found.append(message)
                room -= len(message.payload)
    return found


async def _some(
    repository: Repository, manifest: Manifest, ref: SegmentRef, size: int, chance: random.Random
) -> list[Message]:
    """Each live row of the segment with the same chance."""
    found: list[Message] = []
    seen = 0
    async for batch in live_batches(repository, manifest, ref.first_seq, ref.last_seq):
        for at in range(len(batch)):
            seen += 1
            if len(found) < size:
                found.append(batch[at])
            elif (place := int(chance.random() * seen)) < size:
                found[place] = batch[at]
    return found


async def compare(js: JetStream, manifest: Manifest, wanted: list[Message]) -> Sampled:
    """Read the wanted messages with consumers and compare sequence, time, subject, header bytes and payload.

    On a work queue the stream's own consumers are deleted first; where `consumes` says so, the stream is not what it
    was afterwards.

    Raises:
        ServerError: the server does not give the messages.
    """
    stream = manifest.stream
    sampled = Sampled()
    if manifest.config.get("retention") == "workqueue":
        shown = next((at for at, one in enumerate(wanted) if not _shown(one)), len(wanted))
        sampled.left_out = len(wanted) - shown
        pairs = await _from_the_first(js, stream, wanted[:shown])
    else:
        showable = [one for one in wanted if _shown(one)]
        sampled.left_out = len(wanted) - len(showable)
        pairs = await _one_by_one(js, stream, showable)
    for expected, found in pairs:
        sampled.compared += 1
        if found is None:
            sampled.differences.append(f"message {expected.seq} is not given by a consumer")
            continue
        for name, left, right in zip(Message._fields, expected, found, strict=True):
            if left != right:
                sampled.differences.append(f"message {expected.seq}: {name} is not what was captured")
    return sampled


def _shown(message: Message) -> bool:
    """Clients take subjects for UTF-8; others end their connection."""
    try:
        message.subject.decode()
    except UnicodeDecodeError:
        return False
    return True


Pairs = list[tuple[Message, Message | None]]


async def _one_by_one(js: JetStream, stream: str, wanted: list[Message]) -> Pairs:
    """One consumer a message, begun at its sequence."""
    at_once = asyncio.Semaphore(_AT_ONCE)
    names: list[str] = []

    async def one(message: Message) -> tuple[Message, Message | None]:
        config = {"ack_policy": "none", "deliver_policy": "by_start_sequence", "opt_start_seq": message.seq}
        async with at_once:
            names.append(await _create(js, stream, config))
            got = await _fetch(js, stream, names[-1], 1)
        return message, got[0] if got else None

    try:
        return list(await asyncio.gather(*(one(message) for message in wanted)))
    finally:
        # Not before all have read: on an interest stream the end of a consumer removes what nobody else waits for.
        for name in names:
            await js.request(f"CONSUMER.DELETE.{stream}.{name}")


async def _from_the_first(js: JetStream, stream: str, wanted: list[Message]) -> Pairs:
    if not wanted:
        return []
    for info in await js.consumers(stream):
        await js.request(f"CONSUMER.DELETE.{stream}.{info['name']}")
    config = {"ack_policy": "explicit", "deliver_policy": "all", "max_ack_pending": max(len(wanted), 1000)}
    name = await _create(js, stream, config)
    got: list[Message | None] = list(await _fetch(js, stream, name, len(wanted)))
    await js.request(f"CONSUMER.DELETE.{stream}.{name}")
    return list(zip(wanted, got + [None] * (len(wanted) - len(got)), strict=True))


async def _create(js: JetStream, stream: str, config: JsonDict) -> str:
    config = {**config, "inactive_threshold": _IDLE_NS, "mem_storage": True}
    made = await js.request(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    return str(made["name"])


async def _fetch(js: JetStream, stream: str, consumer: str, count: int) -> list[Message]:
    inbox = js.client.new_inbox()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    subscription = await js.subscribe(inbox, queue.put)
    try:
        ask = json.dumps({"batch": count, "no_wait": True}).encode()
        await js.publish(f"{js.prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}", ask, reply=inbox)
        found: list[Message] = []
        while len(found) < count:
            try:
                raw = await asyncio.wait_for(queue.get(), FETCH_S)
            except TimeoutError:
                what = f"a consumer of {stream} gave nothing for {FETCH_S:g} s"
                raise ServerError(what, code="nats.timeout") from None
            if not raw.reply and status_of(raw)[0]:
                break
            found.append(_delivered(raw))
        return found
    finally:
        await js.unsubscribe(subscription)


def _delivered(raw: Any) -> Message:
    """A delivered message; its reply subject carries sequence and time: `$JS.ACK…<stream seq>.<consumer seq>.<ns>.<pending>`."""
    tokens = raw.reply.split(".")
    at = 5 if len(tokens) == 9 else 7
    headers = raw.headers.raw if raw.headers is not None else b""
    return Message(int(tokens[at]), int(tokens[at + 2]), raw.subject.encode(), headers, raw.data)
