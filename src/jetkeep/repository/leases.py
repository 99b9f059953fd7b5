"""Leases: who is at work in a repository (docs/format.md, *Writing and deleting at the same time*)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
from jetkeep.repository.store import ObjectInfo, Store, create_surely

LIFETIME_NS = 300 * 10**9
RENEWAL_S = 60.0
#: Nothing is committed or deleted under a lease that has less than this left: others may be about to ignore it.
MARGIN_NS = 60 * 10**9
#: Longer than the lease of an expire that died lasts.
EXPIRE_PATIENCE_S = 900.0
_MAX_LEASE = 1024 * 1024
LeaseClock = Callable[[], int]


class Lease:
    """A lease that this process holds; renewed until its context ends."""

    def __init__(self, store: Store, document: LeaseDocument, now_ns: LeaseClock) -> None:
        self._store, self._now_ns = store, now_ns
        self.document = document
        self.key = layout.lease_key(document.purpose, document.nonce)
        self._lapsed = False
        self._changing = asyncio.Lock()

    async def others(self) -> list[LeaseDocument]:
        """The live leases of everybody else."""
        return [one for one in await live_leases(self._store, self._now_ns()) if one.nonce != self.document.nonce]

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
            LockedError: it could not be renewed in time (a suspended machine, a store that did not answer).
        """
        if self._left() < MARGIN_NS:
            raise LockedError(
                f"this run's lease {self.key} was not renewed in time, so others may have taken this run for dead",
                code="repository.lease-lapsed",
                means="nothing was committed or deleted after that; finished backups are untouched",
                hint="run it again; if it comes back, look at whether the store answers and the clock is steady",
            )

    async def renew(self) -> None:
        """Extend the lease from now; a clock that went back does not shorten it."""
        async with self._changing:
            self._left()
            ends = max(_ns(self.document.expires_at), self._now_ns() + LIFETIME_NS)
            renewed = msgspec.structs.replace(self.document, expires_at=rfc3339(ends))
            await self._store.replace(self.key, encoding.seal(renewed))
            self.document = renewed

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
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._store.delete(self.key))

    def _left(self) -> int:
        """How long it still holds, in nanoseconds; below 0 for ever once it has ended."""
        left = _ns(self.document.expires_at) - self._now_ns()
        self._lapsed = self._lapsed or left < 0
        return -1 if self._lapsed else left


@asynccontextmanager
async def lease(store: Store, purpose: str, *, now_ns: LeaseClock, labels: Sequence[str] = ()) -> AsyncIterator[Lease]:
    """Hold a lease while the block runs; `labels` are the backups that it protects.

    Raises:
        StoreError: it could not be created.
    """
    now = now_ns()
    document = LeaseDocument(
        purpose=purpose,
        nonce=secrets.token_hex(8),
        owner=Owner(host=platform.node(), pid=os.getpid(), process=process(os.getpid())),
        acquired_at=rfc3339(now),
        expires_at=rfc3339(now + LIFETIME_NS),
        labels=list(labels),
    )
    held = Lease(store, document, now_ns)
    creating = asyncio.ensure_future(_create(store, held.key, encoding.seal(document)))
    try:
        await asyncio.shield(creating)
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
        await create_surely(store, key, data, durable=True)


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
    """All leases whose owner runs, or where that cannot be known, that have not ended by the clock `now_ns`.

    A damaged one protects everything for as long as it can have been live: it comes back with the purpose of its
    name and the label `*`.
    """
    return [document for _, document in await _leases(store, now_ns) if document is not None]


async def remove_dead_leases(store: Store, now_ns: int) -> None:
    """Remove the leases that crashed runs left behind."""
    for info, document in await _leases(store, now_ns):
        if document is None:
            await store.delete(info.key)


async def _leases(store: Store, now_ns: int) -> list[tuple[ObjectInfo, LeaseDocument | None]]:
    """Every lease with its document, None when it has ended."""
    found: list[tuple[ObjectInfo, LeaseDocument | None]] = []
    async for info in store.list(layout.LEASES):
        if not info.key.endswith(".json"):
            continue
        try:
            document = encoding.unseal(await store.read(info.key, _MAX_LEASE), info.key, LeaseDocument)
            runs = _runs(document.owner)
            live = _ns(document.expires_at) > now_ns if runs is None else runs
            found.append((info, document if live else None))
        except NoObjectError:
            continue  # taken away between listing and reading
        except (BadDataError, ValueError):
            live = now_ns - info.modified_ns < LIFETIME_NS
            found.append((info, _unreadable(info) if live else None))
    return found


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
    key = layout.lease_key(holder.purpose, holder.nonce)
    return LockedError(
        f"{holder.purpose} is at work on {holder.owner.host} (process {holder.owner.pid}) since {holder.acquired_at}",
        means="nothing was changed",
        hint=f"wait for it; if it died, its lease ends at {holder.expires_at} by the clock of its machine: if that is wrong, "
        f"remove {key} once you are sure that it does not run",
    )


def rfc3339(ns: int) -> str:
    """A time in UTC, to the microsecond."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _ns(text: str) -> int:
    return (moment_of(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
