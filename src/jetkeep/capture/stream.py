"""Capture one stream into segments and a manifest; the commit is the run's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jetkeep.capture.assembly import Assembled, Assembler
from jetkeep.capture.by_messages import read_by_messages
from jetkeep.capture.by_snapshot import read_by_snapshot
from jetkeep.capture.reading import Reading, account_for, bounds
from jetkeep.capture.road import Road, choose_road, parse_version
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import ApiError, BadDataError
from jetkeep.jetstream import JetStream
from jetkeep.model import ConsumerRecord, Emit, JsonDict
from jetkeep.repository.documents import ConsumerDoc, Manifest, ManifestRef, StreamEntry
from jetkeep.repository.layout import timeline_of
from jetkeep.repository.repository import Repository

STREAM_NOT_FOUND = 10059


@dataclass(frozen=True, slots=True)
class Captured:
    """One stream's part of a backup: its entry for the commit, and how it was taken."""

    entry: StreamEntry
    road: Road
    seconds: float
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream's objects go: `previous` is its entry in the newest backup that has it."""

    repository: Repository
    source: str
    label: str
    previous: StreamEntry | None


async def capture_stream(
    js: JetStream, place: Place, info: JsonDict, *, emit: Emit, now_ns: Callable[[], int]
) -> Captured:
    """Read one stream whole and store its segments and manifest; nothing counts until a backup names it.

    Raises:
        JetkeepError: the stream was not captured; whatever was stored of it is named by nothing.
    """
    began = time.monotonic()
    name = str(info["config"]["name"])
    version = parse_version(js.server_version)
    road = choose_road(version, info["config"])
    timeline = _timeline(place, info)
    captured_at = now_ns()
    try:
        reading, stored = await _read(js, place, timeline, road, info, emit)
    except BadDataError as broken:
        if road.method != "snapshot" or broken.code != "data.snapshot-errors":
            raise
        # Known from 2.10: the snapshot cannot be read, the messages one by one can.
        road = Road("messages", f"the server's snapshot failed ({broken.what})")
        reading, stored = await _read(js, place, timeline, road, info, emit)
    notes = [*reading.notes, *await _account(js, name, info, reading, stored)]
    consumers, more = await _consumers(js, name, reading)
    manifest = _manifest(place, timeline, road, reading, stored, info, captured_at, js.server_version)
    manifest.consumers = [_consumer_doc(one) for one in consumers]
    manifest.notes = notes + more
    ref = await place.repository.put_manifest(manifest)
    return Captured(_entry(manifest, ref, stored), road, time.monotonic() - began, manifest.notes)


def _timeline(place: Place, info: JsonDict) -> str:
    """The stream's timeline: a new one when it was created anew or its last sequence went back."""
    timeline = timeline_of(info["created"], 1)
    previous = place.previous
    if previous is None or not previous.timeline.startswith(timeline):
        return timeline
    if int(info["state"]["last_seq"]) >= previous.last_seq:
        return previous.timeline
    _, _, life = previous.timeline.partition("-r")
    return timeline_of(info["created"], int(life or 1) + 1)


async def _read(
    js: JetStream, place: Place, timeline: str, road: Road, info: JsonDict, emit: Emit
) -> tuple[Reading, Assembled]:
    name = str(info["config"]["name"])
    async with Assembler(place.repository, place.source, name, timeline, emit) as assembler:
        if road.method == "snapshot":
            reading = await read_by_snapshot(js, name, assembler)
        else:
            reading = await read_by_messages(js, name, info, assembler)
        return reading, await assembler.finish(reading.dead)


async def _account(js: JetStream, name: str, info: JsonDict, reading: Reading, stored: Assembled) -> list[str]:
    if stored.messages == int(reading.state["messages"]):
        return []
    after: JsonDict | None = None
    try:
        now = await js.stream_info(name)
        after = now["state"] if now["created"] == info["created"] else None
    except ApiError as gone:
        if gone.err_code != STREAM_NOT_FOUND:
            raise
    return account_for(name, reading.state, stored.messages, after)


async def _consumers(js: JetStream, name: str, reading: Reading) -> tuple[list[ConsumerRecord], list[str]]:
    """The consumers with what the API adds to the snapshot; one that the snapshot omitted is an error."""
    if not reading.consumers and not int(reading.state.get("consumer_count", 0)):
        return [], []
    try:
        infos = {one["name"]: one for one in await js.consumers(name)}
    except ApiError as gone:
        if gone.err_code != STREAM_NOT_FOUND:
            raise
        return reading.consumers, ["the stream was deleted right after it was read"]
    have = {one.name for one in reading.consumers}
    expected = int(reading.state.get("consumer_count", 0))
    if len(have) < expected and (missing := [one for one in infos if one not in have]):
        raise BadDataError(
            f"the snapshot of {name} holds {len(have)} of {expected} consumers; missing: {', '.join(sorted(missing))}",
            code="data.consumers",
            means="this stream was not backed up in this run; earlier backups of it are untouched",
            hint="run the backup again; if it repeats, look at the consumers with `nats consumer info`",
        )
    notes: list[str] = []
    records = []
    for one in sorted(reading.consumers, key=lambda record: record.name):
        told = infos.get(one.name)
        if told and one.created is None:
            one = replace(one, created=told.get("created"))  # noqa: PLW2901
        if told and _rolled_back(one, told):
            notes.append(
                f"consumer {one.name}: the server's snapshot goes back to the ack floor {one.state.ack_floor.stream_seq}; "
                f"it had delivered up to {told['delivered']['stream_seq']}, which will be delivered again"
            )
        records.append(one)
    return records, notes


def _rolled_back(record: ConsumerRecord, info: JsonDict) -> bool:
    told = int(info["delivered"]["stream_seq"])
    return bool(info.get("num_ack_pending")) and not record.state.pending and record.state.delivered.stream_seq < told


def _consumer_doc(record: ConsumerRecord) -> ConsumerDoc:
    return ConsumerDoc.of(record)


def _manifest(
    place: Place,
    timeline: str,
    road: Road,
    reading: Reading,
    stored: Assembled,
    info: JsonDict,
    captured_at: int,
    server_version: str,
) -> Manifest:
    first, last = bounds(reading.state)
    span = SequenceSet.from_ranges([(first, last)]) if 0 < first <= last else SequenceSet()
    segments = stored.segments
    return Manifest(
        source=place.source,
        stream=str(info["config"]["name"]),
        timeline=timeline,
        label=place.label,
        kind="full",
        method=road.method,
        reason=road.reason,
        captured_at_ns=captured_at,
        server_version=server_version,
        config=reading.config,
        created_at=info["created"],
        state=reading.state,
        messages=stored.messages,
        first_seq=first,
        last_seq=last,
        bytes=stored.raw_bytes,
        first_ts_ns=segments[0].first_ts_ns if segments else 0,
        last_ts_ns=segments[-1].last_ts_ns if segments else 0,
        fingerprint=stored.fingerprint,
        segments=list(segments),
        deleted=(span - stored.rows).encode(),
        gaps=[],
        consumers=[],
        notes=[],
    )


def _entry(manifest: Manifest, ref: ManifestRef, stored: Assembled) -> StreamEntry:
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
