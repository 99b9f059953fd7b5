"""Copies of backups: what is brought, what is not believed, what a copy that died costs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta
from pathlib import Path

import pytest

from jetkeep.errors import JetkeepError, LockedError, UsageError
from jetkeep.expire import expire
from jetkeep.replicate import SEGMENTS_AT_ONCE, CopyReport, copy_backups
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.retention import Policy
from jetkeep.verify import verify
from tests.repositories import BEGAN, Stream, new_repository, orders, read_back, some_streams, take
from tests.restoring import quiet
from tests.simulation.faulty import CRASHES, Call, Crash, FaultyStore


async def copy(source: Repository, target: Repository, *labels: str) -> CopyReport:
    return await copy_backups(source, target, labels=labels, emit=quiet, now_ns=time.time_ns)


async def three(root: Path) -> Repository:
    """A repository with three backups, the second with other bytes in its streams."""
    repository = await new_repository(root)
    for at, label in enumerate(("one", "two", "three")):
        await take(repository, label, some_streams(), started=BEGAN + timedelta(hours=at), tags=[label])
    return repository


async def labels(repository: Repository) -> list[str]:
    whole, damage = await repository.backups()
    assert not damage
    return [one.label for one in whole]


async def test_what_is_missing_is_brought_and_is_the_same(tmp_path: Path) -> None:
    source, target = await three(tmp_path / "a"), await new_repository(tmp_path / "b")
    report = await copy(source, target)
    assert (report.copied, report.present, report.failed) == (["one", "two", "three"], [], {})
    for backup in (await source.backups())[0]:
        there = await target.read_backup(backup.label)
        assert (there.started_at, there.tags, there.run) == (backup.started_at, backup.tags, backup.run)
        for name in some_streams():
            assert await read_back(target, there, name) == await read_back(source, backup, name)
    assert (await verify(target, emit=quiet)).sound
    again = await copy(source, target)
    assert (again.copied, again.present) == ([], ["one", "two", "three"])


async def test_only_what_was_named_is_brought(tmp_path: Path) -> None:
    source, target = await three(tmp_path / "a"), await new_repository(tmp_path / "b")
    assert (await copy(source, target, "two")).copied == ["two"]
    assert await labels(target) == ["two"]
    with pytest.raises(UsageError) as refused:
        await copy(source, target, "four")
    assert refused.value.code == "usage.no-such-backup"


async def test_a_repository_is_not_copied_into_itself(tmp_path: Path) -> None:
    source = await three(tmp_path / "a")
    with pytest.raises(UsageError) as refused:
        await copy(source, source)
    assert refused.value.code == "usage.same-repository"


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
@pytest.mark.parametrize("what", ["*.parquet", "*.json.zst", "two.json"])
async def test_a_damaged_backup_is_not_copied_and_the_others_are(tmp_path: Path, what: str, harm: str) -> None:
    source, target = await three(tmp_path / "a"), await new_repository(tmp_path / "b")
    await take(source, "other", {"ORDERS": some_streams()["empty"]}, started=BEGAN + timedelta(hours=9))
    path = sorted((tmp_path / "a").rglob(what))[0]
    data = path.read_bytes()
    if harm == "gone" and what != "two.json":
        path.unlink()
    else:
        path.write_bytes(data[:-7] if harm == "cut" else data[:40] + bytes([data[40] ^ 1]) + data[41:])
    report = await copy(source, target)
    assert report.failed
    assert "other" in report.copied
    assert not set(report.failed) & set(await labels(target))
    assert (await verify(target, emit=quiet)).sound


async def test_another_backup_of_that_label_is_not_overwritten(tmp_path: Path) -> None:
    source, target = await three(tmp_path / "a"), await new_repository(tmp_path / "b")
    before = await take(target, "two", {}, started=BEGAN + timedelta(days=5))
    report = await copy(source, target)
    assert report.failed["two"].code == "usage.label-taken"
    assert report.copied == ["one", "three"]
    assert (await target.read_backup("two")).started_at == before.started_at


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_copy_that_dies_at_any_call_leaves_whole_backups_and_the_next_one_goes_on(
    tmp_path: Path, step: int
) -> None:
    source = await three(tmp_path / "a")
    at = 0
    while True:
        at += step
        root = tmp_path / f"b{at}"
        await new_repository(root)

        def fault(call: Call, at: int = at) -> str | None:
            return CRASHES[at % 5] if call.number == (at + 1) // 2 else None  # each call dies in two of the ways

        died = False
        try:
            await copy(source, await Repository.open(FaultyStore(root, fault)))
        except (Crash, JetkeepError, BaseExceptionGroup):
            died = True
        if not died:
            break
        target = await new_repository(root)
        assert (await verify(target, emit=quiet)).sound, at
        assert not (await copy(source, target)).failed, at
        assert await labels(target) == ["one", "two", "three"], at
    assert at > 40


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("fail", 3),
        ("lose_answer", 4),
        *(
            pytest.param(one, 1, marks=pytest.mark.slow)
            for one in ("fail", "lose_answer", "refuse", "lose_request", "flip_bit", "cut")
        ),
    ],
)
async def test_a_fault_at_any_call_ends_in_an_error_or_in_a_whole_copy(tmp_path: Path, fault: str, step: int) -> None:
    source = await three(tmp_path / "a")
    at, reached = 0, True
    while reached:
        at += step
        root = tmp_path / f"b{at}"
        await new_repository(root)
        store = FaultyStore(root, lambda call, at=at: fault if call.number == at else None)  # type: ignore[misc]
        try:
            report = await copy(source, await Repository.open(store))
        except JetkeepError:
            report = None
        reached = len(store.calls) >= at
        target = await new_repository(root)
        there = await labels(target)
        if report is not None and not report.failed:
            assert there == ["one", "two", "three"], at
        assert (await verify(target, emit=quiet)).sound, at
        assert not (await copy(source, target)).failed, at
        assert await labels(target) == ["one", "two", "three"], at
    assert at > 40


@pytest.mark.parametrize(
    "fault",
    [
        "fail",
        "flip_bit",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("crash_before", "refuse", "stale_list", "cut")),
    ],
)
async def test_a_source_that_fails_at_any_call_never_gives_a_backup_that_is_not_sound(
    tmp_path: Path, fault: str
) -> None:
    await three(tmp_path / "a")
    at, reached = 0, True
    while reached:
        at += 1
        target = await new_repository(tmp_path / f"b{at}")
        store = FaultyStore(tmp_path / "a", lambda call, at=at: fault if call.number == at else None)  # type: ignore[misc]
        report = None
        with contextlib.suppress(Crash, JetkeepError, BaseExceptionGroup):
            report = await copy(await Repository.open(store), target)
        reached = len(store.calls) >= at
        if report is not None and fault != "stale_list":
            assert {*report.copied, *(one.split("/")[-1].removesuffix(".json") for one in report.failed)} == {
                "one",
                "two",
                "three",
            }, at
        there = await new_repository(tmp_path / f"b{at}")
        assert (await verify(there, emit=quiet)).sound, at
        assert not (await copy(await Repository.open(LocalStore(tmp_path / "a")), there)).failed, at
        assert await labels(there) == ["one", "two", "three"], at
    assert at > 20


async def test_two_copies_at_once_and_an_expire_in_both_repositories_harm_nothing(tmp_path: Path) -> None:
    source, target = await three(tmp_path / "a"), await new_repository(tmp_path / "b")
    again = await Repository.open(LocalStore(tmp_path / "b"))

    async def let_go(repository: Repository) -> None:
        with contextlib.suppress(LockedError):
            await expire(repository, Policy(last=9), now_ns=time.time_ns, emit=quiet, grace_ns=-(10**9))

    reports = await asyncio.gather(copy(source, target), copy(source, again), let_go(source), let_go(target))
    done = [one for one in reports if one is not None]
    for report in done:
        assert set(report.copied) | set(report.present) | set(report.failed) == {"one", "two", "three"}
        assert {one.code for one in report.failed.values()} <= {"usage.label-taken"}
    assert await labels(target) == ["one", "two", "three"]
    assert (await verify(target, emit=quiet)).sound


async def test_an_expire_of_the_source_leaves_what_is_being_copied(tmp_path: Path) -> None:
    source = await three(tmp_path / "a")
    await new_repository(tmp_path / "b")
    held: list[list[str]] = []

    class Watched(LocalStore):
        async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
            if key.endswith(".parquet") and not held:
                held.append([])
                report = await expire(source, Policy(last=1), now_ns=time.time_ns, emit=quiet, grace_ns=-(10**9))
                held[0] = report.held
                assert "one" not in report.expired
            await super().create(key, data, durable=durable)

    report = await copy(source, await Repository.open(Watched(tmp_path / "b")), "one")
    assert report.copied == ["one"]
    assert held == [["one"]]


async def test_no_more_than_a_few_segments_are_in_memory(tmp_path: Path) -> None:
    source = await new_repository(tmp_path / "a")
    await take(source, "one", {"A": Stream([orders(at, at + 1) for at in range(1, 80, 2)])})
    await new_repository(tmp_path / "b")
    under_way, most = set[str](), 0

    class Slow(LocalStore):
        async def read(self, key: str, max_bytes: int) -> bytes:
            nonlocal most
            under_way.add(key) if key.endswith(".parquet") else None
            most = max(most, len(under_way))
            return await super().read(key, max_bytes)

    class Target(LocalStore):
        async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
            await asyncio.sleep(0.001)
            await super().create(key, data, durable=durable)
            under_way.discard(key)

    begin = await Repository.open(Slow(tmp_path / "a"))
    assert (await copy(begin, await Repository.open(Target(tmp_path / "b")))).copied == ["one"]
    assert 1 < most <= SEGMENTS_AT_ONCE
