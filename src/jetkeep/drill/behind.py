"""How many messages would be lost: ask the source what it has that the backup has not."""

from __future__ import annotations

from collections.abc import Sequence

from jetkeep.catalog import Chosen
from jetkeep.jetstream import JetStream
from jetkeep.repository.layout import timeline_of


async def behind(js: JetStream, chosen: Sequence[Chosen]) -> dict[str, int]:
    """Messages of each stream that were stored there since it was captured, by sequences; nothing is read or changed.

    All messages of a stream that was created anew; none of one that is gone.

    Raises:
        ServerError: the source does not answer.
    """
    counts = {}
    for one in chosen:
        info = await js.find_stream(one.entry.name)
        if info is None:
            counts[one.entry.name] = 0
            continue
        same = timeline_of(str(info["created"]), 1) == timeline_of(one.manifest.created_at, 1)
        state = info["state"]
        since = int(state["last_seq"]) - one.manifest.last_seq if same else int(state["messages"])
        counts[one.entry.name] = max(0, since)
    return counts
