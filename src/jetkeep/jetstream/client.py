"""The NATS client with what JetStream's tools need: raw header bytes, and errors that the server only mentions."""

from __future__ import annotations

import re
from typing import Any

import nats.errors
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

    def __bool__(self) -> bool:
        return True  # a block without a status is a header all the same


class RawClient(Client):
    """nats-py's client; messages' `headers` are HeaderBlocks, or None when there are none.

    Args:
        tls_only: use TLS wherever the server offers it, and refuse the server where it does not.
    """

    def __init__(self, *, tls_only: bool = False) -> None:
        super().__init__()
        self._tls_only = tls_only
        #: Whether the server said that it asks for a client's certificate.
        self.wants_certificate = False

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py uses TLS only where the server requires it, and else sends the credentials in the clear.
        if initial_connection and self._tls_only and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise nats.errors.Error("nats: the server does not offer TLS")
            info["tls_required"] = True
        self.wants_certificate = bool(info.get("tls_verify"))
        await super()._process_info(info, initial_connection)

    async def _process_headers(self, headers: Any) -> Any:
        return HeaderBlock(bytes(headers)) if headers else None


def status_of(message: Any) -> tuple[str, str]:
    """The inline status and its words; empty when the message is ordinary."""
    headers = message.headers
    if not headers:
        return "", ""
    return headers.get(Header.STATUS.value, ""), headers.get(Header.DESCRIPTION.value, "")
