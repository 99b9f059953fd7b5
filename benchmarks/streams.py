"""The streams of the comparison: made by publishing, the same bytes on every run."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass

import nats
from nats.aio.client import Client


@dataclass(frozen=True)
class Case:
    """One comparison: `streams` of `messages` each with payloads of `size` bytes, `consumers` a stream."""

    name: str
    streams: int
    messages: int
    size: int
    consumers: int = 0
    replicas: int = 1
    incompressible: float = 0.0

    @property
    def stream_names(self) -> list[str]:
        return [f"{self.name.upper()}_{at:03d}" for at in range(self.streams)]


CASES = {
    case.name: case
    for case in (
        Case("small", 1, 1_000_000, 128),
        Case("mid", 1, 400_000, 1024),
        Case("big", 1, 8_000, 65_536, incompressible=0.5),
        Case("many", 200, 100, 256, consumers=2),
        Case("empty", 0, 0, 0),
        Case("r3", 1, 100_000, 512, replicas=3),
    )
}


def growth(messages: int) -> Case:
    """The same messages of 128 bytes, more of them: memory must not grow with the stream."""
    return Case(f"growth_{messages}", 1, messages, 128)


def payloads(case: Case) -> list[bytes]:
    """Payloads as a shop's events look (JSON), some of them random bytes; seeded. More than any compressor's window."""
    source = random.Random(case.name)
    words = ("red", "green", "blue", "box", "parcel", "express", "gift", "return", "paid", "open")
    made = []
    for at in range(20_000 if case.size < 10_000 else 256):
        if source.random() < case.incompressible:
            made.append(source.randbytes(case.size))
            continue
        event = {
            "id": f"{source.getrandbits(64):016x}",
            "order": source.randrange(10**9),
            "at": 1_700_000_000_000 + at * 17,
            "sku": f"sku-{source.randrange(5000)}",
            "price": round(source.random() * 500, 2),
        }
        text = json.dumps(event)
        while len(text) < case.size:
            text += f',"{source.choice(words)}":{source.randrange(10**6)}'
        made.append(text[: case.size].encode())
    return made


async def fill(url: str, case: Case) -> None:
    """Create the case's streams and consumers and publish all messages; returns when the server has stored them."""
    client = await nats.connect(url.split(","), max_reconnect_attempts=-1, pending_size=64 * 1024 * 1024)
    bodies = payloads(case) if case.streams else []
    for name in case.stream_names:
        config = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "num_replicas": case.replicas}
        await _ask(client, f"STREAM.CREATE.{name}", config)
        await _publish(client, case, name, bodies)
        await _await_count(client, name, case.messages)
        for at in range(case.consumers):
            consumer = {"durable_name": f"c{at}", "ack_policy": "explicit", "max_ack_pending": 1000}
            await _ask(client, f"CONSUMER.DURABLE.CREATE.{name}.c{at}", {"stream_name": name, "config": consumer})
    await client.close()


async def _publish(client: Client, case: Case, name: str, bodies: list[bytes]) -> None:
    for at in range(case.messages):
        await client.publish(f"{name}.{at % 100}", bodies[at * 7919 % len(bodies)])
        if at % 2000 == 1999:
            await client.flush(timeout=60)
            if at % 100_000 == 99_999:
                await _await_count(client, name, at + 1)
    await client.flush(timeout=60)


async def _await_count(client: Client, name: str, count: int) -> None:
    while (await _ask(client, f"STREAM.INFO.{name}", {}))["state"]["messages"] < count:
        await asyncio.sleep(0.05)


async def _ask(client: Client, subject: str, body: dict) -> dict:
    reply = json.loads((await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=30)).data)
    if "error" in reply:
        raise SystemExit(f"{subject}: {reply['error']}")
    return reply


async def delete_all(url: str) -> None:
    """Delete every stream of the account."""
    client = await nats.connect(url.split(","))
    while names := (await _ask(client, "STREAM.NAMES", {})).get("streams"):
        for name in names:
            await _ask(client, f"STREAM.DELETE.{name}", {})
    await client.close()
