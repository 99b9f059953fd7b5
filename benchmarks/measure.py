"""Run one command as a whole process and account for it as the operating system does."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """Wall and CPU seconds, peak resident bytes."""

    wall: float
    cpu: float
    resident: int


def run(command: list[str], log: Path) -> Run:
    """Run `command` to its end; its output goes to `log`. A failure ends the benchmark: a wrong run has no time."""
    with log.open("ab") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}:\n{log.read_text()[-2000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
