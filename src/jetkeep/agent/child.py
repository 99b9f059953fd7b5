"""Run a command as a process of its own: its memory, crashes and signals are its own (ADR 013)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: How long a command that is told to stop may take before it is killed, in seconds.
GRACE_S = 8.0
_LONGEST_LINE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended: `status` as a shell tells it (128 and the signal's number when it was killed); `told` from its document."""

    status: int
    late: bool = False
    told: Mapping[str, str | bool] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """As in records of runs."""
        return "success" if self.status == 0 else "partial" if self.status == 3 else "failure"


async def run_child(
    words: list[str], config: str, say: Callable[[str], None], *, deadline_s: float | None = None
) -> Ended:
    """Run `jetkeep WORDS` with this configuration until it ends, or its deadline has passed.

    When cancelled, the command is told to stop, and killed when it has not after GRACE_S seconds.

    Args:
        words: command and arguments; no secret is among them.
        config: path of the configuration.
        say: takes each line that it writes.
        deadline_s: seconds, None for as long as it takes.
    """
    environ = {**os.environ, "JETKEEP_CONFIG": config}
    environ.pop("JETKEEP_REPO", None)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jetkeep", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
        env=environ,
        start_new_session=True,  # Ctrl-C at a terminal reaches the agent only, which then stops its children
    )
    assert child.stdout
    assert child.stderr
    late, document = False, b""
    try:
        try:
            async with asyncio.timeout(deadline_s):
                reading = asyncio.ensure_future(child.stdout.read())
                async for line in child.stderr:
                    say(line.decode(errors="replace").rstrip())
                document = await reading
                await child.wait()
        except TimeoutError:
            late = True
    finally:
        await _stop(child)
    status = child.returncode or 0
    return Ended(128 - status if status < 0 else status, late, _told(document))


def _told(document: bytes) -> dict[str, str | bool]:
    """What is worth a word in a log of a command's `--json`."""
    try:
        found = json.loads(document)
    except ValueError:
        return {}
    return {
        key: found[key] for key in ("label", "status", "verdict", "sound") if isinstance(found.get(key), str | bool)
    }


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    waiting = asyncio.ensure_future(child.wait())
    done, _ = await asyncio.wait({waiting}, timeout=GRACE_S)
    if not done:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await waiting
