"""A wrapper round a real store that fails on purpose, at chosen calls.

What must be survived, each with nothing lost that was committed:

- the process dies before or after any call (`crash_before`, `crash_after`), or half-way through a write (`torn_write`);
- the machine dies: whatever was not synced is gone, or has its name but only half of its bytes (`power_loss`, `torn_loss`),
  or some of what was deleted is there again (`undelete`);
- the store says no, or that it failed, or nothing for a while (`refuse`, `fail`, `slow`);
- the answer is lost although the work was done (`lose_answer`), or the work was not done and nobody knows (`lose_request`);
- one read gives other bytes (`flip_bit`, `cut`), a listing lacks what was just written (`stale_list`).

Losses that only a directory has (`torn_write`, what the machine's death takes) are for directories only.

Not survived, only found: bytes that rot on the disk (tests/property/test_corruption.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from jetkeep.errors import AccessDeniedError, OutcomeUnknownError, StoreFailedError
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import LeaseDocument
from jetkeep.repository.local import LocalStore
from jetkeep.repository.store import ObjectInfo, Store


class Crash(BaseException):
    """The process is gone; nothing catches this, and every later call of the same store raises it too."""


class Call(NamedTuple):
    """The `number`th call, counted from 1."""

    number: int
    verb: str
    key: str


#: Decides the fault of a call by its name; None lets it work.
Faults = Callable[[Call], str | None]
LOSSES = ("power_loss", "torn_loss", "undelete")
CRASHES = ("crash_before", "crash_after", "torn_write", *LOSSES)
#: What an object store can do to its client.
ANYWHERE = (
    "crash_before",
    "crash_after",
    "fail",
    "refuse",
    "lose_answer",
    "lose_request",
    "stale_list",
    "flip_bit",
    "cut",
)


def at(number: int, fault: str) -> Faults:
    """That fault at that call only."""
    return lambda call: fault if call.number == number else None


#: Directory → keys that no sync has covered yet, whichever store wrote them.
NOT_DURABLE: dict[Path, set[str]] = {}


class FaultyStore:
    """A store that misbehaves; given by its directory, or itself."""

    def __init__(self, place: Path | Store, faults: Faults = lambda call: None) -> None:
        self.inner: Store = LocalStore(place) if isinstance(place, Path) else place
        self.calls: list[Call] = []
        self._root = place if isinstance(place, Path) else Path("/nonexistent")
        self._faults = faults
        self._unsynced = NOT_DURABLE.setdefault(self._root, set())
        self._to_sync: set[str] = set()
        self._deleted: dict[str, bytes] = {}
        self._listed: dict[str, set[str]] = {}
        self._dead = False

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def remote(self) -> bool:
        return self.inner.remote

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        async with self._call("create", key) as fault:
            if fault == "torn_write":
                path = self._root / f"{key}.0123456789ab.partial"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(data[: len(data) // 2]))
                self._die()
            if not durable:
                # What was there is as durable as its writer left it; a sync covers it all the same.
                self._to_sync.add(key)
                if not (self._root / key).exists():
                    self._unsynced.add(key)
            await self.inner.create(key, data, durable=durable)

    async def replace(self, key: str, data: bytes) -> None:
        async with self._call("replace", key):
            await self.inner.replace(key, data)

    async def sync(self) -> None:
        async with self._call("sync"):
            await self.inner.sync()
            self._unsynced -= self._to_sync
            self._to_sync.clear()
            self._deleted.clear()

    async def read(self, key: str, max_bytes: int) -> bytes:
        async with self._call("read", key) as fault:
            data = await self.inner.read(key, max_bytes)
        if fault == "flip_bit":
            return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        return data[:-1] if fault == "cut" else data

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async with self._call("list", prefix) as fault:
            found = [info async for info in self.inner.list(prefix)]
        known = self._listed.get(prefix, set())
        self._listed[prefix] = {info.key for info in found}
        for info in found:
            if fault != "stale_list" or info.key in known:
                yield info

    async def delete(self, key: str) -> None:
        async with self._call("delete", key):
            with contextlib.suppress(FileNotFoundError):
                self._deleted[key] = (self._root / key).read_bytes()
            await self.inner.delete(key)

    async def remove_unfinished(self, before_ns: int) -> int:
        async with self._call("remove_unfinished"):
            return await self.inner.remove_unfinished(before_ns)

    async def free_bytes(self) -> int | None:
        return await self.inner.free_bytes()

    @asynccontextmanager
    async def _call(self, verb: str, key: str = "") -> AsyncIterator[str | None]:
        fault = await self._before(verb, key)
        try:
            yield fault
        finally:
            if fault in ("crash_after", "torn_write"):
                self._die()
        if fault == "lose_answer":
            raise OutcomeUnknownError("no answer, and all was done")

    async def _before(self, verb: str, key: str) -> str | None:
        if self._dead:
            raise Crash
        self.calls.append(Call(len(self.calls) + 1, verb, key))
        fault = self._faults(self.calls[-1])
        if fault in LOSSES:
            self._lose_unsynced(torn=fault == "torn_loss")
        if fault == "undelete":
            self._undelete()
        if fault in ("crash_before", *LOSSES):
            self._die()
        if fault == "refuse":
            raise AccessDeniedError("refused on purpose")
        if fault == "fail":
            raise StoreFailedError("failed on purpose")
        if fault == "lose_request":
            raise OutcomeUnknownError("no answer, and nothing was done")
        if fault == "slow":
            await asyncio.sleep(0.2)
        return fault

    def _die(self) -> None:
        self._dead = True
        raise Crash

    def _lose_unsynced(self, *, torn: bool) -> None:
        for key in self._unsynced:
            path = self._root / key
            if torn and path.exists():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            else:
                path.unlink(missing_ok=True)
        self._unsynced.clear()

    def _undelete(self) -> None:
        """What went first comes back: the order of deletions holds only where a sync parts them."""
        for key, data in list(self._deleted.items())[: (len(self._deleted) + 1) // 2]:
            (self._root / key).parent.mkdir(parents=True, exist_ok=True)
            (self._root / key).write_bytes(data)


async def bury(place: Path | Store) -> None:
    """Make every lease one of a process that is gone: in these tests whoever "died" has the number of this process."""
    store: Store = LocalStore(place) if isinstance(place, Path) else place
    async for info in store.list(layout.LEASES):
        lease = encoding.unseal(await store.read(info.key, 2**20), info.key, LeaseDocument)
        lease.owner.process = lease.owner.process.rpartition("/")[0] + "/1"
        await store.replace(info.key, encoding.seal(lease))
