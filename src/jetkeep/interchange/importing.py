"""Import: take the official CLI's backup directory into the repository, as a backup like any other."""

from __future__ import annotations

import asyncio
import platform
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from jetkeep import __version__
from jetkeep.assembly.manifest import Place, Provenance, Reading, entry_of, manifest_of, timeline_for
from jetkeep.assembly.segments import Assembled, Assembler
from jetkeep.assembly.snapshot import FEED_BYTES, Taken, take_snapshot
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.snapshot import Form, SnapshotDecoder
from jetkeep.errors import BadDataError, JetkeepError
from jetkeep.interchange.claims import check_claims, server_version
from jetkeep.interchange.directory import StreamDirectory, read_directory, stream_directories
from jetkeep.interchange.moments import EPOCH_TIME, is_time, rfc3339
from jetkeep.model import Emit, StreamBegan, StreamEnded
from jetkeep.repository.documents import Backup, Failure, Selection, ServerFacts, StreamEntry, Tool
from jetkeep.repository.fanout import FanOut
from jetkeep.repository.repository import Repository

#: Bytes that are read at once to find the creation time.
_HEAD_BYTES = 64 * 1024
_UNTOLD = "the backup does not tell when the stream was created"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Under which names a directory is imported; `accept_loss`: also when it holds less than it claims."""

    source: str = "nats"
    label: str | None = None
    tags: tuple[str, ...] = ()
    accept_loss: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """One stream of the import: its entry in the backup, and from which form it came."""

    entry: StreamEntry
    form: Form
    seconds: float
    notes: list[str]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What was committed: `imported` by the stream's name, `failed` by that of its directory."""

    backup: Backup
    imported: dict[str, Imported] = field(default_factory=dict)
    failed: dict[str, JetkeepError] = field(default_factory=dict)
    seconds: float = 0.0


async def import_directory(
    directory: Path, repository: Repository, options: ImportOptions, *, emit: Emit, now_ns: Callable[[], int]
) -> ImportReport:
    """Import a stream's directory, or all streams of an account's directory, and commit one backup.

    One stream's failure does not stop the others: the backup is then `partial`. On return the backup is
    durable and restorable.

    Raises:
        UsageError: the directory is none, or the label is taken.
        BadDataError: not one stream could be imported: nothing was committed.
        StoreError: the store failed: nothing was committed.
    """
    began = time.monotonic()
    started = datetime.fromtimestamp(now_ns() / 1e9, UTC)
    paths = await asyncio.to_thread(stream_directories, directory)
    into = FanOut.alone(repository)
    async with into.at_work(now_ns):
        label = await into.free_label(options.label, started)
        previous = await into.newest_entries(options.source)
        imported: dict[str, Imported] = {}
        failed: dict[str, JetkeepError] = {}
        for path in paths:
            try:
                found = await asyncio.to_thread(read_directory, path)
                if found.stream in imported:
                    raise _twice(found)
                place = Place(into, options.source, label, previous.get(found.stream))
                imported[found.stream] = await _import_stream(found, place, options.accept_loss, emit)
            except BadDataError as failure:
                failed[path.name] = failure
        if not imported:
            raise next(iter(failed.values()))
        backup = Backup(
            repository=repository.id,
            run=secrets.token_hex(16),
            label=label,
            source=options.source,
            started_at=_moment(started),
            finished_at=_moment(datetime.fromtimestamp(now_ns() / 1e9, UTC)),
            status="partial" if failed else "complete",
            tool=Tool(name="jetkeep", version=__version__),
            server=ServerFacts(),
            host=platform.node(),
            tags=list(options.tags),
            selection=Selection(include=sorted({*imported, *failed}), exclude=[], total=len(paths)),
            streams=_entries(imported, failed),
        )
        backup = await into.commit(backup, relabel=options.label is None)
    return ImportReport(backup, imported, failed, time.monotonic() - began)


