"""Leases: who is at work in a repository (docs/format.md, *Writing and deleting at the same time*)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from jetkeep.errors import (
    AccessDeniedError,
    AlreadyThereError,
    BadDataError,
    LockedError,
    NoObjectError,
    StoreError,
    StoreFailedError,
)
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import LeaseDocument, Owner, moment_of
from jetkeep.repository.store import ObjectInfo, Store, create_surely, delete_all, side_by_side

#: A lease is live for so long after the store says that it was last written: no clock but the store's counts.
LIFETIME_NS = 300 * 10**9
RENEWAL_S = 60.0
#: Nothing is committed or deleted under a lease that has less than this left: others may be about to ignore it.
MARGIN_NS = 60 * 10**9
#: Longer than the lease of an expire that died lasts.
EXPIRE_PATIENCE_S = 900.0
#: From which difference between this machine's clock and the store's on people are told.
CLOCKS_DIFFER_NS = 60 * 10**9
#: A lease that was last written before this is dead, and is not even read: those whom a key cannot delete add up.
_FORGOTTEN_NS = 3600 * 10**9
_MAX_LEASE = 1024 * 1024
LeaseClock = Callable[[], int]
#: Takes one sentence for people.
Tell = Callable[[str], None]


class Seen(NamedTuple):
    """A lease as it was found: live or dead; its document where it was worth reading, and `age_ns` since it was last written."""

    key: str
    live: bool
    age_ns: int
    document: LeaseDocument | None


class _Moment(NamedTuple):
    """When a lease was written: before and after by the local clock, and before by one that nobody sets."""

    before_ns: int
    after_ns: int
    steady_ns: int

    def ahead_of(self, modified_ns: int) -> int:
        """How far the local clock is ahead of the store's, which says that it was at `modified_ns` (perhaps cut to seconds)."""
        if self.before_ns - 2 * 10**9 <= modified_ns <= self.after_ns + 10**9:
            return 0
        return (self.before_ns + self.after_ns) // 2 - modified_ns


