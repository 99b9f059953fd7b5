"""Leases: who is at work in a repository (docs/format.md, *Writing and deleting at the same time*)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from jetkeep.errors import LockedError, NoObjectError, StoreError
from jetkeep.repository import documents, layout
from jetkeep.repository.documents import LeaseDocument, Owner
from jetkeep.repository.store import Store

LIFETIME_NS = 300 * 10**9
RENEWAL_S = 60.0
EXPIRE_WAIT_S = 60.0
LeaseClock = Callable[[], int]


class Lease:
    """A lease that this process holds; renewed until its context ends."""

    def __init__(self, store: Store, document: LeaseDocument, now_ns: LeaseClock) -> None:
        self._store, self._now_ns = store, now_ns
        self.document = document
        self.key = f"{layout.LEASES}{document.purpose}-{document.nonce}.json"

    async def others(self) -> list[LeaseDocument]:
        """The live leases of everybody else."""
        return [one for one in await live_leases(self._store, self._now_ns()) if one.nonce != self.document.nonce]

    async def wait_for_expire(self, patience_s: float = EXPIRE_WAIT_S) -> None:
        """Return when no expire is at work.

        Raises:
            LockedError: it still is after `patience_s` seconds.
        """
        waited = 0.0
        while holders := [one for one in await self.others() if one.purpose == "expire"]:
            if waited >= patience_s:
                raise locked(holders[0])
            await asyncio.sleep(0.5)
            waited += 0.5

    async def renew(self) -> None:
        """Extend the lease from now."""
        self.document.expires_at = rfc3339(self._now_ns() + LIFETIME_NS)
        await self._store.replace(self.key, documents.seal(self.document))

    async def keep(self) -> None:
        """Renew for ever; one failed renewal is made good by the next, long before the lease ends."""
        while True:
            await asyncio.sleep(RENEWAL_S)
            with contextlib.suppress(StoreError):
                await self.renew()


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
        owner=Owner(host=platform.node(), pid=os.getpid()),
        acquired_at=rfc3339(now),
        expires_at=rfc3339(now + LIFETIME_NS),
        labels=list(labels),
    )
    held = Lease(store, document, now_ns)
    await store.create(held.key, documents.seal(document))
    keeper = asyncio.create_task(held.keep())
    try:
        yield held
    finally:
        keeper.cancel()
        # A lease that cannot be taken away ends by itself; the work's own result stands.
        with contextlib.suppress(StoreError):
            await asyncio.shield(store.delete(held.key))


async def live_leases(store: Store, now_ns: int) -> list[LeaseDocument]:
    """All leases that have not ended by the clock `now_ns`. One that cannot be read counts as live: it may protect."""
    found = []
    async for info in store.list(layout.LEASES):
        try:
            data = await store.read(info.key, documents.MAX_DOCUMENT)
        except NoObjectError:
            continue  # taken away between listing and reading
        document = documents.unseal(data, info.key, LeaseDocument)
        if _ns(document.expires_at) > now_ns and not _dead(document.owner):
            found.append(document)
    return found


def _dead(owner: Owner) -> bool:
    """The owner ran on this machine and does not any more."""
    if owner.host != platform.node():
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def locked(holder: LeaseDocument) -> LockedError:
    """The error that names who holds what is needed."""
    return LockedError(
        f"{holder.purpose} is at work on {holder.owner.host} (process {holder.owner.pid}) since {holder.acquired_at}",
        means="nothing was changed",
        hint=f"wait for it; if it died, its lease ends by itself at {holder.expires_at}",
    )


def rfc3339(ns: int) -> str:
    """A time in UTC, to the microsecond."""
    return datetime.fromtimestamp(ns / 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _ns(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 10**9)
