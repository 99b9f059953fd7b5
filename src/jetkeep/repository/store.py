"""What a store must do: dumb bytes under keys. Everything above it is the same for every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol


class ObjectInfo(NamedTuple):
    """An object as a listing shows it: size in bytes, last change in nanoseconds since the epoch."""

    key: str
    size: int
    modified_ns: int


class Store(Protocol):
    """Keys are relative, `/`-separated, made by repository.layout only.

    Every method raises StoreFailedError when the store cannot be reached, is full or failed, and AccessDeniedError when
    it refuses; a failed `create` has left no object, unless it says OutcomeUnknownError.
    """

    @property
    def url(self) -> str:
        """Where it is, for people; without secrets."""
        ...

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Create an object; on return it is whole, visible, and durable (or will be with the next `sync`).

        Raises:
            AlreadyThereError: the key is taken; what is there is untouched.
        """
        ...

    async def replace(self, key: str, data: bytes) -> None:
        """Put an object whether or not the key is taken; for leases only, by their owner."""
        ...

    async def sync(self) -> None:
        """Make durable whatever was created with `durable=False`."""
        ...

    async def read(self, key: str, max_bytes: int) -> bytes:
        """A whole object.

        Raises:
            NoObjectError: there is none.
            BadDataError: it is larger than `max_bytes`.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in no order."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is deleted already."""
        ...

    async def free_bytes(self) -> int | None:
        """Room that is left, None when the store does not say."""
        ...
