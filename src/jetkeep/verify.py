"""Are the stored bytes good? Read them all, or a sample, and say what is not."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from jetkeep.catalog import find_point, live_rows, not_live
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import AccessDeniedError, BadDataError, JetkeepError, StoreError
from jetkeep.model import Emit, StreamAdvanced, StreamBegan, StreamEnded
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import Backup, Manifest, ManifestRef, Pin, SegmentRef, StreamEntry
from jetkeep.repository.repository import Repository
from jetkeep.repository.sets import RestorePoint, restore_points
from jetkeep.repository.store import side_by_side

SEGMENTS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be. `kind` is stable (docs/reference/findings.md); `backups` are those it touches.

    `severity`: `damage` costs data, `notice` does not.
    """

    kind: str
    severity: str
    key: str
    what: str
    backups: tuple[str, ...] = ()


@dataclass(slots=True)
class VerifyReport:
    """What was read and what was found; `digests_only`: sealed, and no identity was given, so nothing was looked into."""

    backups: int = 0
    segments: int = 0
    segments_skipped: int = 0
    messages: int = 0
    bytes: int = 0
    digests_only: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing that costs data was found."""
        return not any(one.severity == "damage" for one in self.findings)

    def add(self, key: str, error: JetkeepError, backups: Iterable[str]) -> None:
        """Note an error that was met at an object."""
        kind = "unreadable" if isinstance(error, StoreError) else error.code.removeprefix("data.")
        self.findings.append(Finding(kind, "damage", key, error.what, tuple(sorted(set(backups)))))


@dataclass(slots=True)
class _Tally:
    """A manifest some of whose stored rows are not live: their sum is known when their segments have been read."""

    manifest: str
    where: str
    label: str
    span: tuple[int, int]
    dead: SequenceSet
    expected: Fingerprint
    found: Fingerprint
    unread: int


@dataclass(slots=True)
class _Segment:
    ref: SegmentRef
    backups: list[str] = field(default_factory=list)
    tallies: list[_Tally] = field(default_factory=list)


async def verify(
    repository: Repository,
    *,
    emit: Emit,
    label: str | None = None,
    sample: float = 1.0,
    chance: random.Random | None = None,
) -> VerifyReport:
    """Check envelopes, manifests, counts and segments of all backups, or of one; each segment is read once.

    Args:
        repository: what to check.
        emit: gets the progress of reading segments.
        label: of the backup to check; None checks all, and looks for objects that nothing names.
        sample: which part of the segments to read, 0 < sample ≤ 1; everything else is always checked.
        chance: chooses the sample.
    """
    report = VerifyReport()
    backups = await _backups(repository, label, report)
    report.backups = len(backups)
    look = _look_into if repository.readable else _digests
    named = await look(repository, backups, sample, chance, report, emit)
    await _keys(repository, backups, report)
    if label is None:
        await _unnamed(repository, backups, named, report)
    report.findings.sort(key=lambda one: (one.severity, one.key, one.kind))
    return report


async def _keys(repository: Repository, backups: Sequence[Backup], report: VerifyReport) -> None:
    """The keys of a sealed repository: without them every digest may be right and nothing can be read."""
    if repository.vault is None:
        return
    try:
        await repository.vault.keyring()
    except AccessDeniedError as missing:
        labels = tuple(sorted(one.label for one in backups))
        report.findings.append(Finding("missing", "damage", layout.KEYS, missing.what, labels))
    except JetkeepError as error:
        report.add(layout.KEYS, error, [one.label for one in backups])


async def _look_into(
    repository: Repository,
    backups: Sequence[Backup],
    sample: float,
    chance: random.Random | None,
    report: VerifyReport,
    emit: Emit,
) -> Collection[str]:
    segments: dict[str, _Segment] = {}

    async def add(pair: tuple[Backup, StreamEntry]) -> None:
        await _manifest(repository, *pair, report, segments)

    await side_by_side(add, [(backup, entry) for backup in backups for entry in backup.streams if entry.manifest])
    for backup in backups:
        if backup.files and backup.files.archive:
            await _archive(repository, backup, report)
    chosen = _sampled(segments, sample, chance, report)
    await _read(repository, [segments[key] for key in chosen], report, emit)
    _compare_tallies(segments.values(), report)
    return segments


def _sampled(keys: Collection[str], sample: float, chance: random.Random | None, report: VerifyReport) -> list[str]:
    chosen = sorted(keys)
    if sample < 1:
        count = math.ceil(len(chosen) * sample)
        chosen = sorted((chance or random.Random()).sample(chosen, count))  # noqa: S311 - a sample, not a secret
        report.segments_skipped = len(keys) - count
    return chosen


async def _backups(repository: Repository, label: str | None, report: VerifyReport) -> list[Backup]:
    if label is not None:
        try:
            point = await find_point(repository, label, lacking=True)
        except BadDataError as wrong:
            report.add(layout.backup_key(label), wrong, [label])
            return []
        _lost_parts([point], report)
        return list(point.backups)
    whole, damage = await repository.backups()
    _lost_parts(restore_points(whole), report)
    for one in damage:
        report.add(one.key, one.error, [layout.label_of(one.key) or ""])
    for prefix in (layout.PINS, layout.EVIDENCE):
        async for info in repository.store.list(prefix):
            if info.key.endswith(".json"):
                await _document(repository, info.key, report)
    return whole


def _lost_parts(points: Iterable[RestorePoint], report: VerifyReport) -> None:
    for point in points:
        labels = tuple(one.label for one in point.backups)
        for part in point.lost:
            what = f"set {point.label} lacks its part {part}: it cannot be restored as a whole"
            report.findings.append(
                Finding("lost-part", "notice", layout.backup_key(f"{point.label}.{part}"), what, labels)
            )


async def _archive(repository: Repository, backup: Backup, report: VerifyReport) -> None:
    assert backup.files
    assert backup.files.archive
    try:
        await repository.read_files(backup)
    except (BadDataError, StoreError) as wrong:
        report.add(backup.files.archive.key, wrong, [backup.label])


async def _digests(
    repository: Repository,
    backups: Sequence[Backup],
    sample: float,
    chance: random.Random | None,
    report: VerifyReport,
    emit: Emit,
) -> Collection[str]:
    """What can be said of a sealed repository without an identity: every object is there, with the bytes that were stored."""
    report.digests_only = True
    needed: dict[str, tuple[ManifestRef, list[str]]] = {}

    async def add(pair: tuple[Backup, StreamEntry]) -> None:
        backup, entry = pair
        assert entry.manifest
        try:
            for ref in await repository.needs_of(backup, entry):
                needed.setdefault(ref.key, (ref, []))[1].append(backup.label)
        except (BadDataError, StoreError) as wrong:
            report.add(entry.manifest.key, wrong, [backup.label])

    await side_by_side(add, [(backup, entry) for backup in backups for entry in backup.streams if entry.manifest])
    for backup in backups:
        if backup.files and backup.files.archive:
            needed.setdefault(backup.files.archive.key, (backup.files.archive, []))[1].append(backup.label)
    chosen = _sampled(needed, sample, chance, report)
    emit(StreamBegan("segments", "verify", len(chosen), 0))
    limit = asyncio.Semaphore(SEGMENTS_AT_ONCE)

    async def prove(key: str) -> None:
        ref, labels = needed[key]
        async with limit:
            try:
                await repository.prove(ref)
            except (BadDataError, StoreError) as wrong:
                report.add(key, wrong, labels)
        report.segments += 1
        report.bytes += ref.bytes
        emit(StreamAdvanced("segments", "verify", report.segments, report.bytes))

    await asyncio.gather(*(prove(key) for key in chosen))
    emit(StreamEnded("segments", "verify"))
    return needed


async def _document(repository: Repository, key: str, report: VerifyReport) -> None:
    try:
        data = await repository.store.read(key, encoding.MAX_DOCUMENT)
        if key.startswith(layout.EVIDENCE):
            encoding.open_envelope(data, key)
        elif encoding.unseal(data, key, Pin).label != layout.label_of(key):
            raise encoding.damaged(key, "it is the pin of another backup", "mismatch")
    except (BadDataError, StoreError) as wrong:
        report.add(key, wrong, [])


async def _manifest(
    repository: Repository, backup: Backup, entry: StreamEntry, report: VerifyReport, segments: dict[str, _Segment]
) -> None:
    assert entry.manifest is not None
    key = entry.manifest.key
    try:
        manifest = await repository.read_manifest(backup, entry)
        partly_dead, tally = _check_manifest(manifest, key)
    except (BadDataError, StoreError) as wrong:
        report.add(key, wrong, [backup.label])
        return
    report.messages += manifest.messages
    for ref in manifest.segments:
        known = segments.setdefault(ref.key, _Segment(ref))
        if known.ref != ref:
            report.add(
                ref.key, BadDataError(f"{ref.key} is described in two ways", code="data.conflict"), [backup.label]
            )
        known.backups.append(backup.label)
        if ref.key in partly_dead:
            known.tallies.append(tally)


def _check_manifest(manifest: Manifest, key: str) -> tuple[set[str], _Tally]:
    """What a manifest says must agree with itself (docs/format.md, *Live messages*); which segments hold dead rows."""
    where = f"{key} ({manifest.stream} in backup {manifest.label})"
    dead = not_live(manifest)
    total = Fingerprint()
    partly_dead = set()
    before = 0
    for ref in manifest.segments:
        width = ref.last_seq - ref.first_seq + 1
        if not before < ref.first_seq <= ref.last_seq or not 0 < ref.count <= width:
            raise encoding.damaged(where, f"segment {ref.key} is out of order", "order")
        before = ref.last_seq
        total += Fingerprint.of_hex(ref.fingerprint, ref.count)
        inside = manifest.first_seq <= ref.first_seq and ref.last_seq <= manifest.last_seq
        if not inside or ref.count + dead.count_within(ref.first_seq, ref.last_seq) != width:
            partly_dead.add(ref.key)
    expected = Fingerprint.of_hex(manifest.fingerprint, manifest.messages)
    if total.count < expected.count:
        raise encoding.damaged(where, f"its segments hold {total.count} rows, fewer than it has messages", "count")
    if not partly_dead and total != expected:
        kind = "count" if total.count != expected.count else "fingerprint"
        raise encoding.damaged(where, f"its {kind} is not the sum of its segments'", kind)
    span = (manifest.first_seq, manifest.last_seq)
    tally = _Tally(key, where, manifest.label, span, dead, expected, total, len(partly_dead))
    return partly_dead, tally


async def _read(repository: Repository, segments: Sequence[_Segment], report: VerifyReport, emit: Emit) -> None:
    emit(StreamBegan("segments", "verify", sum(one.ref.count for one in segments), 0))
    limit = asyncio.Semaphore(SEGMENTS_AT_ONCE)
    done = [0, 0]

    async def one(segment: _Segment) -> None:
        async with limit:
            try:
                data = await repository.read_segment(segment.ref)
                dead = await asyncio.to_thread(_decode, segment, data)
            except (BadDataError, StoreError) as wrong:
                report.add(segment.ref.key, wrong, segment.backups)
            else:
                for tally, of_dead in zip(segment.tallies, dead, strict=True):
                    tally.found -= of_dead
                    tally.unread -= 1
            report.segments += 1
            report.bytes += segment.ref.bytes
            done[0] += segment.ref.count
            done[1] += segment.ref.raw_bytes
            emit(StreamAdvanced("segments", "verify", done[0], done[1]))

    await asyncio.gather(*(one(segment) for segment in segments))
    emit(StreamEnded("segments", "verify"))


def _decode(segment: _Segment, data: bytes) -> list[Fingerprint]:
    """Compare a segment's rows with its reference; the sum of the rows that are dead, for each of its tallies."""
    from jetkeep.codecs.segment import SegmentReader  # noqa: PLC0415 - pyarrow is loaded by who reads segments

    ref = segment.ref
    total = Fingerprint()
    of_live = [Fingerprint() for _ in segment.tallies]
    raw, ends = 0, [0, 0]
    times: list[int] = []
    try:
        for batch in SegmentReader(data):
            ends = [ends[0] or batch.first_seq, batch.last_seq]
            times += [min(batch.ts), max(batch.ts)]
            total.update(batch)
            raw += batch.raw_bytes
            for tally, live in zip(segment.tallies, of_live, strict=True):
                live.update(live_rows(batch, *tally.span, tally.dead))
    except BadDataError as wrong:
        raise encoding.damaged(ref.key, wrong.what, "decode") from wrong
    said = {
        "count": (total.count, ref.count),
        "order": (ends, [ref.first_seq, ref.last_seq]),
        "fingerprint": (total.hex(), ref.fingerprint),
        "mismatch": (
            [raw, min(times, default=0), max(times, default=0)],
            [ref.raw_bytes, ref.first_ts_ns, ref.last_ts_ns],
        ),
    }
    for kind, (found, expected) in said.items():
        if found != expected:
            raise encoding.damaged(ref.key, f"its rows have {kind} {found}, the manifest says {expected}", kind)
    return [total - live for live in of_live]


def _compare_tallies(segments: Iterable[_Segment], report: VerifyReport) -> None:
    tallies = {tally.manifest: tally for segment in segments for tally in segment.tallies}
    for tally in tallies.values():
        if not tally.unread and tally.found != tally.expected:
            kind = "count" if tally.found.count != tally.expected.count else "fingerprint"
            why = f"its segments hold {tally.found.count} live messages with fingerprint {tally.found.hex()}"
            report.add(tally.manifest, encoding.damaged(tally.where, why, kind), [tally.label])


async def _unnamed(
    repository: Repository, backups: Sequence[Backup], segments: Collection[str], report: VerifyReport
) -> None:
    named = {ref.key for backup in backups for ref in backup.refs}
    damaged = {one.key for one in report.findings}
    count = size = 0
    try:
        async for info in repository.store.list(layout.SOURCES):
            if layout.kind_of(info.key) and not (info.key in named or info.key in segments or info.key in damaged):
                count += 1
                size += info.size
    except StoreError as wrong:
        report.add(layout.SOURCES, wrong, [])
    if count:
        what = f"{count} objects of {size} bytes are named by no backup that can be read"
        report.findings.append(Finding("unnamed", "notice", layout.SOURCES, what))
