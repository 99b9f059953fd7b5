"""Read stored messages one by one or in batches, without a consumer.

With `allow_direct` on 2.11 and later by batched DIRECT.GET; else, and for what a replica that lags did not give, by
STREAM.MSG.GET, which the leader answers, many at a time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream.api import JetStream
from jetkeep.jetstream.client import status_of
from jetkeep.jetstream.watch import NOTICE_S
from jetkeep.model import JsonDict, Message

BATCH, BATCH_BYTES = 1000, 8 * 1024 * 1024
GETS_AT_ONCE, GETS_BYTES = 64, 64 * 1024 * 1024
DIRECT_TRIES = 64
NO_MESSAGE = 10037
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
#: What the server appends to a stored message's header when it answers a direct get (server: getDirectRequest).
#: Anchored at the end: the stored header may have lines of the same names before it.
_ENVELOPE = re.compile(
    rb"Nats-Stream: ([^\r\n]*)\r\nNats-Subject: ([^\r\n]*)\r\nNats-Sequence: (\d+)\r\nNats-Time-Stamp: ([^\r\n]*)\r\n"
    rb"(?:Nats-Num-Pending: \d+\r\n)?(?:Nats-Last-Sequence: \d+\r\n)?\r\n\Z"
)
_BARE = b"NATS/1.0\r\n"


class _AskLeaderError(Exception):
    """Direct gets do not help: nobody answers yet, as right after a replica started, or a mirror answers.

    A mirror with mirror_direct answers in its origin's place, and does not hold what the origin holds.
    """


async def read(js: JetStream, stream: str, first: int, last: int, config: JsonDict) -> AsyncIterator[Message]:
    """All stored messages from sequence `first` to `last`, rising; deleted ones are stepped over.

    Header blocks are as stored, with one exception: a block without any line comes back as no header.

    Raises:
        ServerError: the server does not answer, or gives a subject that its API cannot carry.
    """
    release = tuple(int(part) for part in js.server_version.split("-")[0].split(".")[:2])
    direct = bool(config.get("allow_direct"))
    at = first
    if direct and release >= (2, 11):
        try:
            async for message in _batches(js, stream, first, last):
                at = message.seq + 1
                yield message
            if int(config.get("num_replicas") or 1) == 1:
                return
        except _AskLeaderError:
            pass
    async for message in _gets(js, stream, at, last, direct):
        yield message


async def _batches(js: JetStream, stream: str, first: int, last: int) -> AsyncIterator[Message]:
    """Ends with `last`, or earlier when whoever answers has nothing more."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    inbox = js.client.new_inbox()
    subscription = await js.subscribe(inbox, queue.put)
    subject = f"{js.prefix}.DIRECT.GET.{stream}"
    try:
        at = first
        while at <= last:
            asked_from = at
            request = {"seq": at, "batch": min(BATCH, last - at + 1), "max_bytes": BATCH_BYTES}
            await js.publish(subject, json.dumps(request).encode(), inbox)
            while raw := await _next(js, queue, subject, inbox, stream):
                message = _direct(raw, stream)
                at = message.seq + 1
                if message.seq > last:
                    return
                yield message
            if at == asked_from:
                return
    finally:
        await js.unsubscribe(subscription)


async def _next(js: JetStream, queue: asyncio.Queue[Any], subject: str, inbox: str, stream: str) -> Any:
    """The next message of a batch, None at its end."""
    deadline = asyncio.get_running_loop().time() + js.timeout_s
    lost = js.watch.disconnects
    while queue.empty():
        # Short waits: a refusal and a lost connection are noticed long before the time is out.
        try:
            async with asyncio.timeout(NOTICE_S):
                raw = await queue.get()
                break
        except TimeoutError:
            if trouble := js.watch.trouble(lost, subject, inbox):
                raise trouble from None
            if asyncio.get_running_loop().time() > deadline:
                raise _stalled(stream) from None
    else:
        raw = queue.get_nowait()
    status, words = status_of(raw)
    # A stored message can have a status line of its own: only what has no envelope is the server's word.
    if not status or _ENVELOPE.search(raw.headers.raw):
        return raw
    if status == "503":
        raise _AskLeaderError
    if status in ("204", "404"):
        return None
    raise ServerError(f"reading {stream} message by message: {status} {words}", code="nats.direct-get")


