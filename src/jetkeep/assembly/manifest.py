"""From what reading a stream gave to its manifest and its entry in the backup; the commit is the run's."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetkeep.assembly.segments import Assembled
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.model import ConsumerRecord, JsonDict
from jetkeep.repository.documents import ConsumerDoc, Manifest, ManifestRef, StreamEntry
from jetkeep.repository.fanout import FanOut
from jetkeep.repository.layout import timeline_of


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream's objects go: `previous` is its entry in the newest backup that has it."""

    repository: FanOut
    source: str
    label: str
    previous: StreamEntry | None


@dataclass(slots=True)
class Reading:
    """Configuration and state as the server gave them for the moment of reading; the rows went to the assembler.

    `dead` are rows that were handed over and turned out not to be live; `notes` is for people.
    """

    config: JsonDict
    state: JsonDict
    consumers: list[ConsumerRecord]
    dead: SequenceSet = field(default_factory=SequenceSet)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a stream was read: `method` and `reason` as in docs/format.md, times as their names say."""

    method: str
    reason: str
    created_at: str
    captured_at_ns: int
    server_version: str


def timeline_for(place: Place, created_at: str, last_seq: int) -> str:
    """The stream's timeline: a new one when it was created anew or its last sequence went back."""
    timeline = timeline_of(created_at, 1)
    previous = place.previous
    if previous is None or not previous.timeline.startswith(timeline):
        return timeline
    if last_seq >= previous.last_seq:
        return previous.timeline
    _, _, life = previous.timeline.partition("-r")
    return timeline_of(created_at, int(life or 1) + 1)


def bounds(state: JsonDict, messages: int) -> tuple[int, int]:
    """First and last sequence of a stream that holds so many messages, as docs/format.md writes them."""
    last = int(state.get("last_seq", 0))
    if not messages:
        return (last + 1, last) if last else (0, 0)
    return int(state.get("first_seq", 0)), last


def manifest_of(place: Place, timeline: str, reading: Reading, stored: Assembled, provenance: Provenance) -> Manifest:
    """The manifest of a full reading: what lies between its bounds and was not stored is deleted."""
    first, last = bounds(reading.state, stored.messages)
    span = SequenceSet.from_ranges([(first, last)]) if 0 < first <= last else SequenceSet()
    segments = stored.segments
    return Manifest(
        source=place.source,
        stream=str(reading.config["name"]),
        timeline=timeline,
        label=place.label,
        kind="full",
        method=provenance.method,
        reason=provenance.reason,
        captured_at_ns=provenance.captured_at_ns,
        server_version=provenance.server_version,
        config=reading.config,
        created_at=provenance.created_at,
        state=reading.state,
        messages=stored.messages,
        first_seq=first,
        last_seq=last,
        bytes=stored.raw_bytes,
        first_ts_ns=min((one.first_ts_ns for one in segments), default=0),
        last_ts_ns=max((one.last_ts_ns for one in segments), default=0),
        fingerprint=stored.fingerprint,
        segments=list(segments),
        deleted=(span - stored.rows).encode(),
        gaps=[],
        consumers=[ConsumerDoc.of(one) for one in sorted(reading.consumers, key=lambda one: one.name)],
        notes=list(reading.notes),
    )


def entry_of(manifest: Manifest, ref: ManifestRef, stored: Assembled) -> StreamEntry:
    """What the backup's object says of a stream that was stored under `ref`."""
    return StreamEntry(
        name=manifest.stream,
        status="complete",
        manifest=ref,
        kind=manifest.kind,
        timeline=manifest.timeline,
        messages=manifest.messages,
        first_seq=manifest.first_seq,
        last_seq=manifest.last_seq,
        bytes=manifest.bytes,
        stored_bytes=stored.stored_bytes,
        consumers=len(manifest.consumers),
        fingerprint=manifest.fingerprint,
        gaps=0,
    )
