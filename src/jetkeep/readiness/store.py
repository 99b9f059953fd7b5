"""The store's side of readiness: what it does, and what these credentials may do with it.

Only small objects under `leases/` are written, which nobody reads, and taken away again where that is permitted. Nothing
that is finished is touched: that its keys may be written is learnt from an upload that must be refused because it is there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from jetkeep.errors import AccessDeniedError, AlreadyThereError, JetkeepError, NoObjectError, StoreError
from jetkeep.readiness.findings import Level, Readiness
from jetkeep.repository import encoding, layout
from jetkeep.repository.leases import CLOCKS_DIFFER_NS
from jetkeep.repository.locking import LockingStore, PartialReads
from jetkeep.repository.store import RETAINED, Store

_DATA = b"jetkeep tries what this store does; to be deleted\n" * 20


async def probe_store(store: Store, readiness: Readiness, *, writing: bool, now_ns: Callable[[], int]) -> None:
    """Probe listings, put-if-absent, reads, deletion, the clock, object lock, and what is permitted.

    `writing`: this machine makes backups; else credentials that only read are worth no warning.
    """
    probe = _Probe(store, readiness, writing, now_ns)
    listed = await probe.lists()
    readable = await probe.reads()
    if await probe.adds():
        await probe.refuses_a_second()
        if listed:
            await probe.shows_at_once()
        await probe.reads_back()
        await probe.replaces()
        await probe.locks()
        await probe.deletes()
        if readable:
            await probe.may_write_backups(readable)
    await probe.may_expire()


class _Probe:
    def __init__(self, store: Store, readiness: Readiness, writing: bool, now_ns: Callable[[], int]) -> None:
        self._store, self._readiness, self._writing, self._now_ns = store, readiness, writing, now_ns
        self._key = layout.probe_key(secrets.token_hex(8))
        self._began_ns = self._ended_ns = now_ns()

    def _ok(self, name: str, what: str) -> None:
        self._readiness.add(f"store: {name}", Level.OK, what)

    def _warn(self, name: str, what: str, hint: str) -> None:
        self._readiness.add(f"store: {name}", Level.WARNING, what, hint)

    def _fail(self, name: str, what: str, hint: str, status: int = 13) -> None:
        self._readiness.block(f"store: {name}", what, hint, status)

    def _failed(self, name: str, error: JetkeepError, feature: str) -> None:
        self._fail(name, f"{error.what} [{error.code}]", f"{error.hint}; without it: no {feature}", error.exit_status)

    async def lists(self) -> bool:
        try:
            async for _ in self._store.list(layout.LEASES):
                break
        except StoreError as error:
            self._failed("list", error, "command works")
            return False
        self._ok("list", "permitted")
        return True

    async def reads(self) -> bytes:
        """What lies at the repository's own key; empty when nothing does."""
        try:
            data = await self._store.read(layout.REPOSITORY, encoding.MAX_DOCUMENT)
        except NoObjectError:
            self._ok("read", "no repository is there yet")
            return b""
        except JetkeepError as error:
            self._failed("read", error, "command works")
            return b""
        self._ok("read", "permitted")
        return data

    async def adds(self) -> bool:
        self._began_ns = self._now_ns()
        try:
            await self._store.create(self._key, _DATA)
        except StoreError as error:
            if not self._writing:
                what = "not permitted: nothing keeps expire from what is read here"
                self._ok("add", what if isinstance(error, AccessDeniedError) else error.what)
            else:
                self._failed("add", error, "backup")
            return False
        self._ended_ns = self._now_ns()
        self._ok("add", "permitted")
        return True

    async def refuses_a_second(self) -> None:
        try:
            await self._store.create(self._key, _DATA)
        except AlreadyThereError:
            self._ok("put-if-absent", "an object that is there is not overwritten")
        except StoreError as error:
            self._failed("put-if-absent", error, "backup is safe from another with the same label")
        else:
            self._fail(
                "put-if-absent",
                "the store overwrote an object although it was asked not to (If-None-Match)",
                "use a store, or a version of it, that knows conditional writes; without it: two backups can take one label",
            )

    async def shows_at_once(self) -> None:
        try:
            infos = {info.key: info async for info in self._store.list(layout.LEASES)}
        except StoreError as error:
            self._failed("listing", error, "command works")
            return
        if self._key not in infos:
            hint = "use a store whose listings do not lag; without it: expire may take what a backup needs"
            self._fail("listing", "an object that was just written is not listed", hint)
            return
        self._ok("listing", "shows what was just written")
        self._clock(infos[self._key].modified_ns)

    def _clock(self, modified_ns: int) -> None:
        early, late = self._began_ns - modified_ns, modified_ns - self._ended_ns
        off = max(early, late, 0)
        words = f"this machine's is {off // 10**9} s {'ahead' if early > late else 'behind'}"
        if off > CLOCKS_DIFFER_NS:
            hint = "set it (NTP); without it: wrong times in backups, no expire from five minutes on"
            self._warn("clock", words, hint)
        else:
            self._ok("clock", "the store's and this machine's agree to a minute")

    async def reads_back(self) -> None:
        try:
            whole = await self._store.read(self._key, len(_DATA))
            part = await self._store.read_range(self._key, 100, 50) if isinstance(self._store, PartialReads) else None
        except JetkeepError as error:
            self._failed("read back", error, "restore")
            return
        if whole != _DATA:
            self._fail("read back", "other bytes came back than were written", "do not use this store")
        elif part is not None and part != _DATA[100:150]:
            hint = "without it: DuckDB and others read whole segments there; jetkeep itself always does"
            self._warn("ranges", "a part of an object cannot be read alone", hint)
        else:
            self._ok("read back", "the same bytes" + ("" if part is None else ", whole and in parts"))

    async def replaces(self) -> None:
        try:
            await self._store.replace(self._key, _DATA)
        except (AccessDeniedError, AlreadyThereError):
            self._ok("replace", "not permitted: a backup that takes long goes on with a lease under another name")
        except StoreError as error:
            self._failed("replace", error, "backup that takes longer than four minutes")
        else:
            self._ok("replace", "permitted for leases")

    async def locks(self) -> None:
        if not isinstance(self._store, LockingStore):
            return
        try:
            rule = await self._store.retention(self._key)
            tried = (
                await self._store.try_lock(layout.probe_key(secrets.token_hex(8)), _DATA) if self._store.lock else None
            )
        except StoreError as error:
            hint = "make the bucket with object lock, permit s3:PutObjectRetention and s3:GetObjectRetention, or take `lock` away"
            self._fail("object lock", f"{error.what} [{error.code}]", hint, error.exit_status)
            return
        if rule:
            days = (rule.until_ns - rule.since_ns) / 86400e9
            self._ok("object lock", f"the bucket's rule keeps each object for {days:.3g} days ({rule.mode})")
        if self._store.lock is None:
            if not rule:
                self._ok("object lock", "none that shows: who may delete here can delete backups")
        elif tried:
            self._ok("object lock", f"uploads are locked for {self._store.lock.days} days or longer ({tried.mode})")
        else:
            hint = "permit s3:GetObjectRetention; without it: every backup writes all segments again"
            self._warn("object lock", "an upload that asked to be locked does not show that it is", hint)

    async def deletes(self) -> None:
        try:
            await self._store.delete(self._key)
            await self._store.read(self._key, len(_DATA))
        except NoObjectError:
            self._ok("delete leases", "permitted")
        except AccessDeniedError as refusal:
            why = "kept by the bucket's rule" if refusal.code == RETAINED else "not permitted"
            self._ok("delete leases", f"{why}: they stay, and end by themselves; so does {self._key}")
        except JetkeepError as error:
            self._failed("delete leases", error, "expire")
        else:
            hint = "use a store whose reads do not lag; without it: no expire"
            self._fail("delete leases", "an object that was deleted can still be read", hint)

    async def may_write_backups(self, data: bytes) -> None:
        if any(one.level == Level.CRITICAL and one.name == "store: put-if-absent" for one in self._readiness.probes):
            return
        try:
            # The same bytes as are there, and only if they are not there.
            await self._store.create(layout.REPOSITORY, data)
        except AlreadyThereError:
            self._ok("make backups", "permitted")
        except AccessDeniedError as refusal:
            if self._writing:
                self._failed("make backups", refusal, "backup")
            else:
                self._ok("make backups", "not permitted; needed for backup, import and copy only")
        except StoreError as error:
            self._failed("make backups", error, "backup")

    async def may_expire(self) -> None:
        """Deleting what is not there needs the permission all the same."""
        try:
            for folder in (layout.BACKUPS, layout.SOURCES):
                await self._store.delete(f"{folder}{secrets.token_hex(8)}.probe")
        except AccessDeniedError:
            self._ok(
                "delete backups",
                "not permitted; needed for expire only: whoever steals these credentials cannot either",
            )
        except StoreError as error:
            self._failed("delete backups", error, "expire")
        else:
            self._ok(
                "delete backups",
                "permitted, as expire needs it; a writer does without (docs/how-to/least-privilege.md)",
            )
