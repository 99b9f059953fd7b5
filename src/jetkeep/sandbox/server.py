"""One throw-away server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jetkeep.errors import ServerError
from jetkeep.sandbox.binaries import binary_for
from jetkeep.sandbox.guard import Guard

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.005


class Sandbox:
    """A real nats-server on a free port of loopback, with JetStream in a temporary directory.

    `async with Sandbox() as server:` starts it and waits until it answers; leaving kills it and removes what it
    stored. If this process dies in any way, the server dies with it.

    Args:
        version: full or short version, a path of a binary, or None for the installed one.
        config: server configuration (JSON); its keys win over the defaults, those of `jetstream` one by one;
            `"jetstream": None` turns JetStream off.
        store_dir: where JetStream stores; kept on exit. None: a temporary directory, removed on exit.

    Attributes:
        url: where clients connect, `nats://127.0.0.1:…`; stays the same over restarts.
        monitor_url: the server's monitoring endpoint.
        version: of the binary.
        store_dir: JetStream's directory.
        log: the server's log file.
    """

    def __init__(
        self,
        version: str | os.PathLike[str] | None = None,
        config: dict[str, Any] | None = None,
        store_dir: Path | None = None,
    ) -> None:
        self._binary, self.version = binary_for(version)
        self._keep = store_dir is not None
        self._config = config or {}
        self.url = self.monitor_url = ""
        self._ports: dict[str, str] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="jetkeep-sandbox-"))
        self.store_dir = store_dir or self._folder / "store"
        self.log = self._folder / "server.log"
        self._guard = Guard(self._folder)
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._keep:
                await self.stop()
        finally:
            self.close()

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there; a paused one is."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServerError: it ended instead, or did not answer in time; the words are its log's last.
        """
        assert self._process is None or self._process.poll() is not None, "the sandbox runs already"
        config = self._folder / "server.json"
        config.write_text(json.dumps(self._settings(), ensure_ascii=False))
        command = [str(self._binary), "-c", str(config), "--ports_file_dir", str(self._folder)]
        self._process = self._guard.start(command, self.log)
        deadline = time.monotonic() + READY_SECONDS
        while not await self._answers():
            if not self.running:
                raise self._failed("ended while starting")
            if time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                raise self._failed(f"did not answer within {READY_SECONDS:.0f} s")
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """End the server in order (SIGTERM): what it stored is on the disk on return. Killed if it takes too long."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 (nothing else tells)
            await asyncio.sleep(_POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL); `start` or `restart` brings it back on the same port."""
        self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Stop in order, and start again with the same store and port."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open and nothing answers; it is frozen on return."""
        self._signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the server if it runs and remove everything that is temporary. Nothing of it can be used after."""
        self.kill()
        self._guard.close()

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "listen": self._ports.get("nats", "127.0.0.1:-1"),
            "http": self._ports.get("monitoring", "127.0.0.1:-1"),
            "jetstream": {"store_dir": str(self.store_dir)},
        } | self._config
        if isinstance(chosen := self._config.get("jetstream"), dict):
            settings["jetstream"] = {"store_dir": str(self.store_dir), **chosen}
        return {key: value for key, value in settings.items() if value is not None}

    async def _answers(self) -> bool:
        # The server writes this file once it listens; it is removed before every start, so it is of this one.
        ports = next(self._folder.glob("*.ports"), None)
        if ports is None:
            return False
        try:
            found: dict[str, list[str]] = json.loads(ports.read_text())
        except ValueError:
            return False
        self._ports = {name: urls[0].split("://", 1)[1] for name, urls in found.items()}
        self.url, self.monitor_url = f"nats://{self._ports['nats']}", f"http://{self._ports['monitoring']}"
        return True

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(how)
        self._process.wait()
        self._process = None
        self._guard.forget()
        for ports in self._folder.glob("*.ports"):
            ports.unlink()

    def _signal(self, name: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(name)

    def _failed(self, what: str) -> ServerError:
        self._end(signal.SIGKILL)
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        words = next((line for line in reversed(lines) if "[FTL]" in line or "[ERR]" in line), (lines or [""])[-1])
        return ServerError(
            f"the throw-away nats-server {self.version} {what}" + (f": {words}" if words else ""),
            code="sandbox.start",
            means="only the sandbox failed; no data was touched",
            hint="look for free space and memory on this machine, or take another server version",
        )
