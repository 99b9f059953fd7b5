"""What a store must do: dumb bytes under keys. Everything above it is the same for every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar

from jetkeep.errors import AccessDeniedError, OutcomeUnknownError

A = TypeVar("A")
T = TypeVar("T")

#: Objects that are read at once when many small ones are wanted.
READS_AT_ONCE = 32
#: The code of a refusal to delete what a rule of the store keeps for some time.
RETAINED = "store.retained"
#: An upload whose answer was lost is made again after so long, in seconds: a connection that was reset is soon back.
_AGAIN_S = (0.05, 0.5, 2.0, 5.0)


class ObjectInfo(NamedTuple):
    """An object as a listing shows it: size in bytes, last change in nanoseconds since the epoch."""

    key: str
    size: int
    modified_ns: int


class Store(Protocol):
    """Keys are relative, `/`-separated, and pass `layout.check_key`; any other is refused with BadDataError.

    Reads and listings show every finished `create`, `replace` and `delete` of any process. Every method raises
    StoreFailedError when the store cannot be reached, is full or failed, and AccessDeniedError when it refuses. A `create`
    that failed has left no object, unless it says OutcomeUnknownError.
    """

    @property
    def url(self) -> str:
        """Where it is, for people; without secrets."""
        ...

    @property
    def remote(self) -> bool:
        """Each call is a request that takes its time and may cost money."""
        ...

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Create an object; on return it is whole, visible, and durable (or will be with the next `sync`).

        Raises:
            AlreadyThereError: the key is taken; what is there is untouched, and durable after the next `sync`.
            OutcomeUnknownError: the object may be there or not: look.
        """
        ...

    async def replace(self, key: str, data: bytes) -> None:
        """Put an object whether or not the key is taken, durably with the next `sync`.

        For leases, by their owner, and for damaged objects, by the bytes that their digest is of.
        """
        ...

    async def sync(self) -> None:
        """Make durable whatever was created with `durable=False`, and deletions, by this object.

        After an error nothing is known of what was to become durable: whoever relied on it must not commit.
        """
        ...

    async def read(self, key: str, max_bytes: int) -> bytes:
        """A whole object.

        Raises:
            NoObjectError: there is none.
            BadDataError: it is larger than `max_bytes`.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in no order; foreign files in a directory are listed too.

        A part that cannot be listed is an error: what is missing from a listing is believed to be absent.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete an object, durably with the next `sync`; one that is not there is deleted already."""
        ...

    async def remove_unfinished(self, before_ns: int) -> int:
        """Remove writes that never became objects and were last touched before that time; how many there were."""
        ...

    async def free_bytes(self) -> int | None:
        """Room that is left, None when the store does not say."""
        ...


async def create_surely(store: Store, key: str, data: bytes | memoryview, *, durable: bool) -> None:
    """Create an object although answers get lost; `AlreadyThereError` may then mean that it was us.

    Raises:
        AlreadyThereError: look whether it is what you wanted to be there.
        OutcomeUnknownError: answers were lost again and again.
    """
    for wait in _AGAIN_S:
        try:
            await store.create(key, data, durable=durable)
        except OutcomeUnknownError:
            await asyncio.sleep(wait)
            continue
        return
    await store.create(key, data, durable=durable)


async def delete_all(store: Store, keys: Iterable[str], check: Callable[[], None] = lambda: None) -> set[str]:
    """Delete objects, in no order where the store is far; which of them a rule of the store keeps from being deleted for now.

    `check` runs before each few and may raise to stop.
    """
    kept: set[str] = set()

    async def delete(key: str) -> None:
        try:
            await store.delete(key)
        except AccessDeniedError as refusal:
            if refusal.code != RETAINED:
                raise
            kept.add(key)

    few, every = READS_AT_ONCE if store.remote else 1, list(keys)
    for at in range(0, len(every), few):
        check()
        await side_by_side(delete, every[at : at + few])
    return kept


async def side_by_side(work: Callable[[A], Awaitable[T]], items: Iterable[A]) -> list[T]:
    """The work's result for each item, in order; at most READS_AT_ONCE are under way. The first failure ends it."""
    limit = asyncio.Semaphore(READS_AT_ONCE)

    async def one(item: A) -> T:
        async with limit:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
