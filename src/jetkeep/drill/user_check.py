"""Let the user's own check decide: a command with the sandbox's URL in its environment."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jetkeep.sandbox import guarded_directory

#: How much of the command's output is kept, from its end; and how much it may write before it is ended.
OUTPUT_BYTES = 16 * 1024
MOST_OUTPUT_BYTES = 64 * 1024 * 1024
#: What a command needs to find its programs; nothing else of this process's environment is passed on.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class UserCheck:
    """What the command did: `status` is its exit status (negative: the signal that ended it), None when it took too long."""

    command: str
    status: int | None
    seconds: float
    output: str

    @property
    def passed(self) -> bool:
        """It ended with 0."""
        return self.status == 0


async def run(command: str, variables: Mapping[str, str], timeout_s: float) -> UserCheck:
    """Run `command` in a shell, in an empty directory of its own; it and all that it started end here at the latest.

    It finds no NATS context: one of production's, selected by chance, would make it look at production.
    """
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    loop = asyncio.get_running_loop()
    began = loop.time()
    with guarded_directory("jetkeep-check-") as guard:
        work = guard.folder / "work"
        work.mkdir()
        log = guard.folder / "output"
        environment = passed_on | {"XDG_CONFIG_HOME": str(guard.folder / "config")} | dict(variables)
        process = guard.start(["/bin/sh", "-c", command], log, env=environment, cwd=work)
        try:
            while (status := process.poll()) is None and loop.time() - began < timeout_s:
                if log.stat().st_size > MOST_OUTPUT_BYTES:
                    status = -signal.SIGKILL
                    break
                await asyncio.sleep(_POLL_S)
        finally:
            _end(process)
            guard.forget()
        output = _tail(log)
    return UserCheck(command, status, loop.time() - began, output)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The command's own children too, also those that it left behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    with log.open("rb") as written:
        written.seek(max(0, log.stat().st_size - OUTPUT_BYTES))
        return written.read().decode(errors="replace")
