"""Messages as `cat` prints them: for people, for scripts, or nothing but the payloads."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol, TextIO

from jetkeep.cli.render import size
from jetkeep.errors import JetkeepError
from jetkeep.model import Message

#: Bytes of a payload that is no text that are shown to people.
_SHOWN_BYTES = 192


class MessagePrinter(Protocol):
    """Takes messages one by one; nothing is kept, so a stream of any size can be printed."""

    def message(self, message: Message) -> None:
        """Print one message."""

    def end(self, failure: JetkeepError | None = None) -> None:
        """Print what comes last; `failure` is why there are no more."""


class RawPrinter:
    """Payloads, one after the other, with nothing between them."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def message(self, message: Message) -> None:
        """Print one payload."""
        self._out.write(message.payload)

    def end(self, failure: JetkeepError | None = None) -> None:
        """Print nothing."""
        self._out.flush()


class TextPrinter:
    """A line for each message, its headers if asked for, its payload, an empty line. Control characters are escaped."""

    def __init__(self, headers: bool, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._headers = headers

    def message(self, message: Message) -> None:
        """Print one message."""
        subject = _printable(message.subject.decode("utf-8", "backslashreplace"), keep="")
        lines = [f"#{message.seq}  {time_text(message.ts)}  {subject}  {size(len(message.payload))}"]
        if self._headers and message.headers:
            block = message.headers.decode("utf-8", "backslashreplace").replace("\r\n", "\n").strip("\n")
            lines += [f"  {_printable(line)}" for line in block.split("\n")[1:]]
        if message.payload:
            lines.append(_payload_text(message.payload))
        self._out.write("\n".join(lines) + "\n\n")

    def end(self, failure: JetkeepError | None = None) -> None:
        """Print nothing."""


class JsonPrinter:
    """One JSON document (docs/reference/json.md), written while the messages come."""

    def __init__(self, head: Mapping[str, Any], out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._count = 0
        self._out.write(_json({"schema": "jetkeep.cat/1", **head})[:-1] + ', "messages": [')

    def message(self, message: Message) -> None:
        """Print one element of `messages`."""
        self._out.write(("," if self._count else "") + "\n" + _json(message_dict(message)))
        self._count += 1

    def end(self, failure: JetkeepError | None = None) -> None:
        """Close the document; with a failure it holds an `error`, so that a cut list cannot pass for a whole one."""
        rest: dict[str, Any] = {"count": self._count}
        if failure:
            rest["error"] = failure.to_dict()
        self._out.write("\n], " + _json(rest)[1:] + "\n")


def message_dict(message: Message) -> dict[str, Any]:
    """A message for JSON: text where it is UTF-8, else base64 under a name that says so."""
    return {
        "seq": message.seq,
        "time": time_text(message.ts),
        "ts_ns": message.ts,
        **_text_or_base64("subject", message.subject),
        **_headers_for_json(message.headers),
        **_text_or_base64("payload", message.payload),
    }


def time_text(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 with nine digits, in UTC."""
    from datetime import UTC, datetime, timedelta

    seconds, rest = divmod(ns, 1_000_000_000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _headers_for_json(block: bytes) -> dict[str, Any]:
    """The header block as a list of [name, value]: names may repeat, and order counts."""
    if not block:
        return {}
    try:
        first, *lines = block.decode().removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.split(":", 1) for line in lines]
    except UnicodeDecodeError:
        first, pairs = "", []
    if first != "NATS/1.0" or any(len(pair) != 2 for pair in pairs):
        return {"headers_base64": base64.b64encode(block).decode()}
    return {"headers": [[name, value.removeprefix(" ")] for name, value in pairs]}


def _text_or_base64(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _payload_text(payload: bytes) -> str:
    try:
        return _printable(payload.decode())
    except UnicodeDecodeError:
        shown = base64.b64encode(payload[:_SHOWN_BYTES]).decode()
        more = f" … ({len(payload):,} bytes; --raw gives them)" if len(payload) > _SHOWN_BYTES else ""
        return f"base64: {shown}{more}"


def _printable(text: str, keep: str = "\n\t") -> str:
    """Text whose control characters cannot move a terminal's cursor, clear its screen or set its title."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
