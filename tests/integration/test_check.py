"""Checks name what is missing, change nothing, and speak four languages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.restoring import connected, keep


async def kept_shop(start_server: StartServer, folder: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        await js.create_stream({"name": "A", "subjects": ["A.>"], "storage": "file", "retention": "limits"})
        await keep(js, folder)


async def check(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jetkeep", "check", "-s", url, *arguments], capture_output=True, text=True, check=False
    )


DENIED = ["STREAM.SNAPSHOT.*", "STREAM.INFO.*", "CONSUMER.LIST.*", "STREAM.MSG.GET.*", "STREAM.LIST"]


@pytest.mark.parametrize("subject", [*(f"$JS.API.{one}" for one in DENIED), "$JS.SNAPSHOT.ACK.>"])
async def test_a_missing_permission_is_named(start_server: StartServer, subject: str) -> None:
    user = {"user": "u", "password": "p", "permissions": {"publish": {"deny": [subject]}}}
    server = await start_server(None, {"authorization": {"users": [user]}})
    done = await check(server.url, "--user", "u", "--password", "p", "--timeout", "1s")
    assert done.returncode == 20, done.stdout
    assert "nats.permission" in done.stdout
    assert subject.rstrip("*>").rstrip(".") in done.stdout


async def test_check_in_four_shapes(start_server: StartServer, tmp_path: Path) -> None:
    await kept_shop(start_server, tmp_path)
    server = await start_server("2.10.26")
    for shape, begins in (("text", "ok "), ("json", '{"schema": "jetkeep.check/1"'), ("nagios", "JETKEEP OK"), ("prometheus", "# HELP")):  # fmt: skip
        done = await check(server.url, "--restore", "--format", shape, "--repo", str(tmp_path))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(begins)
    old = await check(server.url, "--format", "nagios", "--critical-age", "0", "--repo", str(tmp_path))
    assert old.returncode == 2
    assert old.stdout.startswith("JETKEEP CRITICAL: newest backup")
    gone = await check("nats://127.0.0.1:1", "--format", "nagios")
    assert gone.returncode == 2
