"""Pins: backups that no rule lets go."""

from __future__ import annotations

from jetkeep.errors import AlreadyThereError, BadDataError, StoreError
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import Pin
from jetkeep.repository.leases import LeaseClock, lease, rfc3339
from jetkeep.repository.names import check_label
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import create_surely, side_by_side


async def pins(repository: Repository) -> dict[str, Pin]:
    """Pins by label. A damaged one protects as well: what counts is that it is there."""
    store = repository.store

    async def one(label: str) -> Pin:
        key = layout.pin_key(label)
        try:
            return encoding.unseal(await store.read(key, encoding.MAX_DOCUMENT), key, Pin)
        except (BadDataError, StoreError):
            return Pin(label=label, pinned_at=rfc3339(0), reason="the pin itself cannot be read")

    labels = [label async for info in store.list(layout.PINS) if (label := layout.label_of(info.key))]
    return dict(zip(labels, await side_by_side(one, labels), strict=True))


async def pin(repository: Repository, label: str, reason: str, *, now_ns: LeaseClock) -> None:
    """Pin a backup; durable on return, and no expire lets it go any more. Pinning twice keeps the first reason.

    Raises:
        UsageError: there is no such backup.
        LockedError: an expire is at work and does not end.
    """
    document = Pin(label=check_label(label), pinned_at=rfc3339(now_ns()), reason=reason)
    async with lease(repository.store, "read", now_ns=now_ns, labels=[label]) as held:
        await held.wait_for_expire()  # it may have decided already
        await repository.read_backup(label)
        try:
            await create_surely(repository.store, layout.pin_key(label), encoding.seal(document), durable=True)
        except AlreadyThereError:
            return


async def unpin(repository: Repository, label: str) -> None:
    """Take a pin away, durably; one that is not there is away already."""
    await repository.store.delete(layout.pin_key(check_label(label)))
    await repository.store.sync()
