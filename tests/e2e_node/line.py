"""A line between a container and NATS that takes the time: when the container began, when it got its first byte."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_PROGRAM = "/opt/jetkeep/bin/jetkeep"


class Listener:
    """`with Listener(address, url) as line:` passes connections on, until the block's end.

    Attributes:
        url: to connect to in place of the server's.
        started: when the process of the container that connected first was started, in seconds since boot.
        first_byte: when the first byte of the server was passed on to it.
    """

    def __init__(self, address: str, url: str) -> None:
        host, _, port = url.removeprefix("nats://").partition(":")
        self._server = host, int(port)
        self._socket = socket.create_server((address, 0))
        self.url = f"nats://{address}:{self._socket.getsockname()[1]}"
        self.started = self.first_byte = 0.0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(self._server)
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other, one is server), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, from_server: bool) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                if from_server and not self.first_byte:
                    self.first_byte = time.clock_gettime(time.CLOCK_BOOTTIME)
                    self.started = _start_of(_PROGRAM)
                target.sendall(data)


def _start_of(program: str) -> float:
    """When the newest process of this program was started, in seconds since boot."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if program in (folder / "cmdline").read_text().split("\0"):
                found.append(int((folder / "stat").read_text().rpartition(")")[2].split()[19]) / ticks)
    return max(found)
