"""JetStream's API: requests and answers as JSON, exactly as the server gives them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from jetkeep.config import ConnectionSettings
from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream.client import RawClient
from jetkeep.jetstream.listing import STREAM_NOT_FOUND, StreamListing, list_consumers, list_streams
from jetkeep.jetstream.watch import NOTICE_S, Watch
from jetkeep.model import JsonDict, Message

if TYPE_CHECKING:
    from jetkeep.jetstream.restore import RestoreSender
    from jetkeep.jetstream.snapshot import SnapshotReceiver


#: For what nothing depends on, in seconds.
_ASKING_S = 2.0


class JetStream:
    """One account's JetStream. All methods raise ServerError when the server does not answer or refuses."""

    def __init__(self, client: RawClient, settings: ConnectionSettings, watch: Watch) -> None:
        self.client = client
        self.watch = watch
        self.settings = settings
        self.timeout_s = settings.timeout_s
        # As the official CLI: a domain wins over a prefix.
        self.prefix = f"$JS.{settings.js_domain}.API" if settings.js_domain else settings.js_api_prefix or "$JS.API"
        self.inboxes = f"{settings.inbox_prefix or '_INBOX'}.>"

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
        """What the server said of itself: version, name, cluster, domain; empty where it said nothing."""
        info = self._info
        facts = {key: str(info.get(key, "") or "") for key in ("version", "cluster", "domain")}
        return {**facts, "name": str(info.get("server_name", ""))}

    async def account_name(self) -> str:
        """The name of this user's account (`$G`, where there are none); empty where the user may not ask."""
        with suppress(ServerError, ValueError, TypeError):
            answer = json.loads(await self.ask("$SYS.REQ.USER.INFO", b"", timeout_s=_ASKING_S))
            return str((answer.get("data") or {}).get("account", ""))
        return ""

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
        """One request, one answer, as bytes."""
        return bytes((await self.exchange(subject, payload, timeout_s=timeout_s)).data)

    async def exchange(self, subject: str, payload: bytes, *, timeout_s: float | None = None) -> Msg:
        """One request, one answer, headers included; a refusal is noticed before the time is out."""
        limit = timeout_s or self.timeout_s
        lost = self.watch.disconnects
        asked = asyncio.ensure_future(self.client.request(subject, payload, timeout=limit))
        try:
            while not asked.done():
                await asyncio.wait({asked}, timeout=NOTICE_S)
                if not asked.done() and (trouble := self.watch.trouble(lost, subject, self.inboxes)):
                    raise trouble
            return asked.result()
        except nats.errors.NoRespondersError:
            raise self.no_responders(subject) from None
        except (TimeoutError, nats.errors.TimeoutError):
            raise self.watch.trouble(lost, subject, self.inboxes) or _silent(subject, limit) from None
        except nats.errors.MaxPayloadError:
            raise _too_large(subject, len(payload), self.max_payload) from None
        except (nats.errors.Error, OSError) as failure:
            raise self.watch.denied(subject, self.inboxes) or self.watch.disconnected(str(failure)) from None
        finally:
            asked.cancel()

    async def publish(self, subject: str, data: bytes = b"", reply: str = "") -> None:
        """Send a message; nobody says that it arrived.

        Raises:
            ServerError: there is no connection, or the message is too large.
        """
        try:
            await self.client.publish(subject, data, reply=reply)
        except nats.errors.MaxPayloadError:
            raise _too_large(subject, len(data), self.max_payload) from None
        except (nats.errors.Error, OSError) as failure:
            raise self.watch.disconnected(str(failure)) from None

    async def subscribe(self, subject: str, receive: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Call `receive` for every message; nothing is dropped, so whoever subscribes bounds what comes."""
        try:
            return await self.client.subscribe(subject, cb=receive, pending_msgs_limit=0, pending_bytes_limit=0)
        except (nats.errors.Error, OSError) as failure:
            raise self.watch.disconnected(str(failure)) from None

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening; a connection that is lost has stopped already."""
        with suppress(nats.errors.Error, OSError):
            await subscription.unsubscribe()

    async def may_publish(self, subject: str) -> ServerError | None:
        """Try whether publishing to `subject` is permitted: None, or the refusal.

        It does publish, an empty message without reply: only for subjects where nobody minds.
        """
        await self.publish(subject)
        return await self._refusal(subject)

    async def may_subscribe(self, subject: str) -> ServerError | None:
        """Try whether subscribing to `subject` is permitted: None, or the refusal."""

        async def ignore(_: Msg) -> None: ...

        subscription = await self.subscribe(subject, ignore)
        refusal = await self._refusal("", subject)
        await self.unsubscribe(subscription)
        return refusal

    async def _refusal(self, subject: str, inbox: str = "") -> ServerError | None:
        lost = self.watch.disconnects
        # The server refuses in order: when it answers the ping, it has said what it has to say. Twice, because the
        # client's first ping overtakes what it has not yet written.
        with suppress(nats.errors.Error, OSError):
            for _ in range(2):
                await self.client.flush(max(1, round(self.timeout_s)))
        return self.watch.trouble(lost, subject, inbox)

    def no_responders(self, subject: str) -> ServerError:
        """The error for a subject on which nobody listens."""
        return ServerError(
            f"nobody answers on {subject}",
            code="nats.no-jetstream",
            means="nothing was changed by this request",
            hint="JetStream may be off for this account, or the domain or API prefix is another (--js-domain)",
        )

    async def account_info(self) -> JsonDict:
        """The account's use and limits."""
        return await self.request("INFO")

    async def stream_list(self) -> StreamListing:
        """All streams, with those that do not answer; see list_streams."""
        return await list_streams(self._list)

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
        """All consumers of a stream; see list_consumers."""
        return await list_consumers(self._list, stream)

    async def _list(self, suffix: str, body: JsonDict, timeout_s: float) -> JsonDict:
        return await self.request(suffix, body, timeout_s=max(self.timeout_s, timeout_s))

    def snapshot(self, stream: str, **options: int) -> SnapshotReceiver:
        """Receive a stream's snapshot; an async context (jetkeep.jetstream.snapshot.SnapshotReceiver)."""
        from jetkeep.jetstream.snapshot import SnapshotReceiver  # noqa: PLC0415 - it needs this module

        return SnapshotReceiver(self, stream, **options)

    def restore(self, stream: str, config: JsonDict, state: JsonDict) -> RestoreSender:
        """Send a stream's snapshot; an async context (jetkeep.jetstream.restore.RestoreSender)."""
        from jetkeep.jetstream.restore import RestoreSender  # noqa: PLC0415 - it needs this module

        return RestoreSender(self, stream, config, state)

    def messages(self, stream: str, first: int, last: int, config: JsonDict) -> AsyncIterator[Message]:
        """Stored messages from sequence `first` to `last` (jetkeep.jetstream.messages.read)."""
        from jetkeep.jetstream.messages import read  # noqa: PLC0415 - it needs this module

        return read(self, stream, first, last, config)


def _too_large(subject: str, size: int, limit: int) -> ServerError:
    return ServerError(
        f"the request to {subject} has {size:,} bytes and the server takes {limit:,}",
        code="nats.max-payload",
        means="nothing was changed by this request",
        hint="raise max_payload at the server",
    )


def _silent(subject: str, limit: float) -> ServerError:
    return ServerError(
        f"no answer on {subject} within {limit:g} s",
        code="nats.timeout",
        means="it is not known whether the server did what was asked",
        hint="try again with a larger --timeout; a cluster without a leader answers like this too",
        retryable=True,
    )
