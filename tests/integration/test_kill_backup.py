"""Backups that are killed, and sources that go away or change under them: never a half backup, never a changed source."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jetkeep.capture.run import BackupOptions, BackupReport, back_up
from jetkeep.catalog import find_backup
from jetkeep.errors import BadDataError, ServerError
from jetkeep.jetstream import JetStream, snapshot
from jetkeep.model import Event, Message, StreamAdvanced, StreamBegan
from jetkeep.repository import layout
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.sandbox import Sandbox, SandboxCluster
from tests.backing_up import (
    at_once,
    fill,
    manifest_of,
    opened,
    rows_of,
    run,
    sequences,
    source_facts,
    start,
    told,
    tree,
    wait_for,
    whole_backups,
)
from tests.conftest import StartServer
from tests.publisher import Publisher, PublishError
from tests.restoring import connected, consumer, fetch
from tests.versions import NEWEST

DAY_S = 86400


async def shop(server: Sandbox) -> None:
    """Streams that are read in both ways, with consumers in mid-delivery."""
    await fill(server.url, "BIG", 8)
    await fill(server.url, "SMALL", 1, retention="workqueue")
    await fill(server.url, "MEMORY", 1, storage="memory")
    async with connected(server) as js:
        for stream in ("BIG", "SMALL"):
            await consumer(js, stream, "reader", ack_wait=3600 * 10**9)
            await fetch(js, stream, "reader", 3, acks=[1])


def kill_after(files: int, pause_s: float, *, repo: Path, url: str) -> bool:
    """Kill a backup once it has made so many files; false when it was quicker."""
    before = tree(repo)
    seen: set[str] = set()
    process = start("backup", "-q", repo=repo, url=url)

    def made() -> bool:
        seen.update(tree(repo) - before)
        return len(seen) >= files

    killed = wait_for(made, process)
    if killed:
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return killed and process.returncode == -signal.SIGKILL


def make_old(repo: Path) -> None:
    """As if a day and more had gone by."""
    for path in map(Path, tree(repo)):
        if "leases" not in path.parts or path.suffix == ".partial":
            os.utime(path, (time.time() - 2 * DAY_S,) * 2)


@pytest.mark.parametrize("version", ["2.10.26", "2.14.6", NEWEST])
async def test_a_backup_that_is_killed_leaves_none_or_a_whole_one_and_the_source_as_it_was(
    start_server: StartServer, tmp_path: Path, version: str
) -> None:
    server = await start_server(version)
    await shop(server)
    repo, chance, killed = tmp_path / "repo", random.Random(version), 0
    async with connected(server) as js:
        before = await source_facts(js)
        for files in range(1, 15, 2):
            killed += kill_after(files, chance.random() * 0.02, repo=repo, url=server.url)
            if (repo / "jetkeep.json").exists():
                for backup in (await whole_backups(repo)).values():
                    assert backup.status == "complete"
        assert killed >= 4
        assert await source_facts(js) == before
        done = run("backup", "-q", "--label", "after", "--json", repo=repo, url=server.url)
        assert await source_facts(js) == before
    backups = await whole_backups(repo)
    assert told(done)["status"] == "complete"
    assert {one.name: one.messages for one in backups["after"].streams} == {"BIG": 32, "MEMORY": 4, "SMALL": 3}
    make_old(repo)
    run("expire", "--keep-last", "1", "-q", repo=repo)
    left = await whole_backups(repo)
    assert set(left) == {"after"}
    manifests = [await manifest_of(repo, left["after"], one.name) for one in left["after"].streams]
    named = {ref.key for one in manifests for ref in one.segments}
    named |= {one.manifest.key for one in left["after"].streams if one.manifest}
    there = {Path(one).relative_to(repo).as_posix() for one in tree(repo)}
    assert {key for key in there if not key.startswith(layout.RUNS)} == {
        *named,
        "jetkeep.json",
        "backups/after.json",
    }


async def test_interrupting_a_backup_ends_it_in_order(server: Sandbox, tmp_path: Path) -> None:
    await fill(server.url, "BIG", 24)
    for name in (signal.SIGINT, signal.SIGTERM):
        process = start("backup", "--json", repo=tmp_path / "repo", url=server.url)
        assert wait_for(lambda: bool(list((tmp_path / "repo").glob("leases/*.json"))), process)
        process.send_signal(name)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 130, out
        assert json.loads(out)["error"]["code"] == "interrupted"
        assert not list((tmp_path / "repo").glob("leases/*"))
        assert not await whole_backups(tmp_path / "repo")


async def test_a_server_that_dies_under_the_command_is_exit_20_and_commits_nothing(
    server: Sandbox, tmp_path: Path
) -> None:
    await fill(server.url, "BIG", 100)
    repo = tmp_path / "repo"
    async with connected(server) as js:
        before = await source_facts(js)
    process = start("backup", "--json", repo=repo, url=server.url)
    assert wait_for(lambda: any("/segments/" in one for one in tree(repo)), process)
    # It stands still while the server dies, so what it has is certainly not all.
    process.send_signal(signal.SIGSTOP)
    server.kill()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 20, err
    assert json.loads(out)["schema"] == "jetkeep.error/1"
    assert not await whole_backups(repo)
    await server.start()
    async with connected(server) as js:
        assert _without_times(await source_facts(js)) == _without_times(before)
    run("backup", "-q", repo=repo, url=server.url)
    assert [one.status for one in (await whole_backups(repo)).values()] == ["complete"]


def _without_times(facts: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    return {name: {key: value for key, value in one.items() if key != "cluster"} for name, one in facts.items()}


class Meanwhile:
    """Does something, once, at the first event of a kind of a stream: of `StreamAdvanced`, when the first rows were read."""

    def __init__(self, stream: str, action: Callable[[], object], at: type[Event] = StreamAdvanced) -> None:
        self._stream, self._action, self._at = stream, action, at
        self.done = False

    def __call__(self, event: Event) -> None:
        if not self.done and isinstance(event, self._at) and event.stream == self._stream:
            self.done = True
            self._action()


async def backup_with(js: JetStream, repo: Path, meanwhile: Meanwhile, *streams: str) -> BackupReport:
    repository = await Repository.open_or_create(LocalStore(repo), now_ns=time.time_ns)
    report = await back_up(js, repository, BackupOptions(include=streams), emit=meanwhile, now_ns=time.time_ns)
    assert meanwhile.done
    return report


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_server_that_goes_away_in_the_middle_is_an_error_and_nothing_is_committed(
    server: Sandbox, tmp_path: Path, how: str
) -> None:
    await fill(server.url, "BIG", 64)
    async with connected(server, timeout_s=2.0) as js:
        meanwhile = Meanwhile("BIG", server.kill if how == "killed" else server.pause)
        with pytest.raises(ServerError) as failed:
            await backup_with(js, tmp_path, meanwhile)
        assert failed.value.exit_status == 20
        server.resume()
    assert not await whole_backups(tmp_path)


async def test_what_was_read_before_the_server_died_is_kept_as_a_partial_backup(
    server: Sandbox, tmp_path: Path
) -> None:
    await fill(server.url, "FIRST", 60)  # alone, because it is so large; then the next
    await fill(server.url, "SECOND", 50)
    async with connected(server, timeout_s=2.0) as js:
        report = await backup_with(js, tmp_path, Meanwhile("SECOND", server.kill))
    assert set(report.failed) == {"SECOND"}
    (backup,) = (await whole_backups(tmp_path)).values()
    assert backup.status == "partial"
    assert [(one.name, one.status) for one in backup.streams] == [("FIRST", "complete"), ("SECOND", "failed")]
    assert backup.streams[1].error
    assert len(await rows_of(tmp_path, await manifest_of(tmp_path, backup, "FIRST"))) == 240


async def original(server: Sandbox) -> dict[int, Message]:
    await fill(server.url, "S", 48)
    async with connected(server) as js:
        info = await js.stream_info("S")
        return {one.seq: one async for one in js.messages("S", 1, info["state"]["last_seq"], info["config"])}


async def delete(publisher: Publisher) -> None:
    await publisher.ask("$JS.API.STREAM.DELETE.S")


async def purge(publisher: Publisher) -> None:
    await publisher.ask("$JS.API.STREAM.PURGE.S")


async def purge_most(publisher: Publisher) -> None:
    await publisher.ask("$JS.API.STREAM.PURGE.S", {"seq": 150})


async def create_anew(publisher: Publisher) -> None:
    await delete(publisher)
    await publisher.create("S")
    await publisher.store_all((f"S.{at}", b"of the next life", b"") for at in range(20))


async def publish_more(publisher: Publisher) -> None:
    await publisher.store_all((f"S.{at}", b"later", b"") for at in range(20))


CHANGES: dict[str, Callable[[Publisher], Awaitable[None]]] = {
    "deleted": delete,
    "purged": purge,
    "purged in part": purge_most,
    "created anew": create_anew,
    "published to": publish_more,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("version", ["2.10.26", NEWEST])
async def test_a_stream_that_changes_in_the_middle_is_captured_as_it_was_or_not_at_all(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, change: str
) -> None:
    monkeypatch.setattr(snapshot, "QUIET_S", 0.5)
    monkeypatch.setattr(snapshot, "STALL_S", 3.0)
    server = await start_server(version)
    rows = await original(server)

    async def act() -> None:
        async with Publisher(server.url) as publisher:
            await CHANGES[change](publisher)

    async with connected(server) as js:
        created = (await js.stream_info("S"))["created"]
        try:
            report = await backup_with(js, tmp_path, Meanwhile("S", lambda: at_once(act)))
        except (ServerError, BadDataError):
            assert change != "published to"
            assert not await whole_backups(tmp_path)
            return
    (backup,) = (await whole_backups(tmp_path)).values()
    assert backup == report.backup
    manifest = await manifest_of(tmp_path, backup, "S")
    found = await rows_of(tmp_path, manifest)
    # Whatever is there is of this life and as it was; what is not there was removed, and the manifest says so.
    assert manifest.created_at == created
    assert all(rows[row.seq] == row for row in found)
    missing = rows.keys() - {row.seq for row in found}
    inside = {seq for seq in missing if manifest.first_seq <= seq <= manifest.last_seq}
    assert inside == sequences(manifest.deleted)
    if missing:
        assert change.startswith("purged")
        assert manifest.notes


@pytest.mark.parametrize("storage", ["file", "memory"])
@pytest.mark.parametrize("version", ["2.10.26", NEWEST])
async def test_a_stream_that_is_created_anew_right_after_it_was_listed_is_not_taken_for_the_one_before(
    start_server: StartServer, tmp_path: Path, version: str, storage: str
) -> None:
    server = await start_server(version)
    await fill(server.url, "S", 1, storage=storage)
    await fill(server.url, "T", 1)

    async def act() -> None:
        async with Publisher(server.url) as publisher:
            await delete(publisher)
            await publisher.create("S", storage=storage)
            await publisher.store_all((f"S.{at}", b"of the next life", b"") for at in range(20))

    async with connected(server) as js:
        report = await backup_with(js, tmp_path, Meanwhile("S", lambda: at_once(act), StreamBegan))
        assert set(report.failed) == {"S"}
        assert report.failed["S"].code == "nats.stream-recreated"
    run("backup", "-q", "--label", "after", repo=tmp_path, url=server.url)
    manifest = await manifest_of(tmp_path, (await whole_backups(tmp_path))["after"], "S")
    assert [row.payload for row in await rows_of(tmp_path, manifest)] == [b"of the next life"] * 20


async def until_heard(publisher: Publisher, subject: str) -> None:
    """Store one message as soon as the cluster's routes know who wants it: a new stream's subject reaches them a moment later."""
    for _ in range(100):
        with contextlib.suppress(PublishError):  # 503: nobody yet
            await publisher.store_all([(subject, b"", b"")])
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"nobody hears {subject}")


async def until_led(cluster: SandboxCluster, stream: str, *, not_by: str) -> None:
    """The stream's own leader is elected after the cluster's."""
    for _ in range(100):
        async with connected(cluster) as js:
            with contextlib.suppress(ServerError):
                info = await js.stream_info(stream)
                if info.get("cluster", {}).get("leader") not in (None, "", not_by):
                    return
        await asyncio.sleep(0.1)
    raise AssertionError(f"nobody leads {stream}")


async def test_a_stream_of_a_dead_server_fails_alone(cluster: SandboxCluster, tmp_path: Path) -> None:
    async with connected(cluster) as js:
        await js.create_stream({"name": "SAFE", "subjects": ["safe.>"], "num_replicas": 3, "storage": "file"})
        await js.create_stream({"name": "ALONE", "subjects": ["alone.>"], "num_replicas": 1, "storage": "file"})
        leader = (await js.stream_info("ALONE"))["cluster"]["leader"]
    async with Publisher(cluster.url) as publisher:
        await until_heard(publisher, "safe.0")
        await publisher.store_all((f"safe.{at}", b"s%d" % at, b"") for at in range(1, 100))
    run("backup", "-q", "--label", "whole", repo=tmp_path, url=cluster.url)
    next(one for at, one in enumerate(cluster.servers, 1) if f"node-{at}" == leader).kill()
    await cluster.settle()
    await until_led(cluster, "SAFE", not_by=leader)
    url = ",".join(one.url for one in cluster.servers if one.running)
    done = run("backup", "-q", "--label", "partial", "--json", repo=tmp_path, url=url, check=3)
    document = told(done)
    assert document["status"] == "partial"
    assert {one["stream"]: one["status"] for one in document["streams"]} == {"SAFE": "complete", "ALONE": "failed"}
    backups = await whole_backups(tmp_path)
    assert backups["partial"].status == "partial"
    assert len(await rows_of(tmp_path, await manifest_of(tmp_path, backups["partial"], "SAFE"))) == 100
    # A backup that lacks a stream is never taken for the newest whole one.
    assert (await find_backup(await opened(tmp_path), None)).label == "whole"
    refused = run("cat", "ALONE", "--backup", "partial", repo=tmp_path, check=2)
    assert "offline" in refused.stderr


@pytest.mark.parametrize("version", ["2.10.26", "2.14.6"])
async def test_a_snapshot_of_somebody_else_is_waited_for(
    start_server: StartServer, tmp_path: Path, version: str
) -> None:
    """Servers up to 2.14 send one at a time; also the one of a backup that was killed a moment ago."""
    server = await start_server(version)
    await fill(server.url, "S", 48)
    async with connected(server) as other, connected(server) as js:
        repository = await Repository.open_or_create(LocalStore(tmp_path), now_ns=time.time_ns)
        async with other.snapshot("S") as snapshot:
            await anext(snapshot)
            begun = asyncio.Event()
            working = asyncio.create_task(
                back_up(js, repository, BackupOptions(), emit=lambda event: begun.set(), now_ns=time.time_ns)
            )
            await begun.wait()
            await asyncio.wait({working}, timeout=1)
            assert not working.done()
        assert (await working).backup.status == "complete"
    await whole_backups(tmp_path)


@pytest.mark.parametrize("version", ["2.14.6", NEWEST])
async def test_two_backups_at_once_are_both_true(start_server: StartServer, tmp_path: Path, version: str) -> None:
    server = await start_server(version)
    await shop(server)
    both = [start("backup", "--json", "-q", repo=tmp_path, url=server.url) for _ in range(2)]
    documents = [json.loads(one.communicate(timeout=60)[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0], documents
    backups = await whole_backups(tmp_path)
    assert set(backups) == {one["label"] for one in documents}
    assert len(backups) == 2
    assert len({tuple(one.fingerprint for one in backup.streams) for backup in backups.values()}) == 1


async def test_two_backups_at_once_of_one_label_are_one_and_a_refusal(server: Sandbox, tmp_path: Path) -> None:
    await shop(server)
    both = [start("backup", "--json", "-q", "--label", "same", repo=tmp_path, url=server.url) for _ in range(2)]
    documents = [json.loads(one.communicate(timeout=60)[0]) for one in both]
    assert sorted(one.returncode for one in both) == [0, 2], documents
    assert [one["error"]["code"] for one in documents if "error" in one] == ["usage.label-taken"]
    assert set(await whole_backups(tmp_path)) == {"same"}
