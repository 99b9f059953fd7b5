"""Publish exactly chosen bytes: subjects that are not UTF-8, header blocks with repeated keys. Speaks NATS by hand."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

WINDOW = 500


class PublishError(Exception):
    """The server refused a message."""


class Publisher:
    """`async with Publisher(url) as publisher:` stores messages and waits until the server has them."""

    def __init__(self, url: str, user: str = "", password: str = "") -> None:
        host, port = url.split(",", maxsplit=1)[0].removeprefix("nats://").rsplit(":", 1)
        self._address = host, int(port)
        self._login = {"user": user, "pass": password} if user else {}
        self._inbox = f"_INBOX.{secrets.token_hex(8)}".encode()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address, limit=128 * 1024 * 1024)
        await self._reader.readline()
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, **self._login}
        self._writer.write(b"CONNECT %b\r\nSUB %b.* 1\r\n" % (json.dumps(options).encode(), self._inbox))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def store(self, subject: bytes | str, payload: bytes = b"", headers: bytes = b"") -> int:
        """Store one message; returns its sequence."""
        answers = await self.store_all([(subject, payload, headers)])
        return int(answers[0]["seq"])

    async def store_all(self, messages: Iterable[tuple[bytes | str, bytes, bytes]]) -> list[dict[str, Any]]:
        """Store (subject, payload, header block)s in order; returns the server's answers."""
        answers: list[dict[str, Any]] = []
        waiting = 0
        for subject, payload, headers in messages:
            self._send(subject.encode() if isinstance(subject, str) else subject, payload, headers)
            waiting += 1
            if waiting >= WINDOW or len(payload) > 1_000_000:
                answers += [await self._answer() for _ in range(waiting)]
                waiting = 0
        return answers + [await self._answer() for _ in range(waiting)]

    async def ask(self, subject: str, body: Any = None) -> dict[str, Any]:
        """One request of the API; the answer as it comes."""
        self._send(subject.encode(), json.dumps(body).encode() if body is not None else b"", b"")
        answer: dict[str, Any] = await self._answer(raise_errors=False)
        return answer

    async def create(self, name: str, **config: Any) -> dict[str, Any]:
        """Create a stream; subjects default to `name.>`."""
        full = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "retention": "limits", **config}
        return self._good(await self.ask(f"$JS.API.STREAM.CREATE.{name}", full))

    async def info(self, name: str, **options: Any) -> dict[str, Any]:
        """STREAM.INFO."""
        return self._good(await self.ask(f"$JS.API.STREAM.INFO.{name}", options or None))

    async def delete(self, stream: str, *sequences: int) -> None:
        """Delete messages by sequence."""
        for seq in sequences:
            self._good(await self.ask(f"$JS.API.STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": False}))

    async def create_consumer(self, stream: str, name: str, **config: Any) -> dict[str, Any]:
        """Create a durable pull consumer with explicit acknowledgement."""
        full = {"durable_name": name, "name": name, "ack_policy": "explicit", **config}
        subject = f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}"
        return self._good(await self.ask(subject, {"stream_name": stream, "config": full}))

    def _send(self, subject: bytes, payload: bytes, headers: bytes) -> None:
        reply = self._inbox + b".r"
        if headers:
            sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
            self._writer.write(b"HPUB %b %b %b\r\n%b%b\r\n" % (subject, reply, sizes, headers, payload))
        else:
            self._writer.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload))

    async def _answer(self, raise_errors: bool = True) -> dict[str, Any]:
        await self._writer.drain()
        while True:
            line = await asyncio.wait_for(self._reader.readline(), 30)
            words = line.split()
            if line.startswith(b"PING"):
                self._writer.write(b"PONG\r\n")
            elif line.startswith(b"-ERR") or not line:
                raise PublishError(line.decode())
            elif line.startswith((b"MSG", b"HMSG")):
                data = (await self._reader.readexactly(int(words[-1]) + 2))[:-2]
                if line.startswith(b"HMSG"):
                    raise PublishError(data.decode(errors="replace"))
                answer: dict[str, Any] = json.loads(data)
                return self._good(answer) if raise_errors else answer

    @staticmethod
    def _good(answer: dict[str, Any]) -> dict[str, Any]:
        if "error" in answer:
            raise PublishError(answer["error"])
        return answer


def header_block(*lines: tuple[str, str] | bytes) -> bytes:
    """A raw header block of these lines, in this order, repeated keys as they are."""
    raw = (line if isinstance(line, bytes) else f"{line[0]}: {line[1]}".encode() for line in lines)
    return b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in raw) + b"\r\n"
