"""The same backup, stream and segment in another repository."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from jetkeep.repository.documents import Backup, SegmentRef, StreamEntry


class Rows(NamedTuple):
    """What a segment holds, wherever and however it is stored."""

    first_seq: int
    last_seq: int
    rows: int
    raw_bytes: int
    fingerprint: str


def rows_of(ref: SegmentRef) -> Rows:
    """What a segment holds, as its reference says."""
    return Rows(ref.first_seq, ref.last_seq, ref.count, ref.raw_bytes, ref.fingerprint)


def same_backup(backup: Backup, there: Iterable[Backup]) -> Backup | None:
    """The backup of the same run."""
    return next((one for one in there if one.identity == backup.identity), None)


def same_stream(entry: StreamEntry, backup: Backup) -> StreamEntry | None:
    """The entry of the same stream with the same messages in another repository's backup of the run."""
    found = backup.stream(entry.name)
    if found is None or _shape(found) != _shape(entry):
        return None
    # A sealed repository does not tell the fingerprint.
    return found if not (found.fingerprint and entry.fingerprint) or found.fingerprint == entry.fingerprint else None


def _shape(entry: StreamEntry) -> tuple[str, int, int, int, int]:
    return entry.timeline, entry.messages, entry.first_seq, entry.last_seq, entry.gaps