async def _import_stream(found: StreamDirectory, place: Place, accept_loss: bool, emit: Emit) -> Imported:
    began = time.monotonic()
    emit(StreamBegan(found.stream, "import", found.state.get("messages", 0), found.state.get("bytes", 0)))
    try:
        created_at, *notes = await asyncio.to_thread(_creation, found)
        timeline = timeline_for(place, created_at, found.state.get("last_seq", 0))
        taken, stored = await _take(found, place, timeline, emit)
        notes += check_claims(found, taken, stored, accept_loss=accept_loss)
    except JetkeepError as failure:
        emit(StreamEnded(found.stream, "import", failure.what))
        raise
    reading = Reading(found.config, found.state, list(taken.consumers.values()), notes=[*found.provenance, *notes])
    provenance = Provenance(
        "import",
        f"the official CLI's {found.data_file}",
        created_at,
        # The moment of the backup is in neither file, and the files' own times change with every copy. What is
        # promised is what is there: nothing newer than the newest message.
        max((one.last_ts_ns for one in stored.segments), default=0),
        server_version(found.config),
    )
    manifest = manifest_of(place, timeline, reading, stored, provenance)
    ref = await place.repository.put_manifest(manifest)
    emit(StreamEnded(found.stream, "import"))
    return Imported(entry_of(manifest, ref, stored), found.form, time.monotonic() - began, manifest.notes)


async def _take(found: StreamDirectory, place: Place, timeline: str, emit: Emit) -> tuple[Taken, Assembled]:
    decoder = _decoder(found)
    with found.open_data() as file:
        async with Assembler(place.repository, place.source, found.stream, timeline, emit, "import") as assembler:
            taken = await take_snapshot(_pieces(file), decoder, assembler)
            return taken, await assembler.finish(taken.dead)


def _decoder(found: StreamDirectory) -> SnapshotDecoder:
    last_seq, messages = found.state.get("last_seq", 0), found.state.get("messages", 0)
    return SnapshotDecoder(found.stream, last_seq, form=found.form, messages=messages)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, FEED_BYTES):
        yield piece


def _creation(found: StreamDirectory) -> list[str]:
    """The stream's creation time, RFC 3339, and a note where that is not known: tars tell it, archives do not.

    The same directory gives the same time whenever it is imported: the timeline's name depends on it.
    """
    decoder = _decoder(found)
    with found.open_data() as file:
        while piece := file.read(_HEAD_BYTES):
            for event in decoder.feed(piece):
                if isinstance(event, MessageBatch) and decoder.created is None:
                    return [rfc3339(event.ts[0]), f"{_UNTOLD}: the time of its oldest message stands in"]
            if decoder.created is not None:
                return [_proven_time(found, decoder.created)]
    last = found.state.get("last_ts")
    return [last, f"{_UNTOLD}: the time of its last change stands in"] if is_time(last) else [EPOCH_TIME, _UNTOLD]


def _proven_time(found: StreamDirectory, created: str) -> str:
    if is_time(created):
        return created
    raise BadDataError(
        f"{found.path / found.data_file} says that the stream was created at {created[:80]!r}",
        code="import.created",
        means="nothing was imported from it: no server writes this",
        hint="look for another copy of this backup",
    )


def _entries(imported: dict[str, Imported], failed: dict[str, JetkeepError]) -> list[StreamEntry]:
    entries = {
        name: StreamEntry(
            name=name, status="failed", error=Failure(code=one.code, what=one.what, means=one.means, hint=one.hint)
        )
        for name, one in failed.items()
    }
    # A directory may be named after a stream that was imported from another one.
    entries |= {name: one.entry for name, one in imported.items()}
    return sorted(entries.values(), key=lambda entry: entry.name)


def _twice(found: StreamDirectory) -> BadDataError:
    return BadDataError(
        f"{found.path} holds {found.stream}, and so does another directory beside it",
        code="import.twice",
        means="only the first of them, by name, was imported",
        hint="import each by its own directory: one backup holds a stream once",
    )


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
