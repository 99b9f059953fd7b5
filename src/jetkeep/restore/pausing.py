"""Keep clients from a stream's consumers while it is not proven, where the server can (2.11 and newer).

Clients that wait for their consumer would begin to read, and to acknowledge, the moment it is there.

A run that is killed right after it opened a stream leaves its consumers asleep. A pause is known as one of this
repository's restores by its nanoseconds: no other mark goes away with the pause, in one step, by the same permission.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream import JetStream
from jetkeep.model import ConsumerRecord
from jetkeep.restore.fields import TTL, Version
from jetkeep.restore.sending import rfc3339

#: A pause ends by itself, should nobody be left to end it: after this, or longer for large streams.
PAUSE_S = 600
SLOWEST_BYTES_A_SECOND = 5_000_000
_SECOND = 1_000_000_000


async def can_pause(js: JetStream, target: Version) -> bool:
    """The server knows how to pause consumers, and lets this user."""
    if target < TTL:
        return False
    try:
        await js.request("CONSUMER.PAUSE._jetkeep._jetkeep", {})
    except ApiError:
        return True  # there is no such consumer, and it was for the server to say so
    except ServerError:
        return False
    return True


def paused(
    records: Iterable[ConsumerRecord], size: int, now_ns: int, *, repository: str, stream: str
) -> tuple[ConsumerRecord, ...]:
    """The consumers as they are restored: asleep until they are woken, or until the pause ends."""
    end = now_ns // _SECOND + PAUSE_S + size // SLOWEST_BYTES_A_SECOND
    return tuple(
        replace(one, config={**one.config, "pause_until": rfc3339(end * _SECOND + _mark(repository, stream, one.name))})
        for one in records
    )


async def wake(js: JetStream, stream: str, records: Iterable[ConsumerRecord]) -> list[str]:
    """End the pause of each consumer, or put its own one back; names what could not be woken."""
    asleep = []
    for one in records:
        own = one.config.get("pause_until")
        try:
            await js.request(f"CONSUMER.PAUSE.{stream}.{one.name}", {"pause_until": own} if own else {})
        except ServerError as failure:
            asleep.append(f"consumer {one.name} is still paused: {failure.what}")
    return asleep


async def wake_left_asleep(js: JetStream, stream: str, records: Iterable[ConsumerRecord], repository: str) -> list[str]:
    """Wake those consumers of an open stream that an earlier restore of this repository left asleep; names them.

    Raises:
        ServerError: the server does not list the consumers.
    """
    wanted = {one.name: one for one in records}
    if not wanted:
        return []
    left = [
        wanted[str(one["name"])]
        for one in await js.consumers(stream)
        if one["name"] in wanted
        and _nanoseconds(str(one["config"].get("pause_until") or "")) == _mark(repository, stream, str(one["name"]))
    ]
    notes = [f"consumer {one.name} was still paused by a restore that did not end, and is woken" for one in left]
    return notes + await wake(js, stream, left)


def _mark(repository: str, stream: str, consumer: str) -> int:
    digest = hashlib.sha256(f"{repository} {stream} {consumer}".encode()).digest()
    return 1 + int.from_bytes(digest[:8]) % (_SECOND - 1)


def _nanoseconds(moment: str) -> int:
    """The part below a second of a time as servers write it, without trailing zeros."""
    return int(moment.rstrip("Z").partition(".")[2].ljust(9, "0")) if "." in moment else 0
