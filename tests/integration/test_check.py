"""Checks on real servers: every permission by name, nothing changed, four languages."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jetkeep.errors import JetkeepError
from jetkeep.jetstream import JetStream
from jetkeep.readiness import Level, Readiness, probe_server
from jetkeep.restore.decisions import RestoreOptions
from jetkeep.restore.run import restore
from jetkeep.sandbox import Sandbox, SandboxCluster
from tests.conftest import StartServer
from tests.publisher import Publisher
from tests.restoring import connected, consumer, keep, quiet
from tests.versions import VERSIONS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "permissions.md"


def listed(part: str) -> list[str]:
    """The subjects that the page lists to publish to, for a backup or a restore."""
    section = PAGE.read_text().partition(f"## {part}\n")[2].partition("\n## ")[0]
    return re.findall(r"(\$JS\S+)", section.partition("```text")[2].partition("```")[0])


BACKUP, RESTORE = listed("Backup"), listed("Restore")
#: What only some streams need is tried with a server and a stream that do.
ALWAYS = [one for one in BACKUP if "GET" not in one]


def run(*arguments: str, url: str = "", user: str = "") -> subprocess.CompletedProcess[str]:
    login = ["--user", user, "--password", "p"] if user else []
    where = ["-s", url] if url else []
    return subprocess.run(
        [sys.executable, "-m", "jetkeep", *arguments, *where, *login], capture_output=True, text=True, check=False
    )


async def guarded_server(start_server: StartServer, allowed: list[str], version: str | None = None) -> Sandbox:
    """A server with a user `some`, who may publish to these subjects only, and `all`."""
    permissions = {"publish": allowed, "subscribe": ["_INBOX.>"]}
    users = [{"user": "all", "password": "p"}, {"user": "some", "password": "p", "permissions": permissions}]
    return await start_server(version, {"authorization": {"users": users}})


async def fill(js: JetStream, **config: Any) -> None:
    for name in "AB":
        await js.create_stream(
            {"name": name, "subjects": [f"{name}.>"], "storage": "file", "retention": "limits", **config}
        )


async def looked_at(js: JetStream, *, restoring: bool = False, **options: Any) -> Readiness:
    readiness = Readiness()
    await probe_server(js, readiness, restoring=restoring, **options)
    return readiness


def bad(readiness: Readiness) -> dict[str, Level]:
    return {one.name: one.level for one in readiness.probes if one.level}


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_the_page_lists_is_enough(start_server: StartServer, tmp_path: Path, version: str) -> None:
    server = await guarded_server(start_server, BACKUP + RESTORE, version)
    async with connected(server, user="all", password="p") as js:
        await fill(js)
        async with Publisher(server.url, "all", "p") as publisher:
            await publisher.store_all(("A.x", b"x" * 100_000, b"") for _ in range(120))
        await consumer(js, "A", "c")
    async with connected(server, user="some", password="p") as js:
        readiness = await looked_at(js, restoring=True)
        assert (bad(readiness), readiness.status) == ({}, 0)
        kept = await keep(js, tmp_path)
        async with connected(server, user="all", password="p") as admin:
            for name in "AB":
                await admin.delete_stream(name)
        report = await restore(kept.repository, js, kept.manifests, RestoreOptions(), emit=quiet)
        assert not report.failed


@pytest.mark.parametrize("version", ["2.10.26", "2.15.1"])
@pytest.mark.parametrize("subject", ALWAYS)
async def test_each_missing_permission_of_a_backup_is_named(
    start_server: StartServer, version: str, subject: str
) -> None:
    server = await guarded_server(start_server, [one for one in BACKUP if one != subject], version)
    async with connected(server, user="all", password="p") as js:
        await fill(js)
    began = time.monotonic()
    done = run("check", url=server.url, user="some")
    assert done.returncode == 20
    assert subject in done.stdout
    assert "[nats.permission]" in done.stdout
    assert time.monotonic() - began < 4, "it is not known from a time-out"


@pytest.mark.parametrize("subject", RESTORE)
async def test_each_missing_permission_of_a_restore_is_named_when_asked(
    start_server: StartServer, subject: str
) -> None:
    server = await guarded_server(start_server, [one for one in BACKUP + RESTORE if one != subject])
    async with connected(server, user="some", password="p") as js:
        assert bad(await looked_at(js)) == {}
        readiness = await looked_at(js, restoring=True)
    told = {one.name: one.what for one in readiness.probes}
    assert told[f"restore: {subject}"].startswith("not permitted")
    assert bool(readiness.status) is ("PAUSE" not in subject)


async def test_reading_by_message_is_needed_only_where_a_stream_is_read_so(start_server: StartServer) -> None:
    for version, storage, direct, missing in (
        ("2.15.1", "memory", True, []),
        ("2.12.8", "file", True, []),
        ("2.12.8", "memory", False, ["STREAM.MSG.GET"]),
        ("2.12.8", "memory", True, ["STREAM.MSG.GET", "DIRECT.GET"]),
    ):
        server = await guarded_server(start_server, ALWAYS, version)
        async with connected(server, user="all", password="p") as js:
            await fill(js, storage=storage, allow_direct=direct)
        async with connected(server, user="some", password="p") as js:
            assert list(bad(await looked_at(js))) == [f"backup: $JS.API.{one}.*" for one in missing]


async def test_answers_that_nobody_may_receive_are_named(start_server: StartServer) -> None:
    permissions = {"subscribe": {"deny": ["_INBOX.>"]}}
    users = [{"user": "some", "password": "p", "permissions": permissions}]
    server = await start_server(None, {"authorization": {"users": users}})
    done = run("check", url=server.url, user="some")
    assert done.returncode == 20
    assert "FAILED  subscribe to _INBOX.>" in done.stdout


async def test_permissions_for_streams_by_name_are_told_from_none(start_server: StartServer) -> None:
    general = [one for one in BACKUP if "SNAPSHOT.*" not in one]
    server = await guarded_server(start_server, [*general, "$JS.API.STREAM.SNAPSHOT.A", "$JS.API.STREAM.SNAPSHOT.B"])
    async with connected(server, user="all", password="p") as js:
        await fill(js)
    name = "backup: $JS.API.STREAM.SNAPSHOT.*"
    async with connected(server, user="some", password="p") as js:
        readiness = await looked_at(js)
        assert (bad(readiness), readiness.status) == ({name: Level.WARNING}, 0)
    async with connected(server, user="all", password="p") as js:
        await js.create_stream({"name": "C", "subjects": ["C.>"], "storage": "file", "retention": "limits"})
    async with connected(server, user="some", password="p") as js:
        readiness = await looked_at(js)
        assert (bad(readiness), readiness.status) == ({name: Level.CRITICAL}, 20)
        assert bad(await looked_at(js, include=["A", "B"])) == {name: Level.WARNING}
        assert bad(await looked_at(js, exclude=["C*"])) == {name: Level.WARNING}
        with pytest.raises(JetkeepError):
            await looked_at(js, include=["NOT_THERE"])


async def test_nothing_is_changed_and_nothing_left(cluster: SandboxCluster, tmp_path: Path) -> None:
    async with connected(cluster) as js:
        await fill(js, num_replicas=3)
        await consumer(js, "A", "c")
        async with Publisher(cluster.servers[0].url) as publisher:
            await publisher.store_all(("A.x", b"x", b"") for _ in range(20))
        await keep(js, tmp_path)
        before = await _state(js)
        objects = sorted(tmp_path.rglob("*"))
        began = time.monotonic()
        readiness = await looked_at(js, restoring=True)
        assert bad(readiness) == {}
        assert time.monotonic() - began < 4, "a cluster is silent about streams that it does not have"
        done = run("check", "--restore", "--repo", str(tmp_path), url=cluster.url)
        assert done.returncode == 0, done.stdout
        await asyncio.sleep(0.5)
        assert await _state(js) == before
        assert sorted(tmp_path.rglob("*")) == objects


async def _state(js: JetStream) -> list[Any]:
    infos = (await js.stream_list()).infos
    consumers = await js.consumers("A")
    return [
        [(one["config"], one["state"]) for one in infos],
        [(one["config"], one["delivered"], one["num_pending"]) for one in consumers],
    ]


async def test_streams_whose_servers_are_down_are_named(cluster: SandboxCluster) -> None:
    async with connected(cluster) as js:
        for name in "ABC":
            await js.create_stream({"name": name, "subjects": [name], "storage": "file", "retention": "limits"})
        leader = str((await js.stream_info("A"))["cluster"]["leader"])
    down = cluster.servers[int(leader.rpartition("-")[2]) - 1]
    down.kill()
    await cluster.settle()
    alive = next(one for one in cluster.servers if one is not down)
    async with connected(alive) as js:
        readiness = await looked_at(js)
    (what,) = [one.what for one in readiness.probes if one.name == "streams answer"]
    assert "A (" in what
    assert readiness.status == 20


async def test_without_jetstream_it_says_so(start_server: StartServer) -> None:
    server = await start_server(None, {"jetstream": None})
    done = run("check", url=server.url)
    assert done.returncode == 20
    assert "FAILED  JetStream: nobody answers" in done.stdout


async def test_four_languages(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        await fill(js)
        await keep(js, tmp_path)
    begins = {"text": "ok ", "json": '{"schema": "jetkeep.check/1"', "nagios": "JETKEEP OK", "prometheus": "# HELP"}
    for shape, begin in begins.items():
        done = run("check", "--format", shape, "--repo", str(tmp_path), url=server.url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(begin)
    told = json.loads(run("check", "--json", "--repo", str(tmp_path), url=server.url).stdout)
    assert (told["level"], told["status"], told["streams"], told["backups"]) == ("OK", 0, 2, 1)
    metrics = run("check", "--format", "prometheus", "--no-server", "--repo", str(tmp_path)).stdout
    (moment,) = re.findall(r'^jetkeep_newest_backup_timestamp_seconds\{source="nats"\} (\S+)$', metrics, re.MULTILINE)
    assert abs(time.time() - float(moment)) < 60
    assert re.findall(r"^(?!#)\S+(?:\{.*\})? \S+$", metrics, re.MULTILINE)
    for line in metrics.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) .+|[a-z_]+(\{[a-z]+="[^"]*"\})? [0-9.]+', line)


async def test_an_old_backup_is_for_monitoring_and_no_obstacle(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        await keep(js, tmp_path)
    arguments = ("--repo", str(tmp_path), "--critical-age", "0")
    done = run("check", *arguments, "--format", "nagios", url=server.url)
    assert done.returncode == 2
    assert done.stdout.startswith("JETKEEP CRITICAL: newest backup of nats")
    assert run("check", *arguments, url=server.url).returncode == 0
    done = run("check", "--repo", str(tmp_path), "--warn-age", "0", "--format", "nagios", url=server.url)
    assert done.returncode == 1
    other = run("check", *arguments, "--source", "other", "--format", "nagios", "--no-server")
    assert other.stdout.startswith("JETKEEP WARNING: newest backup: there is no complete backup of source other")


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    done = run("check", "--repo", str(tmp_path / "none"), "--timeout", "1s", url="nats://127.0.0.1:1")
    assert done.returncode == 20
    assert "FAILED  connect: no NATS server answers" in done.stdout
    assert "WARNING repository: there is no repository" in done.stdout
    assert run("check", "--format", "nagios", "--timeout", "1s", url="nats://127.0.0.1:1").returncode == 2


async def test_the_repository_s_troubles_are_named(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        await fill(js)
        async with Publisher(server.url) as publisher:
            await publisher.store("A.x", b"x" * 1000)
        await keep(js, tmp_path)
        await keep(js, tmp_path)
    commit = max(tmp_path.glob("backups/*.json"))
    commit.chmod(0o644)
    commit.write_bytes(commit.read_bytes()[:-9])
    done = run("check", "--repo", str(tmp_path), url=server.url)
    assert done.returncode == 0, "the next backup can be made"
    assert f"FAILED  backups are readable: backups/{commit.name} is damaged" in done.stdout
    (tmp_path / "leases").rmdir()
    (tmp_path / "leases").write_bytes(b"")
    done = run("check", "--repo", str(tmp_path), url=server.url)
    assert done.returncode in (12, 13)
    assert "FAILED  repository takes writes" in done.stdout
    only_reading = run("check", "--repo", str(tmp_path), "--no-server")
    assert only_reading.returncode == 0
    assert "WARNING repository takes writes" in only_reading.stdout


async def test_a_failed_and_an_overdue_drill_are_worth_a_look(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        await fill(js)
        await keep(js, tmp_path)
    repository = ("--repo", str(tmp_path))
    assert "newest drill: none yet" in run("check", "--no-server", *repository).stdout
    assert run("drill", *repository, "--run", "exit 1").returncode == 31
    done = run("check", "--no-server", *repository)
    assert "WARNING newest drill: FAILED" in done.stdout
    assert done.returncode == 0
    assert run("drill", *repository).returncode == 0
    assert "ok      newest drill: SUCCESSFUL" in run("check", "--no-server", *repository).stdout
