"""Keep clients from a stream's consumers while it is not proven, where the server can (2.11 and newer).

Clients that wait for their consumer would begin to read, and to acknowledge, the moment it is there.
"""

from __future__ import annotations

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


def paused(records: Iterable[ConsumerRecord], size: int, now_ns: int) -> tuple[ConsumerRecord, ...]:
    """The consumers as they are restored: asleep until they are woken, or until the pause ends."""
    until = now_ns + (PAUSE_S + size // SLOWEST_BYTES_A_SECOND) * 1_000_000_000
    return tuple(replace(one, config={**one.config, "pause_until": rfc3339(until)}) for one in records)


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
