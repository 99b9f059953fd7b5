"""The cluster's name server, as far as pods here need one: the addresses (A) of services."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping, Sequence

_DOMAIN = ".cluster.local"
_OK, _FAILED, _NO_NAME = 0, 2, 3


def trusting() -> ssl.SSLContext:
    """For an API server whose certificate is its own, in a network without anybody else."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Server:
    """Answers on UDP port 53 of an address until it is closed.

    Args:
        address: to listen on.
        services: gives the names, without the cluster's domain, and their addresses as of now.
    """

    def __init__(self, address: str, services: Callable[[], Mapping[str, Sequence[str]]]) -> None:
        self._services = services
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """No more answers."""
        # A thread that waits in recvfrom is not woken by close.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, whom = self._socket.recvfrom(512)
                if not question:
                    return
                self._socket.sendto(self._answer(question), whom)
            except (OSError, IndexError, struct.error):
                if self._socket.fileno() < 0:
                    return

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
            at += 1 + length
        kind = struct.unpack_from(">H", question, at + 1)[0]
        try:
            addresses = self._services().get(".".join(labels).removesuffix(_DOMAIN))
        except OSError:
            return self._packet(question, at, _FAILED, [])
        if addresses is None:
            return self._packet(question, at, _NO_NAME, [])
        return self._packet(question, at, _OK, addresses if kind == 1 else [])

    @staticmethod
    def _packet(question: bytes, at: int, status: int, addresses: Sequence[str]) -> bytes:
        head = question[:2] + struct.pack(">HHHHH", 0x8580 | status, 1, len(addresses), 0, 0)
        records = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 2, 4) + socket.inet_aton(address) for address in addresses
        )
        return head + question[12 : at + 5] + records
