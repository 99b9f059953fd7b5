"""The server's side of readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jetkeep.capture.road import choose_road, parse_version
from jetkeep.capture.selection import select
from jetkeep.errors import JetkeepError, ServerError
from jetkeep.jetstream import JetStream, StreamListing
from jetkeep.model import JsonDict
from jetkeep.readiness.findings import Level, Readiness
from jetkeep.readiness.permissions import backup_needs, probe, restore_needs

OLDEST = (2, 10)
_AT_ONCE = 16


async def probe_server(
    js: JetStream, readiness: Readiness, *, restoring: bool, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> None:
    """Probe JetStream, permissions and streams; `restoring` probes what only a restore needs as well.

    Nothing is created or changed. Streams that do not match `include` (all without it), or match `exclude`, are left out.

    Raises:
        ServerError: the connection was lost.
        UsageError: a name or glob matches no stream.
    """
    version = parse_version(js.server_version)
    name = js.server_facts()["name"]
    readiness.add("connect", Level.OK, f"{js.settings.where} ({name}, {js.server_version})")
    if version[:2] < OLDEST:
        hint = "2.10 to 2.15 are what jetkeep is tested with"
        readiness.block("server version", f"{js.server_version} is older than 2.10", hint, 20)
    if refused := await js.may_subscribe(js.inboxes):
        # Every answer comes there: whatever else is asked would look like a time-out.
        readiness.fail(f"subscribe to {js.inboxes}", refused)
        return
    if not await _jetstream(js, readiness):
        return
    listing = await _listed(js, readiness)
    infos = _chosen(listing, include, exclude) if listing else []
    roads = [choose_road(version, one["config"]) for one in infos]
    by_messages = [one for one, road in zip(infos, roads, strict=True) if road.method == "messages"]
    direct = any(one["config"].get("allow_direct") for one in by_messages) and version[:2] >= (2, 11)
    names = [str(one["config"]["name"]) for one in infos]
    await probe(js, readiness, "backup", backup_needs(messages=bool(by_messages), direct=direct), names)
    if restoring:
        await probe(js, readiness, "restore", restore_needs(), ())
    if listing:
        await _answers(js, readiness, listing, names)
        readiness.raw_bytes = sum(int(one["state"]["bytes"]) for one in infos)


async def _jetstream(js: JetStream, readiness: Readiness) -> bool:
    """Whether JetStream answers; a permission alone that is missing does not tell."""
    try:
        info = await js.account_info()
    except ServerError as error:
        readiness.fail("JetStream", error)
        return error.code == "nats.permission"
    readiness.add("JetStream", Level.OK, f"{info.get('streams', 0)} streams, {info.get('consumers', 0)} consumers")
    return True


async def _listed(js: JetStream, readiness: Readiness) -> StreamListing | None:
    try:
        listing = await js.stream_list()
    except JetkeepError as error:
        readiness.fail("list streams", error)
        return None
    readiness.streams = len(listing.infos)
    readiness.add("list streams", Level.OK, f"{len(listing.infos)} of {listing.total} listed")
    return listing


def _chosen(listing: StreamListing, include: Sequence[str], exclude: Sequence[str]) -> list[JsonDict]:
    by_name = {str(one["config"]["name"]): one for one in listing.infos}
    wanted = select([*by_name, *listing.offline], include, exclude)
    return [by_name[name] for name in wanted if name in by_name]


async def _answers(js: JetStream, readiness: Readiness, listing: StreamListing, names: Sequence[str]) -> None:
    at_once = asyncio.Semaphore(_AT_ONCE)
    silent = dict(listing.offline)

    async def ask(name: str) -> None:
        async with at_once:
            try:
                await js.stream_info(name)
            except ServerError as error:
                silent[name] = error.what

    await asyncio.gather(*(ask(name) for name in names))
    if not silent:
        readiness.add("streams answer", Level.OK, f"all {len(names)}")
        return
    named = [f"{name} ({why})" for name, why in sorted(silent.items())]
    what = f"{len(silent)} of {listing.total} do not: {', '.join(named[:5])}" + (" …" if len(named) > 5 else "")
    readiness.block(
        "streams answer", what, "bring their servers back; until then a backup is partial (exit status 3)", 20
    )
