"""Remove an unfinished restore, and nothing else: only a stream that carries this claim."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from jetkeep.errors import ServerError
from jetkeep.jetstream import JetStream
from jetkeep.restore.stage import claim_of

#: How long a stream may take to show up as the outcome of a restore that was told that it has everything.
APPEARS_S = 6.0
APPEARS_BYTES_A_SECOND = 50_000_000
#: In a cluster an unfinished restore's name is taken although nothing answers for it: on 2.12 and 2.15 for 13 s.
CLUSTER_S = 2.0
UNSEEN_ANSWER_S = 3.0


async def remove_claimed(js: JetStream, name: str, claim: str, patience_s: float = 0, *, unseen: bool = False) -> bool:
    """Delete the stream if it carries `claim`; true when it did. It is waited for so long, where it is not there.

    `unseen`: the server has accepted this restore and is a cluster, so the name can be this restore's without any
    stream to be seen. It was free then, and nobody else can have got it while nothing is seen: it is given back.

    Raises:
        ServerError: the server does not say whether it is gone.
    """
    deadline = time.monotonic() + max(patience_s, CLUSTER_S if unseen else 0)
    removed = False
    while True:
        info = await js.find_stream(name)
        if info is not None:
            if claim_of(info["config"]) != claim:
                return removed
            await js.delete_stream(name)
            removed = True
        elif unseen:
            # The answer may be missing although it works: nobody leads the stream yet.
            with suppress(ServerError):
                await js.request(f"STREAM.DELETE.{name}", timeout_s=UNSEEN_ANSWER_S)
            unseen = False
        elif removed or time.monotonic() >= deadline:
            return removed
        await asyncio.sleep(0.2)


async def try_to_remove(js: JetStream, name: str, claim: str, patience_s: float, *, unseen: bool) -> str:
    """As `remove_claimed`, for the way out of a failure: what to tell when it could not be done, else empty."""
    try:
        async with asyncio.timeout(60 + patience_s):
            await remove_claimed(js, name, claim, patience_s, unseen=unseen)
    except (ServerError, TimeoutError) as failure:
        what = getattr(failure, "what", "the server does not answer")
        return f"the unfinished stream {name} may be left, closed to publishers: {what}; the next restore removes it"
    return ""
