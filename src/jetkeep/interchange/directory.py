"""The official CLI's backup directory: its names, and how one is opened without trusting what is in it.

    DIR/backup.json        {"config", "state"}, and where it came from another way {"edit"} or {"source"}
    DIR/stream.arc.s2      the archive of servers from 2.15 (NATSARC1), in S2 frames
    DIR/stream.tar.s2      or the tar of blocks of the servers before

A backup of a whole account is a directory with one such directory for each stream.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from jetkeep.codecs.snapshot import Form
from jetkeep.errors import BadDataError, UsageError
from jetkeep.model import JsonDict

META_FILE = "backup.json"
DATA_FILES: dict[Form, str] = {"archive": "stream.arc.s2", "tar": "stream.tar.s2"}
#: The largest configuration that a server takes is one message of some megabytes; more is not a backup.json.
META_BYTES = 4 * 1024 * 1024


#: Names that servers give to streams: no white space, no wildcard, no separator of subjects or of paths.
_STREAM_NAME = re.compile(r"[^\s.*>/\\\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True, slots=True)
class StreamDirectory:
    """One stream's directory, its backup.json read and checked; the data file is opened by `open_data`.

    `provenance` says in words what an `edit` or a `source` block tells; empty for a plain snapshot.
    """

    path: Path
    form: Form
    config: JsonDict
    state: JsonDict
    provenance: list[str]

    @property
    def stream(self) -> str:
        """The stream's name."""
        return str(self.config["name"])

    @property
    def data_file(self) -> str:
        """The data file's name."""
        return DATA_FILES[self.form]

    def open_data(self) -> BinaryIO:
        """The data file, open for reading.

        Raises:
            BadDataError: it is no ordinary file.
        """
        return _open(self.path, self.data_file)


def stream_directories(directory: Path) -> list[Path]:
    """The directories of streams: the directory itself, or those in it; sorted by name.

    Raises:
        UsageError: there is none.
        BadDataError: something in it is a link.
    """
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as failure:
        raise _no_backup(directory, failure.strerror or str(failure)) from failure
    names = {entry.name for entry in entries}
    if names & {META_FILE, *DATA_FILES.values()}:
        return [directory]
    for entry in entries:
        if entry.is_symlink():
            raise _not_plain(directory / entry.name, "a symbolic link")
    # A name that begins with a dot is no stream: a mounted volume or a file manager left it.
    found = [directory / one.name for one in entries if one.is_dir() and not one.name.startswith(".")]
    if not found:
        raise _no_backup(directory, f"it holds neither {META_FILE} nor directories of streams")
    return found


def read_directory(path: Path) -> StreamDirectory:
    """Read a stream's backup.json and find its data file; nothing of the data is read.

    Raises:
        BadDataError: files are missing, or are not what they must be.
    """
    document = _read_meta(path)
    config, state = _block(path, document, "config"), _block(path, document, "state")
    name = config.get("name")
    if not isinstance(name, str) or not _STREAM_NAME.fullmatch(name):
        raise _bad_meta(path, f"config.name is not the name of a stream: {str(name)[:80]!r}")
    for key in ("messages", "bytes", "first_seq", "last_seq", "consumer_count"):
        if type(number := state.get(key, 0)) is not int or not 0 <= number < 2**64:
            raise _bad_meta(path, f"state.{key} is not a count: {str(number)[:80]!r}")
    return StreamDirectory(path, _form(path), config, state, _provenance(document))


def _read_meta(path: Path) -> JsonDict:
    try:
        with _open(path, META_FILE) as file:
            data = file.read(META_BYTES + 1)
    except FileNotFoundError:
        raise _incomplete(path, f"{META_FILE} is missing") from None
    if not data:
        raise _incomplete(path, f"{META_FILE} is empty")
    if len(data) > META_BYTES:
        raise _bad_meta(path, f"it is larger than {META_BYTES} bytes")
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
        raise _bad_meta(path, f"it is not JSON: {wrong}") from None
    if not isinstance(document, dict):
        raise _bad_meta(path, "it is not a JSON object")
    return document


def _block(path: Path, document: JsonDict, key: str) -> JsonDict:
    block = document.get(key)
    if not isinstance(block, dict):
        raise _bad_meta(path, f"it has no {key}")
    return block


def _form(path: Path) -> Form:
    found: list[Form] = [form for form, name in DATA_FILES.items() if os.path.lexists(path / name)]
    if not found:
        raise _incomplete(path, f"neither {' nor '.join(DATA_FILES.values())} is there")
    if len(found) > 1:
        raise BadDataError(
            f"{path} holds both {' and '.join(DATA_FILES.values())}",
            code="import.two-archives",
            means="nothing was imported from it: only one of them belongs to its backup.json",
            hint="find out which of the two is the newer backup, and remove the other",
        )
    return found[0]


def _provenance(document: JsonDict) -> list[str]:
    """What the blocks of an edited or captured backup say; their figures are kept as they are."""
    told = {
        "edit": "the official CLI edited this backup before the import",
        "source": "the official CLI captured this backup from a subscription, not from a snapshot",
    }
    return [
        f"{words}: {msgspec.json.encode(document[key]).decode()[:2000]}"
        for key, words in told.items()
        if document.get(key)
    ]


def _open(directory: Path, name: str) -> BinaryIO:
    """Open a plain file of the directory: no link is followed, no device or pipe is opened."""
    path = directory / name
    try:
        # O_NONBLOCK: a pipe must not hold the import until somebody writes into it.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as failure:
        if path.is_symlink():
            raise _not_plain(path, "a symbolic link") from None
        raise UsageError(
            f"{path} cannot be read: {failure.strerror}",
            code="import.unreadable",
            means="nothing was imported from it",
            hint="look at the permissions of the file and of its directory",
        ) from failure
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_plain(path, "not an ordinary file")
    return os.fdopen(handle, "rb")


def _no_backup(directory: Path, why: str) -> UsageError:
    return UsageError(
        f"{directory} is no backup directory: {why}",
        code="import.no-backup",
        means="nothing was imported",
        hint="give the directory that `nats backup stream` or `nats backup account` wrote",
    )


def _incomplete(path: Path, why: str) -> BadDataError:
    return BadDataError(
        f"{path} is no complete backup: {why}",
        code="import.incomplete",
        means="nothing was imported from it; the official CLI leaves this behind when a backup of a stream failed",
        hint="take this stream's backup again, or import the other streams by their own directories",
    )


def _bad_meta(path: Path, why: str) -> BadDataError:
    return BadDataError(
        f"{path / META_FILE} cannot be used: {why}",
        code="import.meta",
        means="nothing was imported from it",
        hint="look for another copy of this backup",
    )


def _not_plain(path: Path, what: str) -> BadDataError:
    return BadDataError(
        f"{path} is {what}",
        code="import.special-file",
        means="nothing was imported: a link or a device could give bytes that are not part of the backup",
        hint="copy the backup's files themselves into one directory",
    )
