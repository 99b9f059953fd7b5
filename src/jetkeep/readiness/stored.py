"""The repository's side of readiness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jetkeep import evidence
from jetkeep.errors import JetkeepError, StoreError
from jetkeep.readiness.findings import Level, Readiness, Thresholds
from jetkeep.repository.documents import Backup, moment_of
from jetkeep.repository.leases import CLOCKS_DIFFER_NS, lease, live_leases
from jetkeep.repository.repository import Repository
from jetkeep.repository.sets import RestorePoint, restore_points

#: The next backup shares nothing with earlier ones where streams have changed: below twice its size is a warning.
ROOM_FACTOR = 2.0
_CLOCKS_DIFFER_S = 300.0


async def probe_repository(
    repository: Repository,
    readiness: Readiness,
    thresholds: Thresholds,
    *,
    source: str | None,
    writing: bool,
    now_ns: Callable[[], int],
) -> None:
    """Probe that backups can be read and written, their room and age, and how the last drill went.

    `writing`: this machine makes backups; else a repository that takes no writes is only worth a warning. Of `source`
    only, or of each source that there is. Nothing stays in the repository.

    Raises:
        StoreError: the store does not answer.
    """
    backups, damage = await repository.backups()
    readiness.backups = len(backups)
    readiness.add("repository", Level.OK, f"{repository.url}: {len(backups)} backup{'' if len(backups) == 1 else 's'}")
    for one in damage:
        readiness.add("backups are readable", Level.CRITICAL, f"{one.error.what} [{one.error.code}]", one.error.hint)
    await _writable(repository, readiness, writing=writing, now_ns=now_ns)
    await _keys(repository, readiness)
    points = restore_points(backups)
    sources = sorted({one.source for one in backups if source in (None, one.source)})
    newest = {
        name: part for name in sources for point in points if (part := point.of(name)) is not None and part.complete
    }
    if not newest:
        of = f" of source {source}" if source else ""
        readiness.add("newest backup", Level.WARNING, f"there is no complete backup{of}", "run `jetkeep backup`")
    for name, point in sorted(newest.items()):
        _age(readiness, name, point, thresholds, now_ns() / 1e9)
    await _sets(repository, readiness, [one for one in points if source in (None, *one.sources)], now_ns())
    await _room(repository, readiness, [one for point in newest.values() for one in point.backups])
    await _drilled(repository, readiness, now_ns() / 1e9)


async def _writable(repository: Repository, readiness: Readiness, *, writing: bool, now_ns: Callable[[], int]) -> None:
    try:
        # What every reader writes, and takes away again.
        async with lease(repository.store, "read", now_ns=now_ns) as own:
            await own.others()  # tells how the clocks differ
    except StoreError as error:
        if writing:
            readiness.fail("repository takes writes", error)
        else:
            readiness.add("repository takes writes", Level.WARNING, f"{error.what} [{error.code}]", error.hint)
    else:
        readiness.add("repository takes writes", Level.OK, "yes")
        if abs(own.ahead_ns) > CLOCKS_DIFFER_NS:
            way = "ahead of" if own.ahead_ns > 0 else "behind"
            words = f"this machine's is {abs(own.ahead_ns) // 10**9} seconds {way} the store's"
            readiness.add("clock", Level.WARNING, words, "set the clock (NTP): `expire` does nothing until then")


async def _keys(repository: Repository, readiness: Readiness) -> None:
    """Whether the keys of a sealed repository are there: without them nothing is sealed, nor ever read again."""
    if repository.vault is None:
        return
    try:
        keyring = await repository.vault.keyring()
    except JetkeepError as error:
        readiness.fail("keys", error)
    else:
        readiness.add("keys", Level.OK, f"sealed for {len(keyring.names)}")


async def _sets(repository: Repository, readiness: Readiness, points: Sequence[RestorePoint], now_ns: int) -> None:
    """Name what the newest set lacks, unless a backup is at work, which may be its own."""
    newest = next((one for one in reversed(points) if one.parts), None)
    if newest is None:
        return
    if not newest.lost:
        readiness.add("newest set", Level.OK, f"{newest.label}: all {len(newest.parts)} parts are there")
    elif any(one.purpose == "backup" for one in await live_leases(repository.store, now_ns)):
        readiness.add("newest set", Level.OK, f"{newest.label} lacks {', '.join(newest.lost)}, and a backup is at work")
    else:
        hint = f"run the lost part again with --label {newest.label}: `jetkeep info` has the command"
        readiness.add("newest set", Level.WARNING, f"{newest.label} lacks {', '.join(newest.lost)}", hint)


def _age(readiness: Readiness, source: str, point: RestorePoint, thresholds: Thresholds, now_s: float) -> None:
    began = point.started.timestamp()
    readiness.newest[source] = began
    age = now_s - began
    words, hint = f"{point.label}, {_duration(age)} old", "find out why no backup was made since"
    level = Level.OK
    if age < -_CLOCKS_DIFFER_S:
        level, words, hint = Level.WARNING, f"{point.label} is from the future", "one of the clocks is wrong"
    elif age >= thresholds.critical_age_s:
        level = Level.CRITICAL
    elif age >= thresholds.warn_age_s:
        level = Level.WARNING
    readiness.add(f"newest backup of {source}", level, words, hint if level else "")


async def _room(repository: Repository, readiness: Readiness, newest: Sequence[Backup]) -> None:
    readiness.free_bytes = await repository.store.free_bytes()
    if readiness.free_bytes is None:
        return
    raw = sum(one.bytes for backup in newest for one in backup.streams)
    stored = sum(one.stored_bytes for backup in newest for one in backup.streams)
    needed = stored
    if readiness.raw_bytes is not None:
        # As the newest backups were packed; unpacked, where there is none.
        needed = int(readiness.raw_bytes * (min(1.0, stored / raw) if raw else 1.0))
    readiness.estimate_bytes = needed
    free = readiness.free_bytes
    words = f"{_size(free)} free, a full backup needs about {_size(needed)}"
    if free < needed:
        readiness.block("room", words, "make room: `jetkeep expire`, or a larger volume", 13)
    elif free < needed * ROOM_FACTOR:
        readiness.add("room", Level.WARNING, words, "make room soon: `jetkeep expire`, or a larger volume")
    else:
        readiness.add("room", Level.OK, words)


async def _drilled(repository: Repository, readiness: Readiness, now_s: float) -> None:
    try:
        numbers = await evidence.numbers(repository)
        last = await evidence.read(repository, numbers[-1]) if numbers else None
    except JetkeepError as error:
        readiness.add("newest drill", Level.WARNING, f"{error.what} [{error.code}]", error.hint)
        return
    if last is None:
        readiness.add("newest drill", Level.OK, "none yet: `jetkeep drill` proves that a backup comes back")
        return
    if gone := evidence.gaps(numbers):
        some = ", ".join(str(first) if first == end else f"{first} to {end}" for first, end in gone[:5])
        hint = "`jetkeep evidence verify` says what is known of it; who may delete in this repository?"
        readiness.add(
            "evidence is whole",
            Level.WARNING,
            f"the evidence of drill {some}{' and more' if gone[5:] else ''} is gone",
            hint,
        )
    verdict, due = str(last.body.get("verdict")), str(last.body.get("next_due"))
    if verdict != "SUCCESSFUL":
        hint = str(last.body.get("required_action") or "look at it, and drill again")
        readiness.add("newest drill", Level.WARNING, f"{verdict}: {last.key}", hint)
    elif moment_of(due).timestamp() < now_s:
        readiness.add("newest drill", Level.WARNING, f"the next one was due on {due[:10]}", "run `jetkeep drill`")
    else:
        readiness.add("newest drill", Level.OK, f"{verdict}, the next one is due on {due[:10]}")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"
