"""Capture one stream into segments and a manifest; the commit is the run's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jetkeep.assembly.manifest import Place, Provenance, Reading, entry_of, manifest_of, timeline_for
from jetkeep.assembly.segments import Assembled, Assembler
from jetkeep.capture.by_messages import derive_consumer, read_by_messages
from jetkeep.capture.by_snapshot import read_by_snapshot
from jetkeep.capture.reading import account_for
from jetkeep.capture.road import Road, choose_road, in_memory_consumers_are_left_out, parse_version
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import ApiError, BadDataError, ServerError
from jetkeep.jetstream import JetStream
from jetkeep.model import ConsumerRecord, Emit, JsonDict
from jetkeep.repository.documents import StreamEntry

STREAM_NOT_FOUND = 10059


@dataclass(frozen=True, slots=True)
class Captured:
    """One stream's part of a backup: its entry for the commit, and how it was taken."""

    entry: StreamEntry
    road: Road
    seconds: float
    notes: list[str] = field(default_factory=list)


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
    timeline = timeline_for(place, info["created"], int(info["state"]["last_seq"]))
    captured_at = now_ns()
    in_memory = await _in_memory(js, info) if in_memory_consumers_are_left_out(version, road) else None
    try:
        reading, stored = await _read(js, place, timeline, road, info, emit)
    except BadDataError as broken:
        if road.method != "snapshot":
            raise
        # Known from 2.10: the snapshot cannot be read, the messages one by one can; whether all can, the count tells.
        road, in_memory = Road("messages", f"the server's snapshot failed ({broken.what})"), None
        reading, stored = await _read(js, place, timeline, road, info, emit)
    reading.notes += await _account(js, name, info, reading, stored)
    reading.consumers, more = await _consumers(js, name, reading, in_memory)
    reading.notes += more if road.method == "snapshot" else []
    provenance = Provenance(road.method, road.reason, info["created"], captured_at, js.server_version)
    manifest = manifest_of(place, timeline, reading, stored, provenance)
    ref = await place.repository.put_manifest(manifest)
    return Captured(entry_of(manifest, ref, stored), road, time.monotonic() - began, manifest.notes)


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
    """Whether what was read is this stream, and all of it; notes where users or limits explain what is missing."""
    now: JsonDict | None = None
    try:
        now = await js.stream_info(name)
    except ApiError as gone:
        if gone.err_code != STREAM_NOT_FOUND:
            raise
    if now is not None and now["created"] != info["created"]:
        # The snapshot does not say whose it is: it may be of the next life, under the name and time of this one.
        raise ServerError(
            f"stream {name} was deleted and created anew while it was backed up",
            code="nats.stream-recreated",
            means="this stream was not backed up in this run; earlier backups of it are untouched",
            hint="run the backup again",
            retryable=True,
        )
    return account_for(name, reading.state, stored.messages, now["state"] if now else None)


async def _in_memory(js: JetStream, info: JsonDict) -> list[ConsumerRecord]:
    """The consumers that servers before 2.15 leave out of a snapshot, as the API tells them before it is taken.

    Before, because a position that is older than the messages is delivered again, and a newer one would pass messages
    of a work queue that the snapshot still holds.
    """
    if not int(info["state"].get("consumer_count", 0)):
        return []
    infos = await js.consumers(str(info["config"]["name"]))
    return [derive_consumer(one, info["config"], SequenceSet()) for one in infos if one["config"].get("mem_storage")]


async def _consumers(
    js: JetStream, name: str, reading: Reading, in_memory: list[ConsumerRecord] | None
) -> tuple[list[ConsumerRecord], list[str]]:
    """The consumers with what the API adds to the snapshot; one that the snapshot omitted is an error.

    `in_memory` are those that it omits by nature; None where it omits none.
    """
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
    # One in memory that is not among `in_memory` was created after the backup began.
    omitted = {key for key, one in infos.items() if in_memory is not None and one["config"].get("mem_storage")}
    if len(have) < expected and (missing := [one for one in infos if one not in have | omitted]):
        raise BadDataError(
            f"the snapshot of {name} holds {len(have)} of {expected} consumers; missing: {', '.join(sorted(missing))}",
            code="data.consumers",
            means="this stream was not backed up in this run; earlier backups of it are untouched",
            hint="run the backup again; if it repeats, look at the consumers with `nats consumer info`",
        )
    added = [one for one in in_memory or [] if one.name in omitted - have]
    notes = [f"consumer {one.name}: {_told_by_the_api(infos[one.name])}" for one in added]
    records = []
    for one in sorted([*reading.consumers, *added], key=lambda record: record.name):
        told = infos.get(one.name)
        if told and one.created is None:
            one = replace(one, created=told.get("created"))  # noqa: PLW2901
        if told and one.name in have and _rolled_back(one, told):
            notes.append(
                f"consumer {one.name}: the server's snapshot goes back to the ack floor {one.state.ack_floor.stream_seq}; "
                f"it had delivered up to {told['delivered']['stream_seq']}, which will be delivered again"
            )
        records.append(one)
    return records, notes


def _told_by_the_api(info: JsonDict) -> str:
    why = "it is in the server's memory, which its snapshot leaves out; its positions are those of right before"
    return f"{why}, from its ack floor on" if info.get("num_ack_pending") else why


def _rolled_back(record: ConsumerRecord, info: JsonDict) -> bool:
    told = int(info["delivered"]["stream_seq"])
    return bool(info.get("num_ack_pending")) and not record.state.pending and record.state.delivered.stream_seq < told
