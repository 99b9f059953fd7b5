"""Are the stored bytes good? Read them all, or a sample, and say what is not."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from jetkeep.catalog import not_live
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.errors import BadDataError, JetkeepError
from jetkeep.model import Emit, StreamAdvanced, StreamBegan, StreamEnded
from jetkeep.repository import documents, encoding, layout
from jetkeep.repository.documents import Backup, Manifest, SegmentRef, StreamEntry
from jetkeep.repository.repository import Repository

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
    """What was read and what was found."""

    backups: int = 0
    segments: int = 0
    segments_skipped: int = 0
    messages: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing that costs data was found."""
        return not any(one.severity == "damage" for one in self.findings)


@dataclass(slots=True)
class _Segment:
    ref: SegmentRef
    backups: list[str] = field(default_factory=list)


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
        label: of the backup to check; None checks all, and looks for objects that nothing names.
        sample: which part of the segments to read, 0 < sample ≤ 1; everything else is always checked.
        chance: chooses the sample.
    """
    report = VerifyReport()
    backups = await _backups(repository, label, report)
    report.backups = len(backups)
    segments: dict[str, _Segment] = {}
    manifests: list[tuple[Backup, StreamEntry, Manifest]] = []
    for backup in backups:
        for entry in backup.streams:
            if entry.status == "complete":
                await _manifest(repository, backup, entry, report, manifests, segments)
    chosen = sorted(segments)
    if sample < 1:
        count = math.ceil(len(chosen) * sample)
        chosen = sorted((chance or random.Random()).sample(chosen, count))  # noqa: S311 - a sample, not a secret
        report.segments_skipped = len(segments) - count
    await _read(repository, [segments[key] for key in chosen], report, emit)
    if label is None:
        await _unnamed(repository, manifests, segments, report)
    return report


async def _backups(repository: Repository, label: str | None, report: VerifyReport) -> list[Backup]:
    if label is not None:
        try:
            return [await repository.read_backup(label)]
        except BadDataError as wrong:
            report.findings.append(_finding(layout.backup_key(label), wrong, [label]))
            return []
    whole, damage = await repository.backups()
    for one in damage:
        name = one.key.removeprefix(layout.BACKUPS).removesuffix(".json")
        report.findings.append(_finding(one.key, one.error, [name]))
    for prefix, kind in ((layout.PINS, documents.Pin),):
        async for info in repository.store.list(prefix):
            try:
                encoding.unseal(await repository.store.read(info.key, encoding.MAX_DOCUMENT), info.key, kind)
            except BadDataError as wrong:
                report.findings.append(_finding(info.key, wrong, []))
    async for info in repository.store.list(layout.EVIDENCE):
        if info.key.endswith(".json"):
            try:
                encoding.open_envelope(await repository.store.read(info.key, encoding.MAX_DOCUMENT), info.key)
            except BadDataError as wrong:
                report.findings.append(_finding(info.key, wrong, []))
    return whole


async def _manifest(
    repository: Repository,
    backup: Backup,
    entry: StreamEntry,
    report: VerifyReport,
    manifests: list[tuple[Backup, StreamEntry, Manifest]],
    segments: dict[str, _Segment],
) -> None:
    assert entry.manifest is not None
    try:
        manifest = await repository.read_manifest(backup, entry)
        _check_manifest(manifest)
    except BadDataError as wrong:
        report.findings.append(_finding(entry.manifest.key, wrong, [backup.label]))
        return
    manifests.append((backup, entry, manifest))
    report.messages += manifest.messages
    for ref in manifest.segments:
        known = segments.setdefault(ref.key, _Segment(ref))
        if known.ref != ref:
            conflict = BadDataError(f"{ref.key} is described in two ways", code="data.conflict")
            report.findings.append(_finding(ref.key, conflict, [backup.label]))
        known.backups.append(backup.label)


def _check_manifest(manifest: Manifest) -> None:
    """What a manifest says must agree with itself (docs/format.md, *Live messages*)."""
    where = f"the manifest of {manifest.stream} in backup {manifest.label}"
    dead = not_live(manifest)
    before = 0
    for ref in manifest.segments:
        if not before < ref.first_seq <= ref.last_seq or not 0 < ref.count <= ref.last_seq - ref.first_seq + 1:
            raise encoding.damaged(where, f"segment {ref.key} is out of order")
        before = ref.last_seq
    if sum(ref.count for ref in manifest.segments) < manifest.messages:
        raise encoding.damaged(where, "its segments hold fewer rows than it has messages")
    if not any(dead.intersects(ref.first_seq, ref.last_seq) for ref in manifest.segments):
        total = Fingerprint()
        for ref in manifest.segments:
            total += Fingerprint.of_hex(ref.fingerprint, ref.count)
        if total.hex() != manifest.fingerprint or total.count != manifest.messages:
            raise encoding.damaged(where, "its fingerprint is not the sum of its segments'")


async def _read(repository: Repository, segments: Sequence[_Segment], report: VerifyReport, emit: Emit) -> None:
    emit(StreamBegan("segments", "verify", sum(one.ref.count for one in segments), 0))
    limit = asyncio.Semaphore(SEGMENTS_AT_ONCE)
    done = [0, 0]

    async def one(segment: _Segment) -> None:
        async with limit:
            try:
                data = await repository.read_segment(segment.ref)
                await asyncio.to_thread(_decode, segment.ref, data)
            except BadDataError as wrong:
                report.findings.append(_finding(segment.ref.key, wrong, segment.backups))
            report.segments += 1
            report.bytes += segment.ref.bytes
            done[0] += segment.ref.count
            done[1] += segment.ref.raw_bytes
            emit(StreamAdvanced("segments", "verify", done[0], done[1]))

    await asyncio.gather(*(one(segment) for segment in segments))
    emit(StreamEnded("segments", "verify"))


def _decode(ref: SegmentRef, data: bytes) -> None:
    from jetkeep.codecs.segment import SegmentReader  # noqa: PLC0415 - pyarrow is loaded by who reads segments

    total = Fingerprint()
    last = raw = 0
    first = None
    for batch in SegmentReader(data):
        total.update(batch)
        first = batch.first_seq if first is None else first
        last = batch.last_seq
        raw += batch.raw_bytes
    if (first, last, total.count, raw, total.hex()) != (
        ref.first_seq,
        ref.last_seq,
        ref.count,
        ref.raw_bytes,
        ref.fingerprint,
    ):
        raise encoding.damaged(ref.key, "its rows are not what the manifest says (range, count, bytes or fingerprint)")


async def _unnamed(
    repository: Repository,
    manifests: Sequence[tuple[Backup, StreamEntry, Manifest]],
    segments: dict[str, _Segment],
    report: VerifyReport,
) -> None:
    named = {entry.manifest.key for _, entry, _ in manifests if entry.manifest} | set(segments)
    damaged = {one.key for one in report.findings}
    count = size = 0
    async for info in repository.store.list(layout.SOURCES):
        if info.key not in named and info.key not in damaged:
            count += 1
            size += info.size
    if count:
        what = f"{count} objects of {size} bytes are named by no backup; `jetkeep expire` removes them after a day"
        report.findings.append(Finding("unnamed", "notice", layout.SOURCES, what))


def _finding(key: str, error: JetkeepError, backups: Sequence[str]) -> Finding:
    kind = error.code.removeprefix("data.")
    return Finding(kind, "damage", key, error.what, tuple(sorted(set(backups))))