class Lease:
    """A lease that this process holds; renewed until its context ends.

    Attributes:
        ahead_ns: how far this machine's clock is ahead of the store's, known after `others`; 0 within what cannot be told.
    """

    def __init__(self, store: Store, document: LeaseDocument, now_ns: LeaseClock, tell: Tell) -> None:
        self._store, self._now_ns, self._tell = store, now_ns, tell
        self.document = document
        self.ahead_ns = 0
        self._told = False
        self._written = _Moment(now_ns(), now_ns(), _steady_ns())
        self._mine = {self.key}
        self._lapsed = self._taken = False
        self._changing = asyncio.Lock()

    @property
    def key(self) -> str:
        """Where it lies."""
        return layout.lease_key(self.document.purpose, self.document.nonce)

    def written(self, before_ns: int, steady_ns: int) -> None:
        """It was just written, in a request that began at these times."""
        self._written = _Moment(before_ns, self._now_ns(), steady_ns)

    async def others(self) -> list[LeaseDocument]:
        """The live leases of everybody else, by the store's clock, which our own lease tells: this machine's may be wrong."""
        async with self._changing:
            infos = await _listed(self._store)
            now = self._now_ns() - self.ahead_ns
            for info in infos:
                if info.key == self.key:
                    now = info.modified_ns + _steady_ns() - self._written.steady_ns
                    self.ahead_ns = self._written.ahead_of(info.modified_ns)
        self._tell_of_clocks()
        found = await _look(self._store, [one for one in infos if one.key not in self._mine], now)
        return [one.document for one in found if one.live and one.document]

    def _tell_of_clocks(self) -> None:
        if abs(self.ahead_ns) <= CLOCKS_DIFFER_NS or self._told:
            return
        self._told = True
        way = "ahead of" if self.ahead_ns > 0 else "behind"
        self._tell(
            f"this machine's clock is {abs(self.ahead_ns) // 10**9} seconds {way} the store's at {self._store.url}: what it "
            "writes there says wrong times; set the clock (NTP)"
        )

    async def wait_for_expire(self, patience_s: float = EXPIRE_PATIENCE_S) -> None:
        """Return when no expire is at work. One that died is waited for until its lease ends.

        Raises:
            LockedError: it still is after `patience_s` seconds.
        """
        waited = 0.0
        while holders := [one for one in await self.others() if one.purpose == "expire"]:
            if waited >= patience_s:
                raise locked(holders[0])
            await asyncio.sleep(0.5)
            waited += 0.5

    def check(self) -> None:
        """Nobody can have taken this lease for dead, nor will in the next minute. To be called before each commit and deletion.

        Raises:
            LockedError: it could not be renewed in time (a suspended machine, a store that did not answer), or was taken away.
        """
        if self._taken:
            raise LockedError(
                f"this run's lease {self.key} was taken away (`jetkeep unlock --force`, or by hand)",
                code="repository.lease-taken",
                means="nothing was committed or deleted after that; finished backups are untouched",
                hint="run it again, when whoever took it away is done",
            )
        if self._left() < MARGIN_NS:
            raise LockedError(
                f"this run's lease {self.key} was not renewed in time, so others may have taken this run for dead",
                code="repository.lease-lapsed",
                means="nothing was committed or deleted after that; finished backups are untouched",
                hint="run it again; if it comes back, look at whether the store answers and the clock is steady",
            )

    async def confirm(self) -> None:
        """Like `check`, and look at the store whether somebody took the lease away. To be called before the first deletion and a commit.

        Raises:
            LockedError: see `check`.
        """
        async with self._changing:
            await self._look_whether_taken()
        self.check()

    async def _look_whether_taken(self) -> None:
        try:
            await self._store.read(self.key, _MAX_LEASE)
        except NoObjectError:
            self._taken = True
        except (StoreError, BadDataError):
            pass  # not known: then time alone decides

    async def renew(self) -> None:
        """Extend the lease from now; a clock that went back does not shorten it. One that was taken away stays away."""
        async with self._changing:
            self._left()
            await self._look_whether_taken()
            if self._taken:
                return
            ends = max(_ns(self.document.expires_at), self._now_ns() + LIFETIME_NS)
            renewed = msgspec.structs.replace(self.document, expires_at=rfc3339(ends))
            before, steady = self._now_ns(), _steady_ns()
            try:
                await self._store.replace(self.key, encoding.seal(renewed))
            except (AccessDeniedError, AlreadyThereError):
                # A key that can only add objects goes on under another name; the old lease ends by itself.
                renewed = msgspec.structs.replace(renewed, nonce=secrets.token_hex(8))
                key = layout.lease_key(renewed.purpose, renewed.nonce)
                self._mine.add(key)
                await _create(self._store, key, encoding.seal(renewed))
            self.document = renewed
            self.written(before, steady)

    async def keep(self) -> None:
        """Renew for ever; one failed renewal is made good by the next, long before the lease ends."""
        while True:
            await asyncio.sleep(RENEWAL_S)
            with contextlib.suppress(StoreError):
                await self.renew()

    async def end(self, keeper: asyncio.Task[None]) -> None:
        """Stop renewing and take the lease away. One that cannot be taken away ends by itself."""
        async with self._changing:
            keeper.cancel()
            try:
                await asyncio.shield(self._store.delete(self.key))
            except AccessDeniedError:
                self._tell(f"these credentials may not delete: the lease {self.key} stays there and ends by itself")
            except StoreError:
                pass  # the next expire takes it away

    def _left(self) -> int:
        """How long it still holds, in nanoseconds; below 0 for ever once it has ended."""
        # A clock that is set back must not make it longer: others go by the store's.
        steady = self._written.steady_ns + LIFETIME_NS - _steady_ns()
        left = min(_ns(self.document.expires_at) - self._now_ns(), steady)
        self._lapsed = self._lapsed or left < 0
        return -1 if self._lapsed else left


@asynccontextmanager
async def lease(
    store: Store, purpose: str, *, now_ns: LeaseClock, labels: Sequence[str] = (), tell: Tell = lambda words: None
) -> AsyncIterator[Lease]:
    """Hold a lease while the block runs; `labels` are the backups that it protects.

    `tell` hears of a clock that is wrong, and of a lease that cannot be taken away.

    Raises:
        StoreError: it could not be created.
    """
    now, steady = now_ns(), _steady_ns()
    document = LeaseDocument(
        purpose=purpose,
        nonce=secrets.token_hex(8),
        owner=Owner(host=platform.node(), pid=os.getpid(), process=process(os.getpid())),
        acquired_at=rfc3339(now),
        expires_at=rfc3339(now + LIFETIME_NS),
        labels=list(labels),
    )
    held = Lease(store, document, now_ns, tell)
    creating = asyncio.ensure_future(_create(store, held.key, encoding.seal(document)))
    try:
        await asyncio.shield(creating)
        held.written(now, steady)
    except asyncio.CancelledError:
        # It may be created all the same, and would then keep `expire` waiting for nobody.
        await asyncio.wait({creating})
        with contextlib.suppress(StoreError):
            await store.delete(held.key)
        raise
    keeper = asyncio.create_task(held.keep())
    try:
        yield held
    finally:
        await held.end(keeper)


