"""Look at the server that streams are to be restored to."""

from __future__ import annotations

from jetkeep.jetstream import JetStream
from jetkeep.restore.fields import Version
from jetkeep.restore.stage import claim_of
from jetkeep.restore.target import Existing, Target


async def survey(js: JetStream) -> Target:
    """The target's version, limits and streams; nothing is changed.

    Raises:
        ServerError: it does not answer, or lists its streams incompletely.
    """
    listing = await js.stream_list()
    streams = {
        str(info["config"]["name"]): Existing(
            info["config"], int(info["state"].get("last_seq", 0)), claim_of(info["config"])
        )
        for info in listing.infos
    }
    return Target(
        Version.of(js.server_version),
        js.server_version,
        js.max_payload,
        clustered=bool(js.server_facts()["cluster"]),
        streams=streams,
        busy=frozenset(listing.offline),
        account=await js.account_info(),
    )
