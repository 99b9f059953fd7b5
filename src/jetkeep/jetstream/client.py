"""The NATS client with what JetStream's tools need: raw header bytes, and errors that the server only mentions."""

from __future__ import annotations

import re
from typing import Any

from nats.aio.client import Client
from nats.js.api import Header

_STATUS = re.compile(rb"NATS/1\.0 +(\d{3}) *([^\r\n]*)")


class HeaderBlock(dict[str, str]):
    """A message's header: `raw` is the block as it came; the dict has only the server's inline status.

    nats-py's own dict loses repeated keys, order and case, which a backup must keep.
    """

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw
        if found := _STATUS.match(raw):
            self[Header.STATUS.value] = found[1].decode()
            self[Header.DESCRIPTION.value] = found[2].decode(errors="replace").strip()


class RawClient(Client):
    """nats-py's client; messages' `headers` are HeaderBlocks, or None when there are none."""

    async def _process_headers(self, headers: Any) -> Any:
        return HeaderBlock(bytes(headers)) if headers else None


def status_of(message: Any) -> tuple[str, str]:
    """The inline status and its words; empty when the message is ordinary."""
    headers = message.headers
    if not headers:
        return "", ""
    return headers.get(Header.STATUS.value, ""), headers.get(Header.DESCRIPTION.value, "")
