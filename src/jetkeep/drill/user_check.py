"""Let the user's own check decide: a command with the sandbox's URL in its environment."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: How much of the command's output is kept, from its end.
OUTPUT_BYTES = 16 * 1024
#: What a command needs to find its programs; nothing else of this process's environment is passed on.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")


@dataclass(frozen=True, slots=True)
class UserCheck:
    """What the command did: `status` is its exit status, None when it did not end in time."""

    command: str
    status: int | None
    seconds: float
    output: str

    @property
    def passed(self) -> bool:
        """It ended with 0."""
        return self.status == 0


async def run(command: str, variables: Mapping[str, str], timeout_s: float) -> UserCheck:
    """Run `command` in a shell, in an empty directory of its own; when it takes longer than `timeout_s` seconds it is killed."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | dict(variables)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with tempfile.TemporaryDirectory(prefix="jetkeep-check-") as folder:
        log = Path(folder, "output")
        with log.open("wb") as out:  # noqa: ASYNC230 - a local file, opened once
            process = await asyncio.create_subprocess_shell(
                command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd=folder,
                start_new_session=True,
            )  # fmt: skip
            status: int | None = None
            try:
                status = await asyncio.wait_for(process.wait(), timeout_s)
            except TimeoutError:
                pass  # told by `status`
            finally:
                # The command's own children too, whatever became of it.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        output = _tail(log)
    return UserCheck(command, status, loop.time() - began, output)


def _tail(log: Path) -> str:
    with log.open("rb") as written:
        written.seek(max(0, log.stat().st_size - OUTPUT_BYTES))
        return written.read().decode(errors="replace")
