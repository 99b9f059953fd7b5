"""Run one command as a whole process and account for it as the operating system does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: A process inherits its parent's peak of memory at birth: a small parent of its own starts what is measured.
_LAUNCHER = """
import json, os, subprocess, sys, time
with open(sys.argv[1], "ab") as out:
    began = time.perf_counter()
    process = subprocess.Popen(sys.argv[2:], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
print(json.dumps([os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]))
"""


@dataclass(frozen=True)
class Run:
    """Wall and CPU seconds, peak resident bytes; `comparing` seconds of the wall went into the restore's comparison."""

    wall: float
    cpu: float
    resident: int
    comparing: float = 0.0


def run(command: list[str], log: Path) -> Run:
    """Run `command` to its end; its output goes to `log`. A failure ends the benchmark: a wrong run has no time."""
    launcher = [sys.executable, "-S", "-c", _LAUNCHER, str(log), *command]
    done = subprocess.run(launcher, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True)
    status, wall, cpu, resident = json.loads(done.stdout)
    if status:
        raise SystemExit(f"{' '.join(command)} failed with {status}:\n{log.read_text()[-2000:]}")
    return Run(wall, cpu, resident)


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
