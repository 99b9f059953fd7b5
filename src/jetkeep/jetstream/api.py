"""JetStream's API: requests and answers as JSON, exactly as the server gives them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import nats.errors

from jetkeep.config import ConnectionSettings
from jetkeep.errors import ApiError, JetkeepError, ServerError
from jetkeep.jetstream.client import RawClient, status_of
from jetkeep.jetstream.watch import Watch
from jetkeep.model import JsonDict, Message

STREAM_NOT_FOUND = 10059
OFFLINE_CODES = (10118, 10194)


@dataclass(frozen=True, slots=True)
class StreamListing:
    """All streams of the account: `infos` as STREAM.LIST gives them; `missing` and `offline` did not answer."""

    infos: list[JsonDict]
    total: int
    missing: tuple[str, ...] = ()
    offline: dict[str, str] = field(default_factory=dict)

    def why_unreachable(self, name: str) -> ServerError:
        """The error for a stream that is listed and does not answer."""
        why = self.offline.get(name) or "no server answers for it"
        return ServerError(
            f"stream {name} is offline: {why}",
            code="nats.stream-offline",
            means="it is not in this backup; earlier backups of it are untouched",
            hint="bring its servers back (`nats stream info`), then run the backup again",
        )


class JetStream:
    """One account's JetStream. All methods raise ServerError when the server does not answer or refuses."""

    def __init__(self, client: RawClient, settings: ConnectionSettings, watch: Watch) -> None:
        self.client = client
        self.watch = watch
        self.settings = settings
        self.timeout_s = settings.timeout_s
        self.prefix = settings.js_api_prefix or (f"$JS.{settings.js_domain}.API" if settings.js_domain else "$JS.API")

    @property
    def server_version(self) -> str:
        """Version of the server that this connection talks to."""
        return str(self._info.get("version", ""))

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes."""
        return int(self._info.get("max_payload", 1024 * 1024))

    @property
    def _info(self) -> JsonDict:
        info: JsonDict = self.client._server_info
        return info

    def server_facts(self) -> dict[str, str]:
        """What the server said of itself: version, name, cluster, domain, account; empty where it said nothing."""
        info = self._info
        facts = {key: str(info.get(key, "") or "") for key in ("version", "cluster", "domain")}
        return {**facts, "name": str(info.get("server_name", "")), "account": str(info.get("acc", "") or "")}

    async def request(self, suffix: str, body: Any = None, *, timeout_s: float | None = None) -> JsonDict:
        """Ask the API; `suffix` is the subject without the prefix.

        Raises:
            ApiError: the answer is an error of the API.
            ServerError: nobody answers, or the server does not permit it.
        """
        payload = json.dumps(body).encode() if body is not None else b""
        data = await self.ask(f"{self.prefix}.{suffix}", payload, timeout_s=timeout_s)
        try:
            answer: JsonDict = json.loads(data)
        except ValueError as wrong:
            raise ServerError(f"the answer to {suffix} is no JSON: {wrong}", code="nats.protocol") from None
        if error := answer.get("error"):
            raise ApiError(
                f"{suffix}: {error.get('description', error)}",
                status=int(error.get("code", 0)),
                err_code=int(error.get("err_code", 0)),
            )
        return answer

    async def ask(self, subject: str, payload: bytes, *, timeout_s: float | None = None) -> bytes:
        """One request, one answer, as bytes; a refusal is noticed before the time is out."""
        limit = timeout_s or self.timeout_s
        lost = self.watch.disconnects
        asked = asyncio.ensure_future(self.client.request(subject, payload, timeout=limit))
        while not asked.done():
            heard = asyncio.ensure_future(self.watch.changed(lost))
            await asyncio.wait({asked, heard}, return_when=asyncio.FIRST_COMPLETED)
            heard.cancel()
            if asked.done():
                break
            if (refused := self.watch.denied(subject)) or self.watch.disconnects != lost:
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
                raise refused or self.disconnected()
            await asyncio.sleep(0.05)
        try:
            return bytes(asked.result().data)
        except nats.errors.NoRespondersError:
            raise self.no_responders(subject) from None
        except (TimeoutError, nats.errors.TimeoutError):
            raise self.watch.denied(subject) or _silent(subject, limit) from None
        except nats.errors.Error as failure:
            raise self.watch.denied(subject) or self.disconnected(str(failure)) from None

    def no_responders(self, subject: str) -> ServerError:
        """The error for a subject on which nobody listens."""
        return ServerError(
            f"nobody answers on {subject}",
            code="nats.no-jetstream",
            means="nothing was changed by this request",
            hint="JetStream may be off for this account, or the domain or API prefix is another (--js-domain)",
        )

    def disconnected(self, why: str = "") -> ServerError:
        """The error for a connection that was lost."""
        last = why or next((str(one) for one in reversed(self.watch.errors) if str(one)), "")
        return ServerError(
            "the connection to NATS was lost" + (f": {last}" if last else ""),
            code="nats.disconnected",
            means="what was not finished does not count; finished backups are untouched",
            hint="look at the server, then run the command again",
            retryable=True,
        )

    async def account_info(self) -> JsonDict:
        """The account's use and limits."""
        return await self.request("INFO")

    async def stream_list(self) -> StreamListing:
        """All streams, page by page; their number is compared with the total that the server gave.

        Raises:
            ServerError: pages do not add up to the total although the listing was repeated.
        """
        for _ in range(3):
            listing = await self._list_once()
            if len(listing.infos) + len(set(listing.missing) | set(listing.offline)) >= listing.total:
                return listing
            await asyncio.sleep(0.2)
        raise ServerError(
            f"the server says that there are {listing.total} streams and lists {len(listing.infos)}",
            code="nats.listing",
            means="nothing was backed up: some streams would have been missed silently",
            hint="run it again; if it repeats, look at the cluster's health",
        )

    async def _list_once(self) -> StreamListing:
        infos: dict[str, JsonDict] = {}
        missing: set[str] = set()
        offline: dict[str, str] = {}
        total = offset = 0
        while True:
            page = await self.request("STREAM.LIST", {"offset": offset})
            total = int(page.get("total", 0))
            streams = page.get("streams") or []
            infos.update((str(one["config"]["name"]), one) for one in streams)
            missing.update(page.get("missing") or ())
            offline.update(page.get("offline") or {})
            offset += max(len(streams), int(page.get("limit", 0)) if not streams else 0)
            if not streams or offset >= total:
                break
        for name in set(offline) | missing:
            infos.pop(name, None)
        return StreamListing(list(infos.values()), total, tuple(sorted(missing)), offline)

    async def stream_info(self, name: str, **options: Any) -> JsonDict:
        """STREAM.INFO.

        Raises:
            ApiError: err_code 10059 when there is no such stream.
        """
        return await self.request(f"STREAM.INFO.{name}", options or None)

    async def find_stream(self, name: str) -> JsonDict | None:
        """STREAM.INFO, or None when there is no such stream."""
        try:
            return await self.stream_info(name)
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise

    async def create_stream(self, config: JsonDict) -> JsonDict:
        """STREAM.CREATE."""
        return await self.request(f"STREAM.CREATE.{config['name']}", config)

    async def update_stream(self, config: JsonDict) -> JsonDict:
        """STREAM.UPDATE."""
        return await self.request(f"STREAM.UPDATE.{config['name']}", config)

    async def delete_stream(self, name: str) -> None:
        """STREAM.DELETE; one that is not there is deleted already."""
        try:
            await self.request(f"STREAM.DELETE.{name}")
        except ApiError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise

    async def consumers(self, stream: str) -> list[JsonDict]:
        """CONSUMER.LIST, all pages."""
        found: dict[str, JsonDict] = {}
        offset = 0
        while True:
            page = await self.request(f"CONSUMER.LIST.{stream}", {"offset": offset})
            consumers = page.get("consumers") or []
            found.update((str(one["name"]), one) for one in consumers)
            offset += len(consumers)
            if not consumers or offset >= int(page.get("total", 0)):
                return list(found.values())

    def snapshot(self, stream: str, **options: int) -> Any:
        """Receive a stream's snapshot; an async context (jetkeep.jetstream.snapshot.SnapshotReceiver)."""
        from jetkeep.jetstream.snapshot import SnapshotReceiver  # noqa: PLC0415 - it needs this module

        return SnapshotReceiver(self, stream, **options)

    def restore(self, stream: str, config: JsonDict, state: JsonDict) -> Any:
        """Send a stream's snapshot; an async context (jetkeep.jetstream.restore.RestoreSender)."""
        from jetkeep.jetstream.restore import RestoreSender  # noqa: PLC0415 - it needs this module

        return RestoreSender(self, stream, config, state)

    def messages(self, stream: str, first: int, last: int, config: JsonDict) -> AsyncIterator[Message]:
        """Stored messages from sequence `first` to `last` (jetkeep.jetstream.messages.read)."""
        from jetkeep.jetstream.messages import read  # noqa: PLC0415 - it needs this module

        return read(self, stream, first, last, config)


def _silent(subject: str, limit: float) -> JetkeepError:
    return ServerError(
        f"no answer on {subject} within {limit:g} s",
        code="nats.timeout",
        means="it is not known whether the server did what was asked",
        hint="try again with a larger --timeout; a cluster without a leader answers like this too",
        retryable=True,
    )


__all__ = ["JetStream", "StreamListing", "status_of"]
