"""Run a command where it cannot touch this machine: a network, mounts, processes, IPC and control groups of its own.

    python -m tests.kube.private pytest -m e2e_node

What it starts ends with it, however it ends: the kernel kills the last of it, and its mounts, bridges and packet filters
are gone with their namespaces. (After a SIGKILL of this command, its empty control groups go at the next start.) There is no network but its own loopback: build and download before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

#: Set for what runs inside: the control group (below the root of each hierarchy) under which it may make its own.
GROUP = "JETKEEP_PRIVATE_GROUP"
_HIERARCHIES = Path("/sys/fs/cgroup")
#: What a kubelet sets for the whole machine. It finds these values, and leaves the machine's own alone.
_SETTINGS = {
    "vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}  # fmt: skip
_SCRATCH = ("/run", "/var/log", "/var/lib/cni")
_REMOVAL_SECONDS = 20


def inside() -> bool:
    """Whether this process runs there."""
    return GROUP in os.environ


def main(command: list[str]) -> int:
    """Run it and give its exit status; nothing of it is left on return."""
    if command[:1] == ["--inside"]:
        return _inside(command[1:])
    if os.geteuid() or not shutil.which("unshare"):
        sys.stderr.write("namespaces need root and unshare (util-linux)\n")
        return 2
    group = f"jetkeep-{os.getpid()}"
    # What a run left that was killed before it could clean up.
    for left in {one.name for root in _roots() for one in root.glob("jetkeep-*")}:
        if not Path("/proc", left.rpartition("-")[2]).exists():
            _remove_groups(left)
    with tempfile.TemporaryDirectory(prefix="jetkeep-private-") as scratch:
        environment = {**os.environ, GROUP: group, "TMPDIR": scratch}
        unshare = [
            "setpriv", "--pdeathsig=KILL", "unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child", "--propagation=private",
            sys.executable, "-m", "tests.kube.private", "--inside", *command,
        ]  # fmt: skip
        try:
            _make_groups(group)
            child = subprocess.Popen(unshare, env=environment)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: child.kill())
            try:
                return child.wait()
            except KeyboardInterrupt:
                child.kill()
                return child.wait()
        finally:
            _remove_groups(group)


def members(group: str) -> Iterator[int]:
    """Every process in the groups that were made below it, by its number here."""
    for root in _roots():
        for folder, _, _ in os.walk(root / group):
            with contextlib.suppress(OSError):
                yield from map(int, Path(folder, "cgroup.procs").read_text().split())


def _inside(command: list[str]) -> int:
    """As the first process: prepare, start the command, reap whatever loses its parent until it ends."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for folder in _SCRATCH:
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "jetkeep", folder], check=True)
    for folder in ("netns", "lock"):
        Path("/run", folder).mkdir()
    settings = Path("/run/settings")
    settings.mkdir()
    for name, value in _SETTINGS.items():
        file = settings / name.replace("/", "-")
        file.write_text(value + "\n")
        if Path("/proc/sys", name).exists():
            subprocess.run(["mount", "--bind", file, f"/proc/sys/{name}"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    child = subprocess.Popen(command)
    # An interrupt reaches the whole foreground group: the command ends, then this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ended, status = os.wait()
        if ended == child.pid:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _roots() -> list[Path]:
    if (_HIERARCHIES / "cgroup.controllers").exists():
        return [_HIERARCHIES]
    return [one for one in sorted(_HIERARCHIES.iterdir()) if (one / "cgroup.procs").exists() and not one.is_symlink()]


def _make_groups(group: str) -> None:
    for root in _roots():
        made = root / group
        made.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            if root.name == "cpuset" and not (made / name).read_text().strip():
                (made / name).write_text((root / name).read_text())


def _remove_groups(group: str) -> None:
    deadline = time.monotonic() + _REMOVAL_SECONDS
    for root in _roots():
        while (top := root / group).exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(top, topdown=False):
                # The kernel takes a moment to bury what it killed.
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            time.sleep(0.05)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
