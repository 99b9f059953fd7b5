"""An expire that dies at any call of the store harms no backup that stays, and the next one finishes its work."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest

from jetkeep.errors import BadDataError, JetkeepError, LockedError, StoreFailedError
from jetkeep.expire import ExpireReport, expire
from jetkeep.repository.documents import Backup
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.pins import pin, pins
from jetkeep.repository.repository import Repository
from jetkeep.retention import Policy
from jetkeep.verify import verify
from tests.repositories import BEGAN, DAY_NS, HOUR_NS, Stream, files, new_repository, orders, put_run, read_back, take
from tests.simulation.faulty import CRASHES, Crash, Faults, FaultyStore, at, bury

FIRST, SECOND, THIRD = orders(1, 5), orders(6, 10), orders(11, 15)
#: Each shares segments with the one before it.
STREAMS = {
    "day1": {"A": Stream([FIRST]), "B": Stream([FIRST])},
    "day2": {"A": Stream([FIRST, SECOND]), "B": Stream([FIRST], dead=[2])},
    "day3": {"A": Stream([SECOND, THIRD]), "B": Stream([])},
}
LAST = Policy(last=1)
#: As if everything were older than the grace period.
NO_GRACE = -HOUR_NS


def silent(_: object) -> None: ...


async def prepared(root: Path) -> Repository:
    repository = await new_repository(root)
    for day, (label, streams) in enumerate(STREAMS.items()):
        await take(repository, label, streams, started=BEGAN + timedelta(days=day))
    return repository


async def run(root: Path, faults: Faults = lambda call: None) -> tuple[FaultyStore, ExpireReport]:
    store = FaultyStore(root, faults)
    repository = await Repository.open(store)
    return store, await expire(repository, LAST, now_ns=time.time_ns, emit=silent, grace_ns=NO_GRACE)


async def check(root: Path) -> list[str]:
    """Every backup that is there is whole; their labels."""
    repository = await Repository.open(LocalStore(root))
    backups, damage = await repository.backups()
    assert not damage
    for backup in backups:
        for name, stream in STREAMS[backup.label].items():
            assert await read_back(repository, backup, name) == stream.live()
    report = await verify(repository, emit=silent)
    assert report.sound, report.findings
    return [backup.label for backup in backups]


async def test_expire_deletes_what_nothing_needs_and_nothing_else(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    before = len(files(tmp_path / "r"))
    dry = await expire(repository, LAST, now_ns=time.time_ns, emit=silent, dry_run=True, grace_ns=NO_GRACE)
    assert len(files(tmp_path / "r")) == before
    _, report = await run(tmp_path / "r")
    assert (report.expired, report.held, report.kept_back) == (["day2", "day1"], [], "")
    assert (report.deleted_objects, report.freed_bytes) == (dry.deleted_objects, dry.freed_bytes)
    assert await check(tmp_path / "r") == ["day3"]
    left = [key for key in files(tmp_path / "r") if key.startswith("sources/")]
    assert len(left) == 4  # two segments, two manifests
    assert not [key for key in files(tmp_path / "r") if key.startswith("leases/")]


@pytest.mark.parametrize("crash", CRASHES)
async def test_an_expire_that_dies_at_any_call_harms_no_backup(tmp_path: Path, crash: str) -> None:
    await prepared(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "counted")
    store, _ = await run(tmp_path / "counted")
    assert len(store.calls) > 20
    whole = set(files(tmp_path / "counted"))
    for number in range(1, len(store.calls) + 1):
        root = tmp_path / f"{number}"
        shutil.copytree(tmp_path / "base", root)
        with pytest.raises(Crash):
            await run(root, at(number, crash))
        assert "day3" in await check(root)
        await bury(root)
        await run(root)
        assert await check(root) == ["day3"]
        assert {key for key in files(root) if not key.endswith(".partial")} == whole
        shutil.rmtree(root)


@pytest.mark.parametrize("fault", ["fail", "refuse", "stale_list", "flip_bit", "cut"])
async def test_a_store_that_misbehaves_at_any_call_harms_no_backup(tmp_path: Path, fault: str) -> None:
    await prepared(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "counted")
    store, _ = await run(tmp_path / "counted")
    for call in store.calls:
        root = tmp_path / f"{call.number}"
        shutil.copytree(tmp_path / "base", root)
        with contextlib.suppress(JetkeepError):
            await run(root, at(call.number, fault))
        assert "day3" in await check(root)
        shutil.rmtree(root)


async def test_while_a_backup_is_at_work_nothing_unnamed_is_deleted(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    async with lease(repository.store, "backup", now_ns=time.time_ns):
        orphan = await put_run(repository, "nats", "A", STREAMS["day1"]["A"].timeline, orders(50, 60))
        _, report = await run(tmp_path / "r")
    assert report.expired
    assert report.kept_back
    assert report.deleted_objects == 0
    assert orphan.key in files(tmp_path / "r")
    _, report = await run(tmp_path / "r")
    assert not report.kept_back
    assert orphan.key not in files(tmp_path / "r")


async def test_young_objects_that_nothing_names_stay(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    orphan = await put_run(repository, "nats", "A", STREAMS["day1"]["A"].timeline, orders(50, 60))
    await expire(repository, LAST, now_ns=time.time_ns, emit=silent)
    assert orphan.key in files(tmp_path / "r")


async def test_what_is_read_stays_until_the_next_run(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    async with lease(repository.store, "read", now_ns=time.time_ns, labels=["day1"]):
        _, report = await run(tmp_path / "r")
        assert (report.expired, report.held) == (["day2"], ["day1"])
        assert await check(tmp_path / "r") == ["day1", "day3"]
    _, report = await run(tmp_path / "r")
    assert report.expired == ["day1"]


async def test_a_reader_that_came_just_before_its_backup_went_keeps_what_it_needs(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    backup = await repository.read_backup("day1")
    entered = asyncio.Event()
    leave = asyncio.Event()

    async def reader() -> None:
        async with lease(LocalStore(tmp_path / "r"), "read", now_ns=time.time_ns, labels=["day1"]):
            entered.set()
            await leave.wait()

    class Store(FaultyStore):
        async def delete(self, key: str) -> None:
            if key == "backups/day1.json":
                self.reader = asyncio.create_task(reader())
                await entered.wait()
            await super().delete(key)

    store = Store(tmp_path / "r")
    report = await expire(await Repository.open(store), LAST, now_ns=time.time_ns, emit=silent, grace_ns=NO_GRACE)
    assert sorted(report.expired) == ["day1", "day2"]
    for name, stream in STREAMS["day1"].items():
        assert await read_back(repository, backup, name) == stream.live()
    leave.set()
    await store.reader


async def test_a_backup_that_commits_between_the_two_looks_keeps_what_it_found(tmp_path: Path) -> None:
    """It uses an old segment that nothing else names, and is gone before the second look at the leases."""
    repository = await prepared(tmp_path / "r")
    await put_run(repository, "nats", "A", STREAMS["day1"]["A"].timeline, orders(50, 60))
    between = {"A": Stream([orders(50, 60)])}
    finish = asyncio.Event()
    begun = asyncio.Event()
    taken: list[Backup] = []

    class Slow(LocalStore):
        async def sync(self) -> None:
            begun.set()
            await finish.wait()
            await super().sync()

    async def writer() -> None:
        taken.append(await take(await Repository.open(Slow(tmp_path / "r")), "between", between))

    class Store(FaultyStore):
        async def delete(self, key: str) -> None:
            if key.startswith("backups/"):
                finish.set()
                await task
            await super().delete(key)

    task = asyncio.create_task(writer())
    await begun.wait()
    report = await expire(
        await Repository.open(Store(tmp_path / "r")), LAST, now_ns=time.time_ns, emit=silent, grace_ns=NO_GRACE
    )
    assert report.expired
    assert not report.kept_back
    assert await read_back(repository, taken[0], "A") == orders(50, 60)


async def test_a_backup_waits_for_an_expire_at_work(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    async with lease(repository.store, "expire", now_ns=time.time_ns):
        with pytest.raises(LockedError):
            async with lease(repository.store, "backup", now_ns=time.time_ns) as held:
                await held.wait_for_expire(patience_s=0.1)
        waiting = asyncio.create_task(take(repository, "later", {"A": Stream([FIRST])}))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    await waiting


async def test_a_second_expire_stops(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    async with lease(repository.store, "expire", now_ns=time.time_ns):
        with pytest.raises(LockedError):
            await run(tmp_path / "r")
    assert await check(tmp_path / "r") == list(STREAMS)


async def test_pinned_backups_stay_also_when_the_pin_is_damaged(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    await pin(repository, "day1", "before the migration", now_ns=time.time_ns)
    await pin(repository, "day2", "", now_ns=time.time_ns)
    path = tmp_path / "r" / "pins" / "day2.json"
    path.write_bytes(path.read_bytes()[:-5])
    assert set(await pins(repository)) == {"day1", "day2"}
    _, report = await run(tmp_path / "r")
    assert report.expired == []
    assert await check_labels(tmp_path / "r") == list(STREAMS)


async def check_labels(root: Path) -> list[str]:
    return [one.label for one in (await (await Repository.open(LocalStore(root))).backups())[0]]


async def test_nothing_expires_while_a_backup_or_manifest_that_stays_is_damaged(tmp_path: Path) -> None:
    repository = await prepared(tmp_path / "r")
    entry = (await repository.read_backup("day3")).streams[0]
    assert entry.manifest
    for key in (entry.manifest.key, "backups/day3.json", "backups/day1.json"):
        shutil.copytree(tmp_path / "r", tmp_path / "bad")
        path = tmp_path / "bad" / key
        path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
        before = files(tmp_path / "bad")
        with pytest.raises(BadDataError):
            await run(tmp_path / "bad")
        assert files(tmp_path / "bad") == before
        shutil.rmtree(tmp_path / "bad")


@pytest.mark.parametrize("days", [-2, 2])
async def test_nothing_expires_by_a_clock_that_is_not_the_stores(tmp_path: Path, days: int) -> None:
    repository = await prepared(tmp_path / "r")
    with pytest.raises(StoreFailedError) as caught:
        await expire(repository, LAST, now_ns=lambda: time.time_ns() + days * DAY_NS, emit=silent)
    assert caught.value.code == "store.clock"
    assert await check(tmp_path / "r") == list(STREAMS)


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    await prepared(tmp_path / "r")
    others = ["notes.txt", "sources/notes.txt", "sources/nats/A/x/manifests/readme.json.zst", "backups/old/x.json"]
    for name in others:
        path = tmp_path / "r" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    await run(tmp_path / "r")
    assert set(others) <= set(files(tmp_path / "r"))
