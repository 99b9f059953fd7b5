"""What a server has, told by its API and by ordinary clients, and what of a shop another server must have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import nats

from jetkeep.jetstream import JetStream
from jetkeep.model import JsonDict, Message

Release = tuple[int, int]


class Delivery(NamedTuple):
    """What a consumer has done: (consumer, stream) sequences and counts."""

    delivered: tuple[int, int]
    ack_floor: tuple[int, int]
    ack_pending: int
    redelivered: int
    to_come: int


@dataclass(frozen=True)
class Look:
    """A stream as the API tells it, not as a snapshot does; configurations without what says nothing."""

    config: JsonDict
    numbers: tuple[int, int, int]
    messages: list[Message]
    consumers: dict[str, JsonDict] = field(default_factory=dict)
    deliveries: dict[str, Delivery] = field(default_factory=dict)


async def look(js: JetStream, stream: str) -> Look:
    """State, every message, every consumer."""
    info = await js.stream_info(stream)
    state = info["state"]
    messages, first, last = (int(state[key]) for key in ("messages", "first_seq", "last_seq"))
    rows = [one async for one in js.messages(stream, first, last, info["config"])] if messages else []
    found = Look(_said(info["config"]), (messages, first, last), rows)
    for one in await js.consumers(stream):
        found.consumers[str(one["name"])] = _said(one["config"])
        delivered, floor = ((one[key]["consumer_seq"], one[key]["stream_seq"]) for key in ("delivered", "ack_floor"))
        told = Delivery(delivered, floor, one["num_ack_pending"], one["num_redelivered"], one["num_pending"])
        found.deliveries[str(one["name"])] = told
    return found


def _said(config: JsonDict) -> JsonDict:
    own = {key: value for key, value in (config.get("metadata") or {}).items() if not key.startswith("_nats.")}
    return {
        key: value
        for key, value in {**config, "metadata": own}.items()
        if value not in (None, False, 0, "", [], {}, -1)
    }


def goes_back(source: Release, stream: str, name: str) -> bool:
    """Servers do not tell which deliveries of this consumer are pending: it goes back to its ack floor (ADR 003)."""
    if stream == "INTEREST":
        return source < (2, 12)
    return (stream == "MEMORY" or name == "inmemory") and source < (2, 15)


def as_restored(was: Look, source: Release, dropped: dict[str, Any]) -> Look:
    """What a stream must be elsewhere: as it was, but for the named fields and for what no server tells.

    `dropped`: `field`, or `consumer.field`, to its value there; None where it has none; `consumer` alone where there is no such consumer.
    """
    config, consumers, deliveries = dict(was.config), dict(was.consumers), dict(was.deliveries)
    for path, value in dropped.items():
        where, _, key = path.rpartition(".")
        if path in consumers:
            del consumers[path], deliveries[path]
            continue
        changed = consumers[where] = dict(consumers[where]) if where else config
        changed.pop(key)
        if value is not None:
            changed[key] = value
    consumers.pop("", None)
    for name, one in deliveries.items():
        if goes_back(source, str(was.config["name"]), name):
            to_come = sum(1 for row in was.messages if row.seq > one.ack_floor[1])
            deliveries[name] = Delivery(one.ack_floor, one.ack_floor, 0, 0, to_come)
    return replace(was, config=config, consumers=consumers, deliveries=deliveries)


async def clients_see(url: str) -> dict[str, Any]:
    """The bucket and the store of objects, read by nats-py's own clients."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        bucket = await js.key_value("profiles")
        history = {
            key: [(one.revision, one.operation, one.value) for one in await bucket.history(key)]
            for key in ("ann", "bob", "eve", "dan")
        }
        files = await js.object_store("files")
        objects = {name: await files.get(name) for name in ("picture", "manual")}
        listed = {one.name: (one.size, one.chunks, one.digest, one.deleted) for one in await files.list()}
        return {
            "history": history,
            "keys": sorted(await bucket.keys()),
            "objects": {name: (one.data, one.info.digest, one.info.description) for name, one in objects.items()},
            "listed": listed,
        }
    finally:
        await client.close()
