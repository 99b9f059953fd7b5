"""Export: write the directory that the official CLI restores a stream from."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from jetkeep.catalog import live_batches
from jetkeep.codecs.archive import ArchiveEncoder
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.msgblock import TarEncoder
from jetkeep.codecs.s2 import S2Encoder
from jetkeep.codecs.snapshot import Form
from jetkeep.errors import StoreFailedError, UsageError
from jetkeep.interchange.composing import (
    compose_config,
    compose_consumers,
    compose_state,
    file_store_bytes,
    known_stored_bytes,
)
from jetkeep.interchange.directory import DATA_FILES, META_FILE
from jetkeep.model import ConsumerRecord, Emit, JsonDict, StreamAdvanced, StreamBegan, StreamEnded
from jetkeep.repository.documents import Manifest
from jetkeep.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: `data_bytes` is the size of the data file, `stored_bytes` what a server will need."""

    manifest: Manifest
    directory: Path
    form: Form
    data_file: str
    data_bytes: int
    stored_bytes: int
    seconds: float
    notes: list[str]


async def export_stream(
    repository: Repository, manifest: Manifest, directory: Path, form: Form, *, emit: Emit
) -> ExportReport:
    """Write one stream's directory: `backup.json` and the data file of `form`.

    Everything is verified while it is read. The directory appears complete or not at all, and is durable on return.

    Raises:
        UsageError: the directory is there and not empty, or cannot be made.
        BadDataError: what is stored is not what the manifest says; nothing was written.
        StoreError: the store could not be read, or the directory not be written.
    """
    began = time.monotonic()
    name = manifest.stream
    emit(StreamBegan(name, "export", manifest.messages, manifest.bytes))
    try:
        with _appearing(directory) as parts:
            config, notes = compose_config(manifest, form)
            consumers, more = compose_consumers(manifest, form)
            notes += more
            size = known_stored_bytes(manifest, config)
            if size is None:
                size = await _measured_bytes(repository, manifest)
            state = compose_state(manifest, size)
            writer = _ArchiveWriter(state, consumers) if form == "archive" else _TarWriter(manifest, config, consumers)
            data = parts / DATA_FILES[form]
            await _write_data(repository, manifest, writer, data, emit)
            document = json.dumps({"config": config, "state": state}, indent=2, ensure_ascii=False)
            await asyncio.to_thread(_write_file, parts / META_FILE, document.encode())
            data_bytes = data.stat().st_size
    except Exception as failure:
        emit(StreamEnded(name, "export", str(failure)))
        raise
    if manifest.gaps:
        notes.append(
            "sequences that the backup calls gaps are deleted ones in the export: its form has no word for them"
        )
    emit(StreamEnded(name, "export"))
    return ExportReport(manifest, directory, form, DATA_FILES[form], data_bytes, size, time.monotonic() - began, notes)


async def _measured_bytes(repository: Repository, manifest: Manifest) -> int:
    """What a file store needs for the messages: one reading more, where the server's own sum is not of use."""
    with_headers = 0
    async for batch in live_batches(repository, manifest):
        offsets = batch.header_offsets
        with_headers += sum(1 for at in range(len(batch)) if offsets[at + 1] > offsets[at])
    return file_store_bytes(manifest.bytes, manifest.messages, with_headers)


class _Writer(Protocol):
    """What both forms' encoders do, S2 frames around it excepted."""

    def begin(self) -> bytes: ...

    def messages(self, batch: MessageBatch) -> bytes: ...

    def end(self) -> Iterable[bytes]: ...


class _ArchiveWriter:
    def __init__(self, state: JsonDict, consumers: list[ConsumerRecord]) -> None:
        self._encoder = ArchiveEncoder()
        self._state = state
        self._consumers = consumers

    def begin(self) -> bytes:
        return self._encoder.begin(self._state, self._consumers)

    def messages(self, batch: MessageBatch) -> bytes:
        return self._encoder.messages(batch)

    def end(self) -> Iterable[bytes]:
        return [self._encoder.end()]


class _TarWriter:
    def __init__(self, manifest: Manifest, config: JsonDict, consumers: list[ConsumerRecord]) -> None:
        # The configuration that counts is backup.json's. Where the tar's is equal to it as far as a server knows it, the
        # server keeps the tar's as its own file, and one field in it that it does not know takes the stream offline at the
        # next start. Where they differ, it writes its own.
        differing = {**config, "description": f"{config.get('description', '')} (jetkeep export)"}
        self._encoder = TarEncoder(manifest.stream, differing, manifest.created_at)
        self._last_seq = manifest.last_seq
        self._consumers = consumers

    def begin(self) -> bytes:
        return self._encoder.begin()

    def messages(self, batch: MessageBatch) -> bytes:
        return self._encoder.messages(batch)

    def end(self) -> Iterable[bytes]:
        return self._encoder.end(self._last_seq, self._consumers)


async def _write_data(repository: Repository, manifest: Manifest, writer: _Writer, path: Path, emit: Emit) -> None:
    """Write the data file, durable on return; count and fingerprint are proven by the time the last message is read."""
    frames = S2Encoder()
    count = size = 0

    def put(file: BinaryIO, parts: Iterable[bytes]) -> None:
        for part in parts:
            file.write(frames.encode(part))

    with _told(path), path.open("xb") as file:
        await asyncio.to_thread(put, file, [writer.begin()])
        async for batch in live_batches(repository, manifest):
            # A loop variable in a closure: the thread is awaited before the next batch takes its place.
            await asyncio.to_thread(lambda: put(file, [writer.messages(batch)]))  # noqa: B023
            count, size = count + len(batch), size + batch.raw_bytes
            emit(StreamAdvanced(manifest.stream, "export", count, size))
        await asyncio.to_thread(put, file, writer.end())
        await asyncio.to_thread(_sync, file)


def _write_file(path: Path, data: bytes) -> None:
    with _told(path), path.open("xb") as file:
        file.write(data)
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """A directory beside `directory` to write in; it takes that name when the block ends well, else it is removed."""
    directory = directory.absolute()
    with _told(directory):
        if directory.is_symlink() or (directory.exists() and not _is_empty_directory(directory)):
            raise UsageError(
                f"{directory} is there already",
                code="export.not-empty",
                means="nothing was written, what is there is untouched",
                hint="give a directory that does not exist, or an empty one",
            )
    parts = directory.parent / f".{directory.name}.{secrets.token_hex(4)}.partial"
    with _told(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        parts.mkdir(mode=0o700)
    try:
        yield parts
        with _told(directory):
            _sync_directory(parts)
            # Takes the place of an empty directory, and of nothing else.
            parts.rename(directory)
            _sync_directory(directory.parent)
    except BaseException:
        shutil.rmtree(parts, ignore_errors=True)
        raise


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A failure of the file system in words."""
    try:
        yield
    except OSError as failure:
        raise StoreFailedError(
            f"{path} cannot be written: {failure.strerror or failure}",
            code="export.failed",
            means="nothing was exported, nothing half-written was left; the repository is untouched",
            hint="look at the room and the permissions there, or give another directory",
        ) from failure
