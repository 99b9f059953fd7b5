"""Eight writers on one real S3 server, whose put-if-absent does not always have one winner: nothing is lost whoever wins."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from jetkeep.errors import JetkeepError
from jetkeep.expire import expire
from jetkeep.repository.address import store_at
from jetkeep.repository.repository import Repository
from jetkeep.retention import Policy
from jetkeep.verify import verify
from tests.object_stores.seaweed import Bucket
from tests.repositories import BEGAN, Stream, new_repository, orders, read_back, take
from tests.restoring import quiet

WRITERS = 8


def what(name: int) -> dict[str, Stream]:
    """A stream that all have alike, and one that only this writer has."""
    return {"SHARED": Stream([orders(1, 40)]), f"OWN{name}": Stream([orders(1, 5, f"{name}")])}


async def whole(url: str) -> dict[str, set[str]]:
    """Each backup's streams, once every message was read back and compared."""
    repository = await Repository.open(store_at(url))
    backups, damage = await repository.backups()
    assert not damage, damage
    for backup in backups:
        for entry in backup.streams:
            wanted = orders(1, 40) if entry.name == "SHARED" else orders(1, 5, entry.name.removeprefix("OWN"))
            assert await read_back(repository, backup, entry.name) == wanted
    report = await verify(repository, emit=quiet)
    assert report.sound, report.findings
    return {one.label: {entry.name for entry in one.streams} for one in backups}


async def test_eight_first_backups_make_one_repository(bucket: Bucket) -> None:
    """Each creates the repository where there is none; whoever loses that race writes into the winner's, or says so."""

    async def one(name: int) -> None:
        await take(await new_repository(store_at(bucket.url)), f"b{name}", what(name))

    results = await asyncio.gather(*(one(name) for name in range(WRITERS)), return_exceptions=True)
    there = await whole(bucket.url)
    for name, result in enumerate(results):
        assert result is None or isinstance(result, JetkeepError), result
        assert (result is None) == (f"b{name}" in there), (name, result)
    assert there


async def test_eight_backups_of_the_same_second_all_commit_under_labels_of_their_own(bucket: Bucket) -> None:
    await new_repository(store_at(bucket.url))

    async def one(name: int) -> str:
        repository = await Repository.open(store_at(bucket.url))
        started = BEGAN + timedelta(milliseconds=name)
        return (await take(repository, "20240110-131500", what(name), started=started, relabel=True)).label

    labels = await asyncio.gather(*(one(name) for name in range(WRITERS)))
    assert len(set(labels)) == WRITERS
    there = await whole(bucket.url)
    assert {label: {"SHARED", f"OWN{name}"} for name, label in enumerate(labels)} == there


async def test_eight_backups_of_one_label_leave_one_and_the_others_know(bucket: Bucket) -> None:
    await new_repository(store_at(bucket.url))

    async def one(name: int) -> None:
        await take(await Repository.open(store_at(bucket.url)), "same", what(name))

    results = await asyncio.gather(*(one(name) for name in range(WRITERS)), return_exceptions=True)
    ((label, streams),) = (await whole(bucket.url)).items()
    won = [name for name, result in enumerate(results) if result is None]
    assert (label, len(won)) == ("same", 1)
    assert f"OWN{won[0]}" in streams
    assert {getattr(one, "code", one) for one in results if one is not None} == {"usage.label-taken"}


@pytest.mark.parametrize("turn", range(2))
async def test_backups_and_expires_at_once_lose_nothing_that_is_to_be_kept(bucket: Bucket, turn: int) -> None:
    repository = await new_repository(store_at(bucket.url))
    for at in range(3):
        await take(repository, f"old{at}", what(at), started=BEGAN + timedelta(hours=at))

    async def back_up(name: int) -> None:
        one = await Repository.open(store_at(bucket.url))
        await take(one, f"new{name}", what(name), started=BEGAN + timedelta(days=1, seconds=name))

    async def let_go(_: int) -> None:
        one = await Repository.open(store_at(bucket.url))
        # No time to change one's mind: what nobody names goes at once.
        await expire(one, Policy(last=WRITERS), now_ns=time.time_ns, emit=quiet, grace_ns=-(3600 * 10**9))

    works = [back_up(name) if name % 4 != turn else let_go(name) for name in range(WRITERS)]
    results = await asyncio.gather(*works, return_exceptions=True)
    there = await whole(bucket.url)
    for name, result in enumerate(results):
        assert result is None or isinstance(result, JetkeepError), result
        if name % 4 != turn:
            assert (result is None) == (f"new{name}" in there), (name, result)
    assert "old2" in there
