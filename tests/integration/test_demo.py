"""The demo works twice, shows one screen, leaves nothing, and says so when something differs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jetkeep.cli import root
from jetkeep.config import ConnectionSettings
from jetkeep.demo import story
from jetkeep.jetstream import connect
from jetkeep.restore.run import restore


def demo(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jetkeep", "demo", *arguments],
        env={**os.environ, "TMPDIR": str(folder), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_it_works_twice_on_one_screen_and_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        began = time.monotonic()
        done = demo(tmp_path)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) <= 40
        assert max(map(len, lines)) <= 100
        assert "\x1b" not in done.stdout
        assert done.stdout.count("identical") == 5
        assert "nats-server 2.12.8" in done.stdout
        assert "nats-server 2.15.1" in done.stdout
        assert "jetkeep backup" in done.stdout
        assert time.monotonic() - began < 60
        assert list(tmp_path.iterdir()) == []


def test_its_figures_are_measured(tmp_path: Path) -> None:
    told = json.loads(demo(tmp_path, "--json").stdout)
    assert told["schema"] == "jetkeep.demo/1"
    assert told["equal"] is True
    assert (told["source_version"], told["target_version"], told["drill"]) == ("2.12.8", "2.15.1", "SUCCESSFUL")
    assert told["seconds"].keys() == {"fill", "backup", "restore", "compare", "drill"}
    streams = {one["stream"]: one["after"] for one in told["streams"]}
    assert streams["ORDERS"]["messages"] < streams["ORDERS"]["last_seq"]
    assert streams["JOBS"]["consumers"]["mailer"]["num_ack_pending"] > 0
    assert streams["AUDIT"]["messages"] == 0


def test_without_the_other_version_it_says_so(tmp_path: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "UV_OFFLINE": "1"}
    folder = tmp_path / "tmp"
    folder.mkdir()
    done = demo(folder, JETKEEP_CACHE=str(tmp_path / "cache"), **nowhere)
    assert done.returncode == 0, done.stderr
    assert "both servers are of one version, since nats-server 2.12.8 could not be fetched" in done.stdout
    assert list(folder.iterdir()) == []


def test_what_came_back_different_is_shown_and_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def and_lose_one(repository: Any, js: Any, *rest: Any, **named: Any) -> Any:
        report = await restore(repository, js, *rest, **named)
        async with connect(ConnectionSettings(servers=js.settings.servers)) as other:
            await other.request("STREAM.MSG.DELETE.ORDERS", {"seq": 2999})
        return report

    monkeypatch.setattr(story, "restore", and_lose_one)
    done = CliRunner().invoke(root, ["demo"], standalone_mode=False)
    assert done.return_value == 31, done.output
    assert done.output.count("DIFFERENT") == 1
    assert "bug in jetkeep" in done.output


def test_a_killed_demo_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "jetkeep", "demo"], env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("jetkeep-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
