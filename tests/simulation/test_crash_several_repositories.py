"""One of two repositories fails, or the run dies, at any call: the other has the backup, and the next run makes both equal."""

from __future__ import annotations

import secrets
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest

from jetkeep.errors import JetkeepError
from jetkeep.replicate import catch_up
from jetkeep.repository.fanout import FanOut, Member
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.verify import verify
from tests.repositories import BEGAN, Stream, backup_of, new_repository, orders, put, read_back, some_streams
from tests.restoring import quiet
from tests.simulation.faulty import CRASHES, Crash, Faults, FaultyStore, at, bury

BEFORE = some_streams()
#: Shares a segment with what is there, and has a new one.
DURING = {"ORDERS": Stream([orders(1, 6), orders(7, 20)]), "new": Stream([orders(1, 3)])}
NAMES = ("local", "offsite")
FAULTS = ("fail", "refuse", "lose_answer", "lose_request", "stale_list", "flip_bit", "cut")
#: Calls that are tried by default: every so many-th.
STEP = 5


def none(_: object) -> None:
    """No fault."""


async def back_up(root: Path, label: str, days: int, **faults: Faults) -> dict[str, FaultyStore]:
    """Write a backup into both repositories as capture does."""
    stores = {name: FaultyStore(root / name, faults.get(name, none)) for name in NAMES}
    members = [Member(name, name, None, name == "local") for name in NAMES]
    into = await FanOut.of(members, lambda member: new_repository(stores[member.name]))
    began = BEGAN + timedelta(days=days)
    async with into.at_work(time.time_ns):
        assert await into.free_label(label, began) == label
        await into.newest_entries("nats")
        streams = BEFORE if label == "before" else DURING
        entries = [await put(into, "nats", label, name, one) for name, one in sorted(streams.items())]
        backup = backup_of(entries, label, began)
        backup.run = secrets.token_hex(16)
        await into.commit(backup, relabel=False)
    return stores


async def whole(place: Path) -> list[str]:
    """The labels, once every message of every backup was read and compared."""
    repository = await Repository.open(LocalStore(place))
    backups, damage = await repository.backups()
    assert not damage
    for backup in backups:
        for name, stream in (BEFORE if backup.label == "before" else DURING).items():
            assert await read_back(repository, backup, name) == stream.live()
    report = await verify(repository, emit=quiet)
    assert report.sound, report.findings
    return [one.label for one in backups]


async def prepared(tmp_path: Path) -> Path:
    """Two repositories with one backup."""
    await back_up(tmp_path / "base", "before", 0)
    return tmp_path / "base"


async def equal_after_the_next_run(root: Path, *labels: str) -> None:
    await back_up(root, "after", 2)
    local, offsite = [await Repository.open(LocalStore(root / name)) for name in NAMES]
    for source, target in ((local, offsite), (offsite, local)):
        assert not (await catch_up(source, target, None, emit=quiet, now_ns=time.time_ns)).failed
    for name in NAMES:
        assert await whole(root / name) == [*labels, "after"]


async def at_each_call(tmp_path: Path, name: str, fault: str, *, every: bool) -> list[tuple[int, Path]]:
    """The numbers of the calls of one repository at which the fault is tried, and a copy of both for each."""
    base = await prepared(tmp_path)
    shutil.copytree(base, tmp_path / "counted")
    calls = (await back_up(tmp_path / "counted", "during", 1))[name].calls
    assert len(calls) > 12
    verbs = {"stale_list": {"list"}, "flip_bit": {"read"}, "cut": {"read"}}
    fitting = [call.number for call in calls if call.verb in verbs.get(fault, {call.verb})]
    chosen = fitting if every else fitting[(*FAULTS, *CRASHES).index(fault) % STEP :: STEP]
    return [(number, shutil.copytree(base, tmp_path / f"{number}")) for number in chosen]


async def one_fails(tmp_path: Path, name: str, fault: str, *, every: bool) -> None:
    (other,) = {*NAMES} - {name}
    for number, root in await at_each_call(tmp_path, name, fault, every=every):
        await back_up(root, "during", 1, **{name: at(number, fault)})
        assert await whole(root / other) == ["before", "during"], number
        assert await whole(root / name) in (["before"], ["before", "during"]), number
        await equal_after_the_next_run(root, "before", "during")


async def the_run_dies(tmp_path: Path, name: str, crash: str, *, every: bool) -> None:
    for number, root in await at_each_call(tmp_path, name, crash, every=every):
        with pytest.raises(Crash):
            await back_up(root, "during", 1, **{name: at(number, crash)})
        there = [await whole(root / one) for one in NAMES]
        assert all(one in (["before"], ["before", "during"]) for one in there), (number, there)
        for one in NAMES:
            await bury(root / one)
        await equal_after_the_next_run(root, *max(there, key=len))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
async def test_a_repository_that_fails_costs_the_other_nothing(tmp_path: Path, name: str, fault: str) -> None:
    await one_fails(tmp_path, name, fault, every=False)


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("name", NAMES)
async def test_a_run_that_dies_costs_neither_what_it_has(tmp_path: Path, name: str, crash: str) -> None:
    await the_run_dies(tmp_path, name, crash, every=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
async def test_the_same_at_every_call(tmp_path: Path, name: str) -> None:
    for fault in FAULTS:
        await one_fails(tmp_path / fault, name, fault, every=True)
    for crash in CRASHES:
        await the_run_dies(tmp_path / crash, name, crash, every=True)


async def test_when_both_fail_nothing_that_was_there_is_lost(tmp_path: Path) -> None:
    base = await prepared(tmp_path)
    statuses = set()
    for number in range(1, 40, 3):
        root = shutil.copytree(base, tmp_path / f"{number}")
        dead: Faults = lambda call, first=number: "fail" if call.number >= first else None  # type: ignore[misc] # noqa: E731
        try:
            await back_up(root, "during", 1, local=dead, offsite=dead)
        except JetkeepError as failure:
            statuses.add(failure.exit_status)
        for name in NAMES:
            assert "before" in await whole(root / name)
        for name in NAMES:
            await bury(root / name)
        await back_up(root, "after", 2)
    assert statuses == {13}


async def test_two_names_for_one_repository_are_one_backup(tmp_path: Path) -> None:
    await new_repository(tmp_path / "local")
    shutil.copytree(tmp_path / "local", tmp_path / "offsite")
    await back_up(tmp_path, "during", 0)
    assert await whole(tmp_path / "local") == ["during"]
    assert await whole(tmp_path / "offsite") == []