def _direct(raw: Any, stream: str) -> Message:
    block = raw.headers.raw if raw.headers is not None else b""
    found = _ENVELOPE.search(block)
    if not found:
        raise ServerError(f"an answer for {stream} has no envelope", code="nats.protocol")
    if found[1] != stream.encode():
        raise _AskLeaderError
    headers = block[: found.start()]
    headers = b"" if headers == _BARE else headers + b"\r\n"
    return Message(int(found[3]), time_ns(found[4].decode()), found[2], headers, raw.data)


async def _gets(js: JetStream, stream: str, first: int, last: int, direct: bool) -> AsyncIterator[Message]:
    """Ask for the next message at or after each of many sequences at once.

    Gaps make several answers the same and large messages fill memory: so few at first, more while that goes well.
    """

    async def one(seq: int) -> Message | None:
        try:
            answer = await js.request(f"STREAM.MSG.GET.{stream}", {"seq": seq, "next_by_subj": ">"})
        except ApiError as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        return await _stored(js, answer["message"], stream, direct)

    at, window = first, 1
    # Where messages of 64 MiB are allowed, the next one can be that large whatever the last ones were.
    most = max(4, min(GETS_AT_ONCE, GETS_BYTES // js.max_payload))
    while at <= last:
        asked = range(at, min(at + window, last + 1))
        found = await asyncio.gather(*(one(seq) for seq in asked))
        messages = {message.seq: message for message in found if message is not None}
        for seq in sorted(messages):
            if seq <= last:
                yield messages[seq]
        if None in found:
            return
        at = max(messages) + 1
        window = min(most, len(messages) * 2)


async def _stored(js: JetStream, message: JsonDict, stream: str, direct: bool) -> Message:
    subject = str(message["subject"])
    seq = int(message["seq"])
    if "�" in subject:
        if not direct:
            raise ServerError(
                f"message {seq} of {stream} has a subject that is not UTF-8, which this API cannot carry",
                code="nats.subject",
                means="this stream was not backed up in this run",
                hint="allow direct gets on the stream (`nats stream edit --allow-direct`), or use a newer server",
            )
        return await _direct_one(js, stream, seq)
    headers = base64.b64decode(message.get("hdrs") or "")
    return Message(
        seq, time_ns(message["time"]), subject.encode(), headers, base64.b64decode(message.get("data") or "")
    )


async def _direct_one(js: JetStream, stream: str, seq: int) -> Message:
    """One direct get. A mirror answers too, one of them by chance, and may lag: ask until the stream itself does."""
    for _ in range(DIRECT_TRIES):
        try:
            with suppress(_AskLeaderError):
                return _direct(await js.exchange(f"{js.prefix}.DIRECT.GET.{stream}", b'{"seq":%d}' % seq), stream)
        except ServerError as failure:
            if failure.code != "nats.no-jetstream":
                raise
            await asyncio.sleep(0.05)
    raise _stalled(stream)


def time_ns(text: str) -> int:
    """An RFC 3339 time in nanoseconds since the epoch, exactly."""
    found = _TIME.fullmatch(text)
    if not found:
        raise ServerError(f"'{text}' is no time", code="nats.protocol")
    whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    return round(whole.timestamp()) * 10**9 + int((found[2] or "").ljust(9, "0"))


def _stalled(stream: str) -> ServerError:
    return ServerError(
        f"the server stopped answering while {stream} was read message by message",
        code="nats.timeout",
        means="nothing of this stream was stored in this run; earlier backups of it are untouched",
        hint="look at the server, then run the backup again",
        retryable=True,
    )
