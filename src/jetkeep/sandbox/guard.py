"""Child processes and directories that end with this process, however it ends.

A shell waits on a pipe that only this process holds. When the pipe breaks, whatever the reason (kill -9 included), the
shell kills the child it was told of, with all that it started, and removes the directory it was given. Portable, unlike PR_SET_PDEATHSIG, which
also fires when the *thread* that started the child ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_GUARD = """
while read -r pid; do [ "$pid" = done ] && exit; current=$pid; done
[ -n "$current" ] && kill -9 "-$current"
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
"""
# The child starts as a shell that waits for a word, so the guard knows its process id before it can do anything.
_GATE = 'read -r go && [ "$go" = go ] && exec "$@" </dev/null'


class Guard:
    """Removes `folder` and kills the child when this process is gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def start(
        self, command: list[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a child under guard, in place of the last one; its output is appended to `log`.

        It leads a session of its own, so that Ctrl-C at a terminal reaches this process only, which then ends it.
        """
        with log.open("ab") as output:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "gate", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=env,
                cwd=cwd,
            )
        self._tell(str(child.pid))
        assert child.stdin is not None
        os.write(child.stdin.fileno(), b"go\n")
        child.stdin.close()
        child.stdin = None
        return child

    def forget(self) -> None:
        """The child is gone and reaped: its process id may be somebody else's now."""
        self._tell("")

    def close(self) -> None:
        """Remove the folder and end the guard. The child must be gone."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._tell("done")
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()

    def _tell(self, word: str) -> None:
        assert self._shell.stdin is not None
        os.write(self._shell.stdin.fileno(), f"{word}\n".encode())


@contextmanager
def guarded_directory(prefix: str) -> Iterator[Guard]:
    """A temporary directory (the guard's `folder`) that is removed at the block's end, and when this process is killed."""
    guard = Guard(Path(tempfile.mkdtemp(prefix=prefix)))
    try:
        yield guard
    finally:
        guard.close()
