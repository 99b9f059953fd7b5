"""`check --store`: a store that does not do what is needed is named, with what it means; one that does is left as it was."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetkeep.errors import AccessDeniedError, AlreadyThereError
from jetkeep.readiness import Level, Readiness, probe_store
from jetkeep.repository.local import LocalStore
from jetkeep.repository.locking import Lock, Retention
from jetkeep.repository.store import RETAINED, ObjectInfo
from tests.repositories import files, new_repository


async def looked_at(store: LocalStore, *, writing: bool = True, ahead_s: int = 0) -> Readiness:
    readiness = Readiness()
    await probe_store(store, readiness, writing=writing, now_ns=lambda: time.time_ns() + ahead_s * 10**9)
    return readiness


def bad(readiness: Readiness) -> dict[str, Level]:
    return {one.name: one.level for one in readiness.probes if one.level}


async def test_a_directory_does_everything_and_is_left_as_it_was(tmp_path: Path) -> None:
    assert bad(await looked_at(LocalStore(tmp_path))) == {}
    assert files(tmp_path) == {}
    await new_repository(tmp_path)
    before = files(tmp_path)
    readiness = await looked_at(LocalStore(tmp_path))
    assert (bad(readiness), readiness.status) == ({}, 0)
    assert files(tmp_path) == before


class Overwrites(LocalStore):
    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        await self.replace(key, bytes(data))


class Lags(LocalStore):
    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix):
            if time.time_ns() - info.modified_ns > 10**9:
                yield info


class Flips(LocalStore):
    async def read(self, key: str, max_bytes: int) -> bytes:
        data = await super().read(key, max_bytes)
        return bytes([data[0] ^ 1]) + data[1:]


class Undead(LocalStore):
    async def delete(self, key: str) -> None:
        """It will go some day."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Overwrites, "put-if-absent"), (Lags, "listing"), (Flips, "read back"), (Undead, "delete leases")],
)
async def test_a_store_that_fails_at_one_thing_is_told_which(tmp_path: Path, kind: type[LocalStore], name: str) -> None:
    await new_repository(tmp_path)
    head = files(tmp_path)["jetkeep.json"]
    readiness = await looked_at(kind(tmp_path))
    assert bad(readiness) == {f"store: {name}": Level.CRITICAL}
    assert readiness.status == 13
    (probe,) = [one for one in readiness.probes if one.level]
    assert "without it" in probe.hint or "do not use" in probe.hint
    assert files(tmp_path)["jetkeep.json"] == head


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
async def test_a_clock_that_is_an_hour_wrong_is_told(tmp_path: Path, ahead_s: int) -> None:
    readiness = await looked_at(LocalStore(tmp_path), ahead_s=ahead_s)
    assert bad(readiness) == {"store: clock": Level.WARNING}
    (probe,) = [one for one in readiness.probes if one.level]
    assert ("ahead" in probe.what) is (ahead_s > 0)
    assert " 3600 s " in probe.what or " 3599 s " in probe.what


class AddsOnly(LocalStore):
    async def replace(self, key: str, data: bytes) -> None:
        raise AccessDeniedError("you may not")

    async def delete(self, key: str) -> None:
        raise AccessDeniedError("you may not")


class Retains(LocalStore):
    async def delete(self, key: str) -> None:
        raise AccessDeniedError("kept", code=RETAINED)


class ReadsOnly(AddsOnly):
    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        raise AccessDeniedError("you may not")


async def test_what_may_not_be_done_is_no_fault_where_it_is_not_needed(tmp_path: Path) -> None:
    await new_repository(tmp_path)
    for kind, writing in ((AddsOnly, True), (Retains, True), (ReadsOnly, False)):
        readiness = await looked_at(kind(tmp_path), writing=writing)
        assert bad(readiness) == {}, kind
        told = {one.name: one.what for one in readiness.probes}
        assert "permitted" in told["store: delete backups"] or kind is Retains
    assert bad(await looked_at(ReadsOnly(tmp_path))) == {"store: add": Level.CRITICAL}


class Locks(LocalStore):
    """A store that says it locks; `told` is what it tells of a locked upload."""

    lock: Lock | None = Lock("governance", 3)
    told: Retention | None = None

    async def retention(self, key: str) -> Retention | None:
        return None

    async def try_lock(self, key: str, data: bytes) -> Retention | None:
        if self.told is None:
            raise AlreadyThereError("no lock here")
        return self.told if self.told.mode else None


async def test_a_lock_that_is_wanted_and_is_not_there_is_told(tmp_path: Path) -> None:
    store = Locks(tmp_path)
    assert bad(await looked_at(store)) == {"store: object lock": Level.CRITICAL}
    store.told = Retention("", 0, 0)
    assert bad(await looked_at(store)) == {"store: object lock": Level.WARNING}
    store.told = Retention("governance", 0, 1)
    assert bad(await looked_at(store)) == {}
