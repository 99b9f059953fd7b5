"""The real tool is killed (SIGKILL) at its n-th call of the server, before or after the server got it: for every n."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from jetkeep.errors import ServerError
from jetkeep.jetstream import JetStream
from jetkeep.model import JsonDict
from jetkeep.restore.stage import CLAIM
from jetkeep.sandbox import Sandbox
from tests.backing_up import run, source_facts, start, told, whole_backups
from tests.conftest import StartServer
from tests.killing_proxy import KillingProxy
from tests.matrix.looking import Look, look
from tests.publisher import Publisher
from tests.restoring import HOUR, connected, consumer, fetch
from tests.versions import NEWEST

#: Kills in the default suite; they are spread evenly over all calls, every second one after the server got the call.
KILLS = 7
OLDEST = "2.10.26"
Spot = tuple[int, bool]


async def account(server: Sandbox) -> dict[str, Look]:
    """Streams that are read and written in each way, small, but for one of some chunks; what the API tells of each."""
    names = ["CHUNKS", "EMPTY", "WORK"]
    chance = random.Random(1)
    async with Publisher(server.url) as publisher:
        await publisher.create("CHUNKS")
        await publisher.create("EMPTY")
        await publisher.create("WORK", retention="workqueue")
        await publisher.store_all((f"CHUNKS.{at % 3}", chance.randbytes(100_000), b"") for at in range(16))
        await publisher.delete("CHUNKS", 3, 4)
        await publisher.store_all((f"WORK.{at}", b"w%d" % at, b"") for at in range(20))
        if server.version == NEWEST:
            names.append("MEMORY")
            await publisher.create("MEMORY", storage="memory")
            await publisher.store_all((f"MEMORY.{at}", b"m%d" % at, b"") for at in range(20))
    async with connected(server) as js:
        for name in ("CHUNKS", "WORK"):
            await consumer(js, name, "reader", ack_wait=HOUR)
            await fetch(js, name, "reader", 4, acks=(0, 2))
        return {name: await look(js, name) for name in names}


async def kill_at(proxy: KillingProxy, spot: Spot, *words: str, repo: Path, only: str = "") -> list[str]:
    """Run `jetkeep` and kill it at this call; its calls. It was quicker when it was not killed."""
    process = start(*words, "-q", repo=repo, url=proxy.url)
    proxy.arm(process, spot[0], passed_on=spot[1], only=only)
    _, said = await asyncio.to_thread(process.communicate, timeout=100)
    assert process.returncode == (-signal.SIGKILL if proxy.killed else 0), said
    return list(proxy.calls)


def spots(calls: int, kills: int | None) -> list[Spot]:
    """Where to kill: everywhere, in both ways, or at so many calls."""
    if kills is None:
        return [(at, passed_on) for at in range(1, calls + 1) for passed_on in (False, True)]
    return [(1 + at * (calls - 1) // (kills - 1), bool(at % 2)) for at in range(kills)]


async def backups_are_killed(start_server: StartServer, folder: Path, version: str, kills: int | None) -> None:
    server = await start_server(version)
    seen = await account(server)
    async with connected(server) as js, KillingProxy(server.url) as proxy:
        before = await source_facts(js)
        calls = await kill_at(proxy, (0, False), "backup", repo=folder / "whole")
        for at, passed_on in spots(len(calls), kills):
            repo = folder / f"{at}-{passed_on}"
            made = await kill_at(proxy, (at, passed_on), "backup", repo=repo)
            where = f"killed at {made[-1]}, call {at} of about {len(calls)}, passed on: {passed_on}"
            assert await source_facts(js) == before, where
            if (repo / "jetkeep.json").exists():
                backups = await whole_backups(repo)
                assert all(one.status == "complete" for one in backups.values()), where
                assert not (proxy.killed and backups), where
            done = told(run("backup", "--label", "next", "-q", "--json", repo=repo, url=server.url))
            assert done["status"] == "complete", where
            found = {one.name: one.messages for one in (await whole_backups(repo))["next"].streams}
            assert found == {name: one.numbers[0] for name, one in seen.items()}, where
            assert await source_facts(js) == before, where


async def others(js: JetStream) -> dict[str, Look]:
    """Streams of other people: one that is used, and one that another repository's restore has not yet opened."""
    await js.create_stream({"name": "OTHERS", "subjects": ["others"], "storage": "file"})
    await js.ask("others", b"of others")
    unfinished = {"subjects": ["_restore.FOREIGN"], "metadata": {CLAIM: "0" * 32 + "/1234"}}
    await js.create_stream({"name": "FOREIGN", "storage": "file", **unfinished})
    return {name: await look(js, name) for name in ("OTHERS", "FOREIGN")}


