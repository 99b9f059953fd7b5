"""What runs apart from the machine leaves nothing on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A link, a packet filter, a mount, a control group, a process that nobody waits for.
MESS = """
ip link add mess0 type bridge
mount -t tmpfs mess "$1"
mkdir /sys/fs/cgroup/*/$JETKEEP_PRIVATE_GROUP/mess /sys/fs/cgroup/$JETKEEP_PRIVATE_GROUP/mess 2>/dev/null
sleep 12345.6 & echo $! > /sys/fs/cgroup/memory/$JETKEEP_PRIVATE_GROUP/mess/cgroup.procs 2>/dev/null
echo made: $(ip -o link | grep -c mess0) $(grep -c " $1 " /proc/mounts) $(echo $JETKEEP_PRIVATE_GROUP)
exit 7
"""


def test_nothing_of_a_command_is_left(tmp_path: Path) -> None:
    if os.geteuid() or not all(shutil.which(tool) for tool in ("unshare", "setpriv", "ip")):
        pytest.skip("needs root, unshare and ip (iproute2)")
    command = [sys.executable, "-m", "tests.kube.private", "sh", "-c", MESS, "sh", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine grants no namespaces")
    assert done.returncode == 7, done.stderr
    made, links, mounts, group = done.stdout.split()
    assert (made, links, mounts) == ("made:", "1", "1")
    assert not Path("/sys/class/net/mess0").exists()
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert not [one for one in Path("/sys/fs/cgroup").glob(f"**/{group}") if one.exists()]
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "12345.6" not in told
