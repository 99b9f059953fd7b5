"""Read stored messages one by one or in batches, without a consumer.

With `allow_direct` on 2.11 and later, batched DIRECT.GET; else STREAM.MSG.GET, many at a time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream.api import JetStream
from jetkeep.jetstream.client import status_of
from jetkeep.model import JsonDict, Message

BATCH, BATCH_BYTES = 1000, 8 * 1024 * 1024
GETS_AT_ONCE = 64
NO_MESSAGE = 10037
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
#: What the server appends to a stored message's header in a batch (server: getDirectRequest). Anchored at the end: the stored
#: header may have lines of the same names before it.
_ENVELOPE = re.compile(
    rb"Nats-Stream: [^\r\n]*\r\nNats-Subject: ([^\r\n]*)\r\nNats-Sequence: (\d+)\r\nNats-Time-Stamp: ([^\r\n]*)\r\n"
    rb"(?:Nats-Num-Pending: \d+\r\n)?(?:Nats-Last-Sequence: \d+\r\n)?\r\n\Z"
)
_BARE = b"NATS/1.0\r\n"


async def read(js: JetStream, stream: str, first: int, last: int, config: JsonDict) -> AsyncIterator[Message]:
    """All stored messages from sequence `first` to `last`, rising; deleted ones are stepped over.

    Raises:
        ServerError: the server does not answer, or gives a subject that its API cannot carry.
    """
    release = tuple(int(part) for part in js.server_version.split("-")[0].split(".")[:2])
    if config.get("allow_direct") and release >= (2, 11):
        async for message in _batches(js, stream, first, last):
            yield message
    else:
        async for message in _gets(js, stream, first, last):
            yield message


async def _batches(js: JetStream, stream: str, first: int, last: int) -> AsyncIterator[Message]:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    inbox = js.client.new_inbox()
    subscription = await js.client.subscribe(inbox, cb=queue.put, pending_msgs_limit=0, pending_bytes_limit=0)
    subject = f"{js.prefix}.DIRECT.GET.{stream}"
    try:
        at = first
        while at <= last:
            request = {"seq": at, "batch": min(BATCH, last - at + 1), "max_bytes": BATCH_BYTES}
            await js.client.publish(subject, json.dumps(request).encode(), reply=inbox)
            got = False
            while True:
                try:
                    raw = await asyncio.wait_for(queue.get(), js.timeout_s)
                except TimeoutError:
                    raise js.watch.denied(subject) or _stalled(stream, at) from None
                status, words = status_of(raw)
                if status == "503":
                    raise js.no_responders(subject)
                if status == "404":
                    return
                if status == "204":
                    break
                if status:
                    raise ServerError(f"reading {stream} at {at}: {status} {words}", code="nats.direct-get")
                message = _direct(raw, stream)
                got = True
                at = message.seq + 1
                if message.seq <= last:
                    yield message
            if not got:
                return
    finally:
        if not js.client.is_closed:
            await asyncio.gather(subscription.unsubscribe(), return_exceptions=True)


def _direct(raw: Any, stream: str) -> Message:
    block = raw.headers.raw if raw.headers else b""
    found = _ENVELOPE.search(block)
    if not found:
        raise ServerError(f"an answer for {stream} has no envelope", code="nats.protocol")
    headers = block[: found.start()]
    headers = b"" if headers == _BARE else headers + b"\r\n"
    return Message(int(found[2]), time_ns(found[3].decode()), found[1], headers, raw.data)


async def _gets(js: JetStream, stream: str, first: int, last: int) -> AsyncIterator[Message]:
    """Ask for the next message at or after each of many sequences at once: gaps make several answers the same."""

    async def one(seq: int) -> Message | None:
        try:
            answer = await js.request(f"STREAM.MSG.GET.{stream}", {"seq": seq, "next_by_subj": ">"})
        except ApiError as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        return _stored(answer["message"], stream)

    at = first
    while at <= last:
        asked = range(at, min(at + GETS_AT_ONCE, last + 1))
        found = await asyncio.gather(*(one(seq) for seq in asked))
        messages = {message.seq: message for message in found if message is not None}
        if not messages:
            return
        for seq in sorted(messages):
            if seq <= last:
                yield messages[seq]
        at = max(messages) + 1


def _stored(message: JsonDict, stream: str) -> Message:
    subject = str(message["subject"])
    seq = int(message["seq"])
    if "�" in subject:
        raise ServerError(
            f"message {seq} of {stream} has a subject that is not UTF-8, which this API cannot carry",
            code="nats.subject",
            means="this stream was not backed up in this run",
            hint="allow direct gets on the stream (`nats stream edit --allow-direct`), or use a newer server",
        )
    headers = base64.b64decode(message.get("hdrs") or "")
    return Message(
        seq, time_ns(message["time"]), subject.encode(), headers, base64.b64decode(message.get("data") or "")
    )


def time_ns(text: str) -> int:
    """An RFC 3339 time in nanoseconds since the epoch, exactly."""
    found = _TIME.fullmatch(text)
    if not found:
        raise ServerError(f"'{text}' is no time", code="nats.protocol")
    whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    return round(whole.timestamp()) * 10**9 + int((found[2] or "").ljust(9, "0"))


def _stalled(stream: str, at: int) -> ServerError:
    return ServerError(
        f"the server stopped answering while {stream} was read, at sequence {at}",
        code="nats.timeout",
        means="nothing of this stream was stored in this run",
        hint="look at the server, then run the backup again",
        retryable=True,
    )