async def settled(js: JetStream, name: str) -> JsonDict | None:
    """The stream once the server has done what the killed process had asked of it; None when there is none."""
    looks: list[JsonDict | None] = []
    while len(looks) < 3 or any(one != looks[-1] for one in looks[-3:]):
        info = await js.find_stream(name)
        looks.append(info and {**info, "ts": ""})
        await asyncio.sleep(0.05)
    return looks[-1]


async def closed_or_whole(js: JetStream, seen: dict[str, Look]) -> set[str]:
    """Each stream is not there, or takes no publishes, or is as it was; the names of those that are there and closed."""
    closed = set()
    for name, was in seen.items():
        info = await settled(js, name)
        if info is not None and CLAIM not in (info["config"].get("metadata") or {}):
            found = await look(js, name)
            assert (found.config, found.numbers, found.messages) == (was.config, was.numbers, was.messages), name
            assert found.deliveries == was.deliveries, name
            continue
        with pytest.raises(ServerError, match="nobody answers"):
            await js.ask(f"{name}.1", b"intruder", timeout_s=2)
        if info is not None:
            closed.add(name)
    return closed


async def restores_are_killed(start_server: StartServer, folder: Path, version: str, kills: int | None) -> None:
    source, target = await start_server(version), await start_server(version)
    seen = await account(source)
    run("backup", "-q", repo=folder, url=source.url)
    async with connected(target) as js, KillingProxy(target.url) as proxy:
        foreign = await others(js)
        calls = await kill_at(proxy, (0, False), "restore", repo=folder)
        removed: set[str] = set()
        for at, passed_on in spots(len(calls), kills):
            for name in seen:
                await js.delete_stream(name)
            made = await kill_at(proxy, (at, passed_on), "restore", repo=folder)
            where = f"killed at {made[-1]}, call {at} of about {len(calls)}, passed on: {passed_on}"
            closed = await closed_or_whole(js, seen)
            again = run("restore", "--if-exists", "skip", "-q", "--json", repo=folder, url=target.url)
            report = told(again)["streams"]
            taken_away = {one["stream"] for one in report if any("unfinished" in note for note in one["notes"])}
            # Its opening may have been on its way to the server while we looked.
            opened = {one["stream"] for one in report if one["status"] == "skipped"}
            assert closed <= taken_away | opened, where
            removed |= taken_away
            for name, was in (seen | foreign).items():
                assert await look(js, name) == was, f"{name}: {where}"
    assert removed


async def test_a_backup_that_is_killed_at_a_call_changes_nothing_and_the_next_one_works(
    start_server: StartServer, tmp_path: Path
) -> None:
    await backups_are_killed(start_server, tmp_path, NEWEST, KILLS)


async def test_a_restore_that_is_killed_at_a_call_leaves_nothing_open_and_the_next_one_ends_it(
    start_server: StartServer, tmp_path: Path
) -> None:
    await restores_are_killed(start_server, tmp_path, NEWEST, KILLS)


async def test_consumers_that_a_killed_restore_left_paused_are_woken_and_only_these(
    start_server: StartServer, tmp_path: Path
) -> None:
    source, target = await start_server(), await start_server()
    seen = await account(source)
    run("backup", "-q", repo=tmp_path, url=source.url)
    async with connected(target) as js, KillingProxy(target.url) as proxy:
        waking = "PUB $JS.API.CONSUMER.PAUSE.CHUNKS.reader"
        await kill_at(proxy, (1, False), "restore", "CHUNKS", repo=tmp_path, only=waking)
        assert proxy.killed
        run("restore", "WORK", "-q", repo=tmp_path, url=target.url)
        await js.request("CONSUMER.PAUSE.WORK.reader", {"pause_until": "2199-01-01T00:00:00.5Z"})
        assert [one["paused"] for name in ("CHUNKS", "WORK") for one in await js.consumers(name)] == [True, True]
        again = run("restore", "--if-exists", "skip", "-q", "--json", repo=tmp_path, url=target.url)
        notes = {one["stream"]: one["notes"] for one in told(again)["streams"]}
        assert any("consumer reader was still paused" in note for note in notes["CHUNKS"])
        assert not any("reader" in note for note in notes["WORK"])
        assert await look(js, "CHUNKS") == seen["CHUNKS"]
        assert (await js.consumers("WORK"))[0]["paused"]


@pytest.mark.patient
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
async def test_a_backup_is_killed_at_every_call(start_server: StartServer, tmp_path: Path, version: str) -> None:
    await backups_are_killed(start_server, tmp_path, version, None)


@pytest.mark.patient
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
async def test_a_restore_is_killed_at_every_call(start_server: StartServer, tmp_path: Path, version: str) -> None:
    await restores_are_killed(start_server, tmp_path, version, None)
