"""Between a sealed repository and its store: what a writer seals and a reader opens."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from jetkeep.repository import layout
from jetkeep.repository.documents import Backup, ManifestRef, SealedBy
from jetkeep.repository.encoding import damaged
from jetkeep.repository.keys import Credentials, Keyring, load_keys, unlock
from jetkeep.repository.refusals import not_pinned
from jetkeep.repository.sealing import RunKey, authenticate, open_object, read_header, seal_object
from jetkeep.repository.store import Store

#: Below this a thread costs more than the work.
_SMALL = 64 * 1024


@dataclass(frozen=True, slots=True)
class SealFor:
    """Who is to read a new repository."""

    recipients: tuple[str, ...] = ()
    passphrase: str | None = field(default=None, repr=False)


class Vault:
    """Seals and opens the objects of one repository; the keys are read when they are first needed.

    A writer has a key of its own for this run, and reads with it what it has just written, nothing else.
    """

    def __init__(self, store: Store, repository: str, pinned: str | None = None) -> None:
        self._store, self._repository, self._pinned = store, repository, pinned
        self._keyring: Keyring | None = None
        self._run: RunKey | None = None
        self._known: dict[bytes, bytes] = {}
        self._loading = asyncio.Lock()

    @property
    def unlocked(self) -> bool:
        """Whether everything can be read, not only what this run wrote."""
        return self._keyring is not None and self._keyring.unlocked

    async def keyring(self) -> Keyring:
        """The repository's keys.

        Raises:
            AccessDeniedError: they are missing.
        """
        async with self._loading:
            if self._keyring is None:
                self._keyring = await load_keys(self._store)
            return self._keyring

    async def unlock(self, credentials: Credentials) -> None:
        """Be able to read.

        Raises:
            AccessDeniedError: these credentials open nothing.
        """
        await unlock(await self.keyring(), credentials)

    async def seal(self, data: bytes | memoryview, bound: str, needs: Sequence[ManifestRef] = ()) -> memoryview:
        """The sealed object for these bytes under this name (`layout.bound_name`)."""
        run = await self._run_key()
        if len(data) < _SMALL:
            return seal_object(data, run, self._repository, bound, needs)
        return await asyncio.to_thread(seal_object, data, run, self._repository, bound, needs)

    async def seal_again(self, data: bytes, key: str, wrapped: str, needs: Sequence[ManifestRef] = ()) -> memoryview:
        """The object under `key` as the run with this wrapped key (base64) sealed it, from its plain bytes.

        Raises:
            AccessDeniedError: nobody with its key is here.
            BadDataError: it is no such key.
        """
        await self.keyring()
        try:
            raw = base64.b64decode(wrapped, validate=True)
        except ValueError:
            raise damaged(key, "its run's key cannot be read") from None
        run = RunKey(self._unwrap(raw), raw)
        return await asyncio.to_thread(seal_object, data, run, self._repository, layout.bound_name(key), needs)

    async def open(self, data: bytes, key: str, backup: Backup | None = None) -> bytes:
        """The plain bytes of the object under `key`; sealed by the run that made `backup`, where that is given.

        Raises:
            AccessDeniedError: nobody with its key is here.
            BadDataError: it is not what was sealed under this name, or by that run.
        """
        if not self._run:
            await self.keyring()
        run = backup.sealed.key if backup and backup.sealed else None
        name = layout.bound_name(key)
        if len(data) < _SMALL:
            return open_object(data, self._unwrap, self._repository, name, key, run)
        return await asyncio.to_thread(open_object, data, self._unwrap, self._repository, name, key, run)

    async def vouch(self, backup: Backup) -> Backup:
        """The backup without what would tell of its messages, and with this run's code over it."""
        run = await self._run_key()
        sealed = SealedBy(key=base64.b64encode(run.wrapped).decode(), code="")
        streams = [msgspec.structs.replace(one, fingerprint="") for one in backup.streams]
        backup = msgspec.structs.replace(backup, features=["sealed"], streams=streams, sealed=sealed)
        sealed.code = authenticate(run.secret, msgspec.json.encode(backup))
        return backup

    def check(self, backup: Backup, body: bytes, key: str) -> None:
        """A backup's document, with these bytes as its body, is the one that its run wrote, as far as can be told.

        Raises:
            BadDataError: it was changed, or nobody vouches for it.
        """
        if not backup.sealed:
            raise damaged(key, "nobody vouches for it, and the repository is sealed", "mismatch")
        if not self.unlocked:
            return
        try:
            secret = self._unwrap(base64.b64decode(backup.sealed.key, validate=True))
        except ValueError:
            raise damaged(key, "its run's key cannot be read", "mismatch") from None
        if authenticate(secret, body.replace(backup.sealed.code.encode(), b"", 1)) != backup.sealed.code:
            raise damaged(key, "it was changed after its run wrote it", "mismatch")

    def _unwrap(self, wrapped: bytes) -> bytes:
        if wrapped not in self._known:
            assert self._keyring, "the keyring is read first"
            self._known[wrapped] = self._keyring.unwrap(wrapped)
        return self._known[wrapped]

    async def _run_key(self) -> RunKey:
        keyring = await self.keyring()
        if self._pinned and keyring.recipient != self._pinned:
            raise not_pinned(self._store.url, keyring.recipient, self._pinned)
        if self._run is None:
            self._run = keyring.run_key()
            self._known[self._run.wrapped] = self._run.secret
        return self._run


def needs_of(data: bytes, key: str) -> list[ManifestRef]:
    """What a sealed manifest says that it needs; readable without any key, and under the manifest's digest.

    Raises:
        BadDataError: it is no sealed object.
    """
    return read_header(data, key)[0].needs
