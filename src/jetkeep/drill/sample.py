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
from jetkeep.model import Message
from jetkeep.repository.documents import Manifest
from jetkeep.repository.repository import Repository

FETCH_S = 10.0


@dataclass(slots=True)
class Sampled:
    """How many messages were compared, and what differed (a few words each)."""

    compared: int = 0
    differences: list[str] = field(default_factory=list)


async def choose(repository: Repository, manifest: Manifest, size: int, chance: random.Random) -> list[Message]:
    """Up to `size` live messages from up to three segments, rising; those with a subject that a client can show."""
    if not manifest.segments or not size:
        return []
    queue = manifest.config.get("retention") == "workqueue"
    # A work queue gives its messages from the first on, and only so.
    refs = manifest.segments[:1] if queue else chance.sample(manifest.segments, min(3, len(manifest.segments)))
    found: list[Message] = []
    for ref in sorted(refs, key=lambda one: one.first_seq):
        pool: list[Message] = []
        seen = 0
        async for batch in live_batches(repository, manifest, ref.first_seq, ref.last_seq):
            if queue:
                pool += [batch[at] for at in range(min(size - len(pool), len(batch)))]
                continue
            for at in chance.sample(range(len(batch)), min(len(batch), max(1, size // len(refs)))):
                seen += 1
                keep = len(pool) if len(pool) < max(1, size // len(refs)) else chance.randrange(seen)
                if keep < len(pool):
                    pool[keep] = batch[at]
                elif keep == len(pool) and len(pool) < max(1, size // len(refs)):
                    pool.append(batch[at])
        found += pool
    return sorted((one for one in found if _shown(one.subject)), key=lambda one: one.seq)


def _shown(subject: bytes) -> bool:
    try:
        subject.decode()
    except UnicodeDecodeError:
        return False
    return True


async def compare(js: JetStream, stream: str, wanted: list[Message], *, queue: bool) -> Sampled:
    """Read the wanted messages with consumers and compare sequence, time, subject, header bytes and payload.

    On a work queue the stream's consumers are deleted first: it is a throw-away server, and they were compared before.

    Raises:
        ServerError: the server does not give the messages.
    """
    sampled = Sampled()
    if not wanted:
        return sampled
    if queue:
        for info in await js.consumers(stream):
            await js.request(f"CONSUMER.DELETE.{stream}.{info['name']}")
        got = await _fetch(js, stream, None, len(wanted))
        pairs = list(zip(wanted, got, strict=False))
        if len(got) < len(wanted):
            sampled.differences.append(f"a consumer gave {len(got)} of {len(wanted)} messages")
    else:
        pairs = []
        for one in wanted:
            got = await _fetch(js, stream, one.seq, 1)
            if got:
                pairs.append((one, got[0]))
            else:
                sampled.differences.append(f"message {one.seq} is not given by a consumer")
    for expected, found in pairs:
        sampled.compared += 1
        for name, left, right in zip(Message._fields, expected, found, strict=True):
            if left != right:
                sampled.differences.append(f"message {expected.seq}: {name} is not what was captured")
    return sampled


async def _fetch(js: JetStream, stream: str, start: int | None, count: int) -> list[Message]:
    config: dict[str, Any] = {"ack_policy": "explicit" if start is None else "none", "deliver_policy": "all"}
    if start is not None:
        config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
    config |= {"inactive_threshold": 30_000_000_000, "mem_storage": True, "max_ack_pending": max(count, 1000)}
    if start is not None:
        del config["max_ack_pending"]
    made = await js.request(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    inbox = js.client.new_inbox()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    subscription = await js.subscribe(inbox, queue.put)
    try:
        ask = json.dumps({"batch": count, "no_wait": True}).encode()
        await js.publish(f"{js.prefix}.CONSUMER.MSG.NEXT.{stream}.{made['name']}", ask, reply=inbox)
        found: list[Message] = []
        while len(found) < count:
            try:
                raw = await asyncio.wait_for(queue.get(), FETCH_S)
            except TimeoutError:
                raise ServerError(
                    f"a consumer of {stream} gave nothing for {FETCH_S:g} s", code="nats.timeout"
                ) from None
            if status_of(raw)[0]:
                break
            found.append(_delivered(raw))
        return found
    finally:
        await js.unsubscribe(subscription)
        await js.request(f"CONSUMER.DELETE.{stream}.{made['name']}")


def _delivered(raw: Any) -> Message:
    """A delivered message; its reply subject carries sequence and time: `$JS.ACK…<stream seq>.<consumer seq>.<ns>.<pending>`."""
    tokens = raw.reply.split(".")
    at = 5 if len(tokens) == 9 else 7
    headers = raw.headers.raw if raw.headers is not None else b""
    return Message(int(tokens[at]), int(tokens[at + 2]), raw.subject.encode(), headers, raw.data)
