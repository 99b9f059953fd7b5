"""Remove an unfinished restore, and nothing else: only a stream that carries this claim."""

from __future__ import annotations

import asyncio
import time

from jetkeep.errors import ServerError
from jetkeep.jetstream import JetStream
from jetkeep.restore.stage import claim_of

#: A cluster shows a failed restore's stream some seconds later; a single server that was given everything, once
#: it has moved the files.
APPEARS_S = 6.0
APPEARS_BYTES_A_SECOND = 50_000_000


async def remove_claimed(js: JetStream, name: str, claim: str, patience_s: float) -> bool:
    """Delete the stream if it carries `claim`; true when it did. It is waited for so long, where it is not there.

    Raises:
        ServerError: the server does not say whether it is gone.
    """
    deadline = time.monotonic() + patience_s
    removed = False
    while True:
        info = await js.find_stream(name)
        if info is not None:
            if claim_of(info["config"]) != claim:
                return removed
            await js.delete_stream(name)
            removed = True
        elif removed or time.monotonic() >= deadline:
            return removed
        await asyncio.sleep(0.2)


async def try_to_remove(js: JetStream, name: str, claim: str, patience_s: float) -> str:
    """As `remove_claimed`, for the way out of a failure: what to tell when it could not be done, else empty."""
    try:
        async with asyncio.timeout(60 + patience_s):
            await remove_claimed(js, name, claim, patience_s)
    except (ServerError, TimeoutError) as failure:
        what = getattr(failure, "what", "the server does not answer")
        return f"the unfinished stream {name} may be left, closed to publishers: {what}; the next restore removes it"
    return ""
