"""List all streams and consumers: pages put together, and compared with the total that the server gives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from jetkeep.errors import ApiError, ServerError
from jetkeep.model import JsonDict

STREAM_NOT_FOUND = 10059
#: A listing whose pages do not add up, because streams came and went meanwhile, is repeated so often.
TRIES = 3

#: Asks the API: the subject's last words, the request, seconds to wait; see JetStream.request.
Ask = Callable[[str, JsonDict, float], Awaitable[JsonDict]]
#: A cluster waits 4 s for servers that do not answer, then lists what it has and names what is missing.
PAGE_S = 10.0
#: A stream alone answers at once, or after its group has elected another leader.
ALONE_S = 3.0


@dataclass(frozen=True, slots=True)
class StreamListing:
    """All streams of the account: `infos` as the server gives them, by name; `offline` those without, and why."""

    infos: list[JsonDict]
    total: int
    offline: dict[str, str] = field(default_factory=dict)

    def why_unreachable(self, name: str) -> ServerError:
        """The error for a stream that is listed and does not answer."""
        return ServerError(
            f"stream {name} is offline: {self.offline[name]}",
            code="nats.stream-offline",
            means="it is not in this backup; earlier backups of it are untouched",
            hint="bring its servers back (`nats stream info`), then run the backup again",
        )


async def list_streams(ask: Ask) -> StreamListing:
    """All streams. One that did not answer in time is asked for once more, alone.

    Raises:
        ServerError: the pages do not add up to the total, however often they were asked for.
    """
    infos, silent = await _all(ask, "STREAM.LIST", "streams", lambda one: str(one["config"]["name"]))
    offline: dict[str, str] = {}
    for name, found in zip(silent, await asyncio.gather(*(_ask_again(ask, name) for name in silent)), strict=True):
        if isinstance(found, str):
            offline[name] = silent[name] or found
        elif found is not None:
            infos[name] = found
    return StreamListing([infos[name] for name in sorted(infos)], len(infos) + len(offline), offline)


async def _ask_again(ask: Ask, name: str) -> JsonDict | str | None:
    """The stream's info; why there is none; or None when it was deleted meanwhile."""
    try:
        return await ask(f"STREAM.INFO.{name}", {}, ALONE_S)
    except ApiError as error:
        return None if error.err_code == STREAM_NOT_FOUND else error.what
    except ServerError:
        return "no server answers for it"


async def list_consumers(ask: Ask, stream: str) -> list[JsonDict]:
    """All consumers of a stream.

    Raises:
        ApiError: there is no such stream (err_code 10059).
        ServerError: one is counted, and does not answer: nobody knows its position then.
    """
    infos, silent = await _all(ask, f"CONSUMER.LIST.{stream}", "consumers", lambda one: str(one["name"]))
    if silent:
        raise ServerError(
            f"consumers of {stream} do not answer: {', '.join(sorted(silent))}",
            code="nats.consumer-offline",
            means="their positions are not known, so this stream was not backed up in this run",
            hint="look at them with `nats consumer info`; a cluster that has just lost a server answers like this",
            retryable=True,
        )
    return list(infos.values())


async def _all(
    ask: Ask, suffix: str, key: str, name: Callable[[JsonDict], str]
) -> tuple[dict[str, JsonDict], dict[str, str]]:
    """Infos by name, and those that did not answer, with the server's reason if it gave one."""
    for _ in range(TRIES):
        infos, silent, total = await _pages(ask, suffix, key, name)
        if len(infos) + len(silent) >= total:
            return infos, silent
        await asyncio.sleep(0.2)
    raise ServerError(
        f"the server says that there are {total} {key} and lists {len(infos) + len(silent)}",
        code="nats.listing",
        means="nothing was changed; some would have been missed silently",
        hint="run it again; if it repeats, look at the cluster's health",
        retryable=True,
    )


async def _pages(
    ask: Ask, suffix: str, key: str, name: Callable[[JsonDict], str]
) -> tuple[dict[str, JsonDict], dict[str, str], int]:
    infos: dict[str, JsonDict] = {}
    silent: dict[str, str] = {}
    offset = 0
    while True:
        page = await ask(suffix, {"offset": offset}, PAGE_S)
        listed = {name(one): one for one in page.get(key) or ()}
        others = {**dict.fromkeys(page.get("missing") or (), ""), **(page.get("offline") or {})}
        # A cluster lists what it knows to be offline twice: as missing, and as an info without state.
        covered = len(listed.keys() | others.keys())
        infos |= {one: listed[one] for one in listed.keys() - others.keys()}
        silent |= others
        offset += covered
        total = int(page.get("total", 0))
        if not covered or offset >= total:
            return infos, silent, total
