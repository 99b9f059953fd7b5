"""Crashes, refusals, lost and stale answers at any call to a real S3 server cost nothing that was committed."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta

import pytest

from jetkeep.errors import JetkeepError
from jetkeep.expire import expire
from jetkeep.repository.address import store_at
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import Store
from jetkeep.retention import Policy
from jetkeep.verify import verify
from tests.object_stores.seaweed import Bucket
from tests.repositories import BEGAN, Stream, new_repository, orders, read_back, some_streams, take
from tests.restoring import quiet
from tests.simulation.faulty import ANYWHERE, Call, Crash, Faults, FaultyStore, at, bury

OLD = {"ORDERS": Stream([orders(1, 6)])}
BEFORE = some_streams()
#: Shares a segment with what is there, and has a new one.
DURING = {"ORDERS": Stream([orders(1, 6), orders(7, 20)]), "new": Stream([orders(1, 3)])}
#: Calls that are tried by default: every so many-th; all in the slow suite.
STEP = 7
_numbers = itertools.count()


async def prepared(bucket: Bucket) -> Store:
    """A repository with two backups, under a prefix of its own."""
    store = store_at(f"{bucket.url}/{next(_numbers)}")
    repository = await new_repository(store)
    await take(repository, "old", OLD, started=BEGAN - timedelta(days=1))
    await take(repository, "before", BEFORE)
    return store


async def back_up(store: Store, faults: Faults) -> FaultyStore:
    faulty = FaultyStore(store, faults)
    await take(await Repository.open(faulty), "during", DURING, started=BEGAN + timedelta(days=1))
    return faulty


async def let_go(store: Store, faults: Faults) -> FaultyStore:
    faulty = FaultyStore(store, faults)
    repository = await Repository.open(faulty)
    await expire(repository, Policy(last=1), now_ns=time.time_ns, emit=quiet, grace_ns=-(3600 * 10**9))
    return faulty


async def whole(store: Store) -> set[str]:
    """The labels, once every message of every backup was read and compared."""
    repository = await Repository.open(store)
    backups, damage = await repository.backups()
    assert not damage
    known = {"old": OLD, "before": BEFORE, "during": DURING, "after": DURING}
    for backup in backups:
        for name, stream in known[backup.label].items():
            assert await read_back(repository, backup, name) == stream.live()
    report = await verify(repository, emit=quiet)
    assert report.sound, report.findings
    return {one.label for one in backups}


def chosen(calls: list[Call], fault: str, *, every: bool) -> list[Call]:
    """The calls at which this fault is tried."""
    verbs = {"stale_list": {"list"}, "flip_bit": {"read"}, "cut": {"read"}}
    fitting = [one for one in calls if one.verb in verbs.get(fault, {one.verb})]
    return fitting if every else fitting[ANYWHERE.index(fault) % STEP :: STEP]


async def try_backups(bucket: Bucket, fault: str, *, every: bool) -> None:
    calls = (await back_up(await prepared(bucket), lambda call: None)).calls
    for call in chosen(calls, fault, every=every):
        store = await prepared(bucket)
        try:
            await back_up(store, at(call.number, fault))
            possible = [{"old", "before", "during"}]
        except (Crash, JetkeepError):
            possible = [{"old", "before"}, {"old", "before", "during"}]
        there = await whole(store)
        assert there in possible, (call, there)
        await bury(store)
        await take(await Repository.open(store), "after", DURING, started=BEGAN + timedelta(days=2))
        assert await whole(store) == there | {"after"}


async def try_expires(bucket: Bucket, fault: str, *, every: bool) -> None:
    calls = (await let_go(await prepared(bucket), lambda call: None)).calls
    for call in chosen(calls, fault, every=every):
        store = await prepared(bucket)
        try:
            await let_go(store, at(call.number, fault))
        except (Crash, JetkeepError):
            assert "before" in await whole(store), call
        await bury(store)
        await let_go(store, lambda call: None)
        assert await whole(store) == {"before"}, call


@pytest.mark.parametrize("fault", ANYWHERE)
async def test_a_backup_into_a_bucket_costs_at_most_itself(bucket: Bucket, fault: str) -> None:
    await try_backups(bucket, fault, every=False)


@pytest.mark.parametrize("fault", ANYWHERE)
async def test_an_expire_in_a_bucket_takes_nothing_that_is_kept(bucket: Bucket, fault: str) -> None:
    await try_expires(bucket, fault, every=False)


@pytest.mark.patient
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ANYWHERE)
async def test_the_same_at_every_call(bucket: Bucket, fault: str) -> None:
    await try_backups(bucket, fault, every=True)
    await try_expires(bucket, fault, every=True)