async def _create(store: Store, key: str, data: bytes) -> None:
    with contextlib.suppress(AlreadyThereError):  # ours: nobody else draws the same nonce, but an answer can be lost
        try:
            await create_surely(store, key, data, durable=True)
        except StoreFailedError as full:
            if full.code != "store.full":
                raise
            # An empty file needs no room. It says by its name what is at work and protects all, as any unreadable lease does:
            # so `expire` makes room where there is none at all.
            await create_surely(store, key, b"", durable=True)


@asynccontextmanager
async def lease_if_possible(
    store: Store, purpose: str, *, now_ns: LeaseClock, labels: Sequence[str] = ()
) -> AsyncIterator[Lease | None]:
    """For readers: hold a lease, or None where the store takes no writes (read-only, full): then nothing keeps `expire` away."""
    async with contextlib.AsyncExitStack() as stack:
        held = None
        with contextlib.suppress(AccessDeniedError, StoreFailedError):
            held = await stack.enter_async_context(lease(store, purpose, now_ns=now_ns, labels=labels))
        yield held


async def live_leases(store: Store, now_ns: int) -> list[LeaseDocument]:
    """All leases whose owner runs, or where that cannot be known, that were written lately by the clock `now_ns`.

    A damaged one protects everything for as long as it can have been live: it comes back with the purpose of its
    name and the label `*`.
    """
    return [one.document for one in await leases_in(store, now_ns) if one.live and one.document]


async def leases_in(store: Store, now_ns: int) -> list[Seen]:
    """Every lease, the oldest first."""
    found = await _look(store, await _listed(store), now_ns)
    return sorted(found, key=lambda one: -one.age_ns)


async def remove_dead_leases(store: Store, now_ns: int) -> None:
    """Remove the leases and probes that crashed runs, and keys that may not delete, left behind; durable with the next `sync`.

    Raises:
        AccessDeniedError: this key may not delete either.
    """
    infos = [info async for info in store.list(layout.LEASES)]
    probes = [one.key for one in infos if layout.is_probe(one.key) and now_ns - one.modified_ns > LIFETIME_NS]
    found = await _look(store, [one for one in infos if one.key.endswith(".json")], now_ns)
    await delete_all(store, [*probes, *(one.key for one in found if not one.live)])


async def _listed(store: Store) -> list[ObjectInfo]:
    return [info async for info in store.list(layout.LEASES) if info.key.endswith(".json")]


async def _look(store: Store, infos: Sequence[ObjectInfo], now_ns: int) -> list[Seen]:
    async def one(info: ObjectInfo) -> Seen | None:
        age = now_ns - info.modified_ns
        live = age < LIFETIME_NS
        if age > _FORGOTTEN_NS:
            return Seen(info.key, False, age, None)
        try:
            document = encoding.unseal(await store.read(info.key, _MAX_LEASE), info.key, LeaseDocument)
        except NoObjectError:
            return None  # taken away between listing and reading
        except BadDataError:
            return Seen(info.key, live, age, _unreadable(info))
        runs = _runs(document.owner)
        return Seen(info.key, live if runs is None else runs, age, document)

    return [found for found in await side_by_side(one, infos) if found]


def _unreadable(info: ObjectInfo) -> LeaseDocument:
    purpose, _, nonce = info.key.removeprefix(layout.LEASES).removesuffix(".json").partition("-")
    return LeaseDocument(
        purpose=purpose,
        nonce=nonce,
        owner=Owner(host="?", pid=0),
        acquired_at=rfc3339(info.modified_ns),
        expires_at=rfc3339(info.modified_ns + LIFETIME_NS),
        labels=["*"],
    )


def process(pid: int) -> str:
    """Names a process for all time: this boot, this PID namespace, when it began; empty when there is none or it is unknown.

    The number and the host's name would not do: numbers are used again, and containers share host names.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").stat().st_ino
        facts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f"{boot}/{space}/{facts.rpartition(')')[2].split()[19]}"


def _runs(owner: Owner) -> bool | None:
    """Whether the owner runs, None when that cannot be known from here."""
    mine, theirs = process(os.getpid()).rpartition("/")[0], owner.process.rpartition("/")[0]
    if not mine or mine != theirs:
        return None
    return process(owner.pid) == owner.process


def locked(holder: LeaseDocument) -> LockedError:
    """The error that names who holds what is needed."""
    return LockedError(
        f"{holder.purpose} is at work on {holder.owner.host} (process {holder.owner.pid}) since {holder.acquired_at}",
        means="nothing was changed",
        hint="wait for it; if it died, its lease ends by itself five minutes after it was last renewed; `jetkeep unlock` shows "
        f"who holds what, and takes this one away with --force {holder.nonce} once you are sure that it does not run",
    )


def _steady_ns() -> int:
    """A clock that nobody sets, and that goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def rfc3339(ns: int) -> str:
    """A time in UTC, to the microsecond."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _ns(text: str) -> int:
    return (moment_of(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
