"""A backup that dies at any call of the store costs nothing that was committed, and the next one works."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from jetkeep.errors import JetkeepError
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.verify import verify
from tests.repositories import BEGAN, Stream, new_repository, orders, read_back, some_streams, take
from tests.simulation.faulty import CRASHES, Crash, Faults, FaultyStore, at, bury

BEFORE = some_streams()
#: Shares a segment with what is there, and has a new one.
DURING = {"ORDERS": Stream([orders(1, 6), orders(7, 20)]), "new": Stream([orders(1, 3)])}


async def prepared(tmp_path: Path) -> Path:
    await take(await new_repository(tmp_path / "base"), "before", BEFORE)
    return tmp_path / "base"


async def run(root: Path, faults: Faults, label: str = "during") -> FaultyStore:
    store = FaultyStore(root, faults)
    await take(await Repository.open(store), label, DURING)
    return store


async def check(root: Path) -> list[str]:
    """Every committed backup is whole; their labels."""
    repository = await Repository.open(LocalStore(root))
    backups, damage = await repository.backups()
    assert not damage
    for backup in backups:
        for name, stream in (BEFORE if backup.label == "before" else DURING).items():
            assert await read_back(repository, backup, name) == stream.live()
    report = await verify(repository, emit=lambda event: None)
    assert report.sound, report.findings
    return sorted(backup.label for backup in backups)


async def several(root: Path, count: int) -> list[Repository]:
    return [await new_repository(root) for _ in range(count)]


@pytest.mark.parametrize("crash", CRASHES)
async def test_a_backup_that_dies_at_any_call_costs_only_itself(tmp_path: Path, crash: str) -> None:
    base = await prepared(tmp_path)
    shutil.copytree(base, tmp_path / "counted")
    calls = (await run(tmp_path / "counted", lambda call: None)).calls
    assert len(calls) > 12
    for number in range(1, len(calls) + 1):
        root = tmp_path / f"{number}"
        shutil.copytree(base, root)
        try:
            await run(root, at(number, crash))
        except Crash:
            pass
        else:
            pytest.fail("it did not crash")
        labels = await check(root)
        assert labels in (["before"], ["before", "during"])
        await bury(root)
        await take(await Repository.open(LocalStore(root)), "after", DURING)
        assert await check(root) == ["after", *labels]
        shutil.rmtree(root)


@pytest.mark.parametrize(
    "fault", ["fail", "refuse", "lose_answer", "lose_request", "slow", "stale_list", "flip_bit", "cut"]
)
async def test_a_store_that_misbehaves_at_any_call_costs_at_most_the_run(tmp_path: Path, fault: str) -> None:
    base = await prepared(tmp_path)
    shutil.copytree(base, tmp_path / "counted")
    calls = (await run(tmp_path / "counted", lambda call: None)).calls
    verbs = {"slow": {"create"}, "stale_list": {"list"}, "flip_bit": {"read"}, "cut": {"read"}}
    done = 0
    for call in calls:
        if call.verb not in verbs.get(fault, {call.verb}):
            continue
        root = tmp_path / f"{call.number}"
        shutil.copytree(base, root)
        try:
            await run(root, at(call.number, fault))
            done += 1
            expected: tuple[list[str], ...] = (["before", "during"],)
        except JetkeepError:
            expected = (["before"], ["before", "during"])
        assert await check(root) in expected
        shutil.rmtree(root)
    if fault in ("slow", "stale_list"):
        assert done
    if fault in ("lose_answer", "lose_request"):
        creates = sum(call.verb == "create" and not call.key.startswith("leases/") for call in calls)
        assert done >= creates


async def test_a_first_backup_that_dies_leaves_a_place_for_the_next(tmp_path: Path) -> None:
    for number in range(1, 100):
        root = tmp_path / f"{number}"
        try:
            store = FaultyStore(root, at(number, "crash_after"))
            repository = await new_repository(store)
            await take(repository, "first", DURING)
        except Crash:
            if root.exists():
                await bury(root)
            await take(await new_repository(root), "second", DURING)
            assert "second" in await check(root)
        else:
            assert number > 12
            break


async def test_two_writers_of_one_label_commit_one_and_refuse_one(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path / "r")
    results = await asyncio.gather(
        take(repository, "same", {"A": Stream([orders(1, 5)])}),
        take(await new_repository(tmp_path / "r"), "same", {"B": Stream([orders(1, 5)])}),
        return_exceptions=True,
    )
    refused = [one for one in results if isinstance(one, BaseException)]
    assert [getattr(one, "code", one) for one in refused] == ["usage.label-taken"]
    backups, _ = await repository.backups()
    assert [one.label for one in backups] == ["same"]
    assert (await verify(repository, emit=lambda event: None)).sound


async def test_two_writers_whose_labels_came_from_the_same_second_both_commit(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path / "r")
    streams = {"A": Stream([orders(1, 5)]), "empty": Stream([])}
    taken = await asyncio.gather(
        *(
            take(one, "20240110-131500", streams, started=BEGAN + timedelta(milliseconds=after), relabel=True)
            for after, one in enumerate(await several(tmp_path / "r", 4))
        )
    )
    labels = sorted(one.label for one in taken)
    assert labels == ["20240110-131500", "20240110-131500-2", "20240110-131500-3", "20240110-131500-4"]
    backups, _ = await repository.backups()
    for backup in backups:
        assert await read_back(repository, backup, "A") == orders(1, 5)
    assert (await verify(repository, emit=lambda event: None)).sound


async def test_many_writers_of_the_same_segments_share_them(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path / "r")
    await asyncio.gather(
        *(take(one, f"b{id(one)}", {"A": Stream([orders(1, 50)])}) for one in await several(tmp_path / "r", 6))
    )
    segments = [info.key async for info in repository.store.list("sources/") if "/segments/" in info.key]
    assert len(segments) == 1
    assert (await verify(repository, emit=lambda event: None)).sound
