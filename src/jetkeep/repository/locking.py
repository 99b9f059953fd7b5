"""Objects that the store itself keeps from being deleted: S3 Object Lock, asked for with each upload or by the bucket's rule.

A backup is as safe as the object that is let go first. So a segment that is there already is used again only while it
stays locked as long as a new one would; else it is written once more, beside it (docs/how-to/object-lock.md).
"""

from __future__ import annotations

import email.utils
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jetkeep.errors import AccessDeniedError, StoreFailedError
from jetkeep.repository.store import Store

#: Objects are locked for so much longer than was asked for, so that backups of the days in between can share them.
SHARED = 0.5
#: With a bucket's own rule: how much shorter than a new object an old one may stay, for instance of a run that died.
_NEAR = 0.05
_DAY_NS = 24 * 3600 * 10**9
_TIMEOUT_S = 30
#: A question that was not answered is asked again after so long, in seconds: it changes nothing.
_AGAIN_S = (0.2, 1.0, 5.0)


class Lock(NamedTuple):
    """What each upload asks for: governance can be lifted by who has a permission of its own, compliance by nobody."""

    mode: Literal["governance", "compliance"]
    days: int

    def headers(self, now_ns: int, seconds: float | None = None) -> dict[str, str]:
        """The retention of an object that is uploaded now; for so many seconds, where they are given."""
        until = datetime.fromtimestamp(now_ns / 1e9, UTC) + timedelta(
            seconds=self.days * 86400 * (1 + SHARED) if seconds is None else seconds
        )
        return {
            "x-amz-object-lock-mode": self.mode.upper(),
            "x-amz-object-lock-retain-until-date": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


class Retention(NamedTuple):
    """How long the store keeps an object, and since when it is there; nanoseconds since the epoch."""

    mode: str
    since_ns: int
    until_ns: int


@runtime_checkable
class LockingStore(Protocol):
    """A store that can lock objects; `lock` is what uploads ask for, None when they leave it to the bucket."""

    lock: Lock | None

    async def retention(self, key: str) -> Retention | None:
        """How long an object is kept, None when it is not, or when the store or the permissions do not tell.

        Raises:
            StoreError: the store cannot be reached.
        """
        ...

    async def try_lock(self, key: str, data: bytes) -> Retention | None:
        """Create an object that is locked for a minute or two; how the store tells it.

        Raises:
            StoreError: the bucket locks nothing, or it is not permitted.
        """
        ...


@runtime_checkable
class PartialReads(Protocol):
    """A store that gives a part of an object."""

    async def read_range(self, key: str, start: int, length: int) -> bytes:
        """So many bytes from `start` on."""
        ...


async def retained_until(store: Store, key: str) -> int | None:
    """Until when the store refuses to delete an object, in nanoseconds since the epoch; None when it does not."""
    kept = await store.retention(key) if isinstance(store, LockingStore) else None
    return kept.until_ns if kept else None


class Sharing:
    """Which objects that are there already a backup of this run may name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = store.lock if isinstance(store, LockingStore) else None
        self._locked = self._lock is not None
        self._folders: dict[str, set[str]] = {}

    async def start(self, key_of: Callable[[int], str]) -> tuple[int, bool]:
        """With which copy of an object to begin, and whether it is there for certain: then nothing need be uploaded to learn it."""
        if not self._locked:
            return 1, False
        folder = key_of(1).rpartition("/")[0] + "/"
        if folder not in self._folders:
            self._folders[folder] = {info.key async for info in self._store.list(folder)}
        there = self._folders[folder]
        copy = 1
        while key_of(copy) in there and key_of(copy + 1) in there:
            copy += 1
        return copy, key_of(copy) in there

    async def may_use(self, key: str) -> bool:
        """Whether an object that is there stays at least as long as the run's own objects are to stay."""
        kept = await self._store.retention(key) if isinstance(self._store, LockingStore) else None
        left = kept.until_ns - time.time_ns() if kept else 0
        if self._lock:
            return left >= self._lock.days * _DAY_NS
        if kept is None:
            return True
        self._locked = True
        return left >= (kept.until_ns - kept.since_ns) * (1 - _NEAR)


def ask(url: str, ca_file: str | None) -> Retention | None:
    """What a signed request for an object's head tells of its retention. Blocks; to be called in a thread.

    Raises:
        StoreFailedError: the store does not answer, also when it is asked again.
        AccessDeniedError: it refuses.
    """
    for wait in _AGAIN_S:
        try:
            return _ask_once(url, ca_file)
        except StoreFailedError:
            time.sleep(wait)
    return _ask_once(url, ca_file)


def _ask_once(url: str, ca_file: str | None) -> Retention | None:
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the store's own client made the URL
    trust = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=trust) as answer:  # noqa: S310
            return retention_of(answer.headers)
    except urllib.error.HTTPError as refusal:
        if refusal.code == 404:
            return None
        kind, reason = AccessDeniedError if refusal.code in (401, 403) else StoreFailedError, str(refusal)
    except (urllib.error.URLError, OSError) as failure:
        kind, reason = StoreFailedError, str(getattr(failure, "reason", failure))
    raise kind(
        f"the store did not say how long an object is locked: {reason}",
        means="finished backups are untouched",
        hint="run it again" if kind is StoreFailedError else "give these credentials the permission to read objects",
        retryable=kind is StoreFailedError,
    )


def retention_of(headers: Mapping[str, str]) -> Retention | None:
    """The retention that an answer's headers tell, None without or with one that cannot be read."""
    mode, until = headers.get("x-amz-object-lock-mode"), headers.get("x-amz-object-lock-retain-until-date")
    if not mode or not until:
        return None
    try:
        since = email.utils.parsedate_to_datetime(headers.get("last-modified") or "").timestamp()
        ends = datetime.fromisoformat(until).timestamp()
    except ValueError:
        return None
    return Retention(mode.lower(), int(since * 1e9), int(ends * 1e9))
