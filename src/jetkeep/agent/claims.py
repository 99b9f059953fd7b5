"""Of several replicas one does the work of an occurrence: who creates its claim (ADR 013)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec

from jetkeep.errors import AccessDeniedError, AlreadyThereError, BadDataError, NoObjectError, StoreError
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import ClaimDocument, Owner
from jetkeep.repository.leases import process, rfc3339
from jetkeep.repository.store import Store, create_surely

#: A claim whose owner did not write it again for so long is of a dead one. Nobody's clock counts: others watch it that long.
LIFETIME_S = 180.0
RENEWAL_S = 45.0
_MAX_CLAIM = 64 * 1024


class Claim:
    """The right to do the work of one occurrence; written again until the block ends."""

    def __init__(self, store: Store, key: str, document: ClaimDocument) -> None:
        self._store, self.key, self.document = store, key, document

    async def keep(self) -> None:
        """Say for ever that we are alive; one that fails is made good by the next."""
        while True:
            await asyncio.sleep(RENEWAL_S)
            with contextlib.suppress(StoreError):
                await self._write()

    async def finish(self, outcome: str) -> None:
        """Say that the work was done, or failed; where that cannot be written, others think that we died."""
        self.document = msgspec.structs.replace(self.document, finished_at=rfc3339(time.time_ns()), outcome=outcome)
        with contextlib.suppress(StoreError):
            await self._write()

    async def _write(self) -> None:
        with contextlib.suppress(AccessDeniedError, AlreadyThereError):  # a key that can only add
            self.document.renewals += 1
            await self._store.replace(self.key, encoding.seal(self.document))


@asynccontextmanager
async def held(claim: Claim) -> AsyncIterator[Claim]:
    """Keep a claim alive while the block runs."""
    keeper = asyncio.create_task(claim.keep())
    try:
        yield claim
    finally:
        keeper.cancel()


async def take(store: Store, schedule: str, occurrence: datetime, attempt: int = 1) -> Claim | None:
    """Claim an occurrence; None when somebody else has. `attempt` counts those who died at it.

    Raises:
        StoreError: the store does not answer.
    """
    document = ClaimDocument(
        schedule=schedule,
        occurrence=rfc3339(round(occurrence.timestamp()) * 10**9),
        nonce=secrets.token_hex(8),
        owner=Owner(host=platform.node(), pid=os.getpid(), process=process(os.getpid())),
        acquired_at=rfc3339(time.time_ns()),
    )
    key, data = layout.claim_key(occurrence, schedule, attempt), encoding.seal(document)
    with contextlib.suppress(AlreadyThereError):
        await create_surely(store, key, data, durable=True)
    # Some object stores tell several writers that each was first, and an answer of ours can be lost: what is there counts.
    mine = await read(store, key)
    return Claim(store, key, document) if mine and mine.nonce == document.nonce else None


async def read(store: Store, key: str) -> ClaimDocument | None:
    """A claim; None when there is none, or none that can be read.

    Raises:
        StoreError: the store does not answer.
    """
    try:
        return encoding.unseal(await store.read(key, _MAX_CLAIM), key, ClaimDocument)
    except (NoObjectError, BadDataError):
        return None


async def newest_of(store: Store, schedule: str) -> datetime | None:
    """The newest occurrence of a schedule that anybody claimed.

    Raises:
        StoreError: the store does not answer.
    """
    found = [told for info in [one async for one in store.list(layout.CLAIMS)] if (told := layout.claim_of(info.key))]
    return max((occurrence for occurrence, name, _ in found if name == schedule), default=None)


async def outlive(store: Store, schedule: str, occurrence: datetime, attempt: int = 1) -> int | None:
    """Watch somebody else's claim until it is finished (None), or until its owner must be dead: the next attempt's number.

    Raises:
        StoreError: the store does not answer.
    """
    key = layout.claim_key(occurrence, schedule, attempt)
    seen, since = await read(store, key), time.monotonic()
    while seen is None or not seen.finished_at:
        if time.monotonic() - since > LIFETIME_S:
            return attempt + 1
        await asyncio.sleep(min(RENEWAL_S, LIFETIME_S / 6))
        now = await read(store, key)
        if now != seen:
            seen, since = now, time.monotonic()
    return None
