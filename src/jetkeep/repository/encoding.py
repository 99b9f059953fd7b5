"""Documents to stored bytes and back: nothing is believed before its digest was compared, nothing grows without bound."""

from __future__ import annotations

import hashlib
import re
import threading
from typing import TypeVar

import msgspec
import zstandard

from jetkeep.errors import BadDataError
from jetkeep.model import JsonDict
from jetkeep.repository.documents import FORMAT, Backup, Document, Manifest, RepositoryDocument, moment_of

#: Bounds against hostile objects: a stored document, and a manifest once decompressed. Writers keep to them too.
MAX_DOCUMENT = 256 * 1024 * 1024
MAX_MANIFEST = 1024 * 1024 * 1024
MAX_SEQUENCE = 2**64 - 1

D = TypeVar("D", bound=Document)

#: What may be in a document's `features`.
FEATURES: dict[type[Document], tuple[str, ...]] = {RepositoryDocument: ("sealed",), Backup: ("sealed",)}

_ENVELOPE = re.compile(rb'\{"sha256":"([0-9a-f]{64})","body":')


def seal(document: Document | JsonDict) -> bytes:
    """The bytes of an enveloped document."""
    return envelope(msgspec.json.encode(document))


def envelope(body: bytes) -> bytes:
    """A body, which is a JSON object, with its digest before it."""
    return b'{"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'","body":' + body + b"}\n"


def unseal(data: bytes, key: str, kind: type[D]) -> D:
    """Read an enveloped document.

    Raises:
        BadDataError: any byte is not what it was, or the format, a feature or a key is unknown.
    """
    return _decode(open_envelope(data, key), key, kind)


def open_envelope(data: bytes, key: str) -> bytes:
    """The body's bytes of an enveloped document, once they are proven.

    Raises:
        BadDataError: any byte is not what it was.
    """
    head = _ENVELOPE.match(data)
    if not head or not data.endswith(b"}\n"):
        raise damaged(key, "it is not an enveloped document, or it is cut")
    body = data[head.end() : -2]
    if hashlib.sha256(body).hexdigest().encode() != head[1]:
        raise damaged(key, "its bytes do not have the digest that it states")
    return body


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest's stored bytes.

    Raises:
        BadDataError: readers would refuse it because of its size.
    """
    body = msgspec.json.encode(manifest)
    if len(body) > MAX_MANIFEST:
        raise BadDataError(
            f"the manifest of {manifest.stream} would have {len(body)} bytes, more than the {MAX_MANIFEST} that readers take",
            code="data.manifest-size",
            means="this stream is not in the backup",
            hint="its deleted sequences are too many to be written down: please report this stream's shape",
        )
    return zstandard.ZstdCompressor(level=3).compress(body)


def decode_manifest(data: bytes, key: str) -> Manifest:
    """Read a manifest whose stored bytes have been proven.

    Raises:
        BadDataError: it cannot be decompressed within bounds, or is no manifest of this format.
    """
    return decode_compressed(data, key, Manifest)


def decode_compressed(data: bytes, key: str, kind: type[D]) -> D:
    """Read a document that is one zstd frame.

    Raises:
        BadDataError: it cannot be decompressed within bounds, or is no such document of this format.
    """
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= MAX_MANIFEST:
            raise damaged(key, f"it states a size of {size} bytes", "decode")
        body = zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as wrong:
        raise damaged(key, str(wrong), "decode") from None
    return _decode(body, key, kind)


class _Versions(msgspec.Struct):
    format: int
    features: list[str] = []


_VERSIONS = msgspec.json.Decoder(_Versions)
_preparing = threading.Lock()


def _decoder(kind: type[D]) -> msgspec.json.Decoder[D]:
    """A decoder; msgspec builds what it knows of a type at its first use, and two threads doing so crash the process."""
    with _preparing:
        return msgspec.json.Decoder(kind)


def _decode(body: bytes, key: str, kind: type[D]) -> D:
    try:
        versions = _VERSIONS.decode(body)
        unknown_features = [one for one in versions.features if one not in FEATURES.get(kind, ())]
        if versions.format != FORMAT or unknown_features:
            unknown = f"format {versions.format}" if versions.format != FORMAT else f"feature '{unknown_features[0]}'"
            raise BadDataError(
                f"{key} needs {unknown}, which this version does not know",
                code="data.format",
                means="nothing of it was read; its data is untouched",
                hint="use the newer jetkeep that wrote it",
            )
        document = _decoder(kind).decode(body)
        why = _contradiction(document)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError, RecursionError) as wrong:
        raise damaged(key, str(wrong), "decode") from None
    if why:
        raise damaged(key, why, "decode")
    return document


def _contradiction(document: Document) -> str:
    """Why a document of the right types cannot be, empty when it can.

    Raises:
        ValueError: a time does not exist.
    """
    if isinstance(document, Backup):
        moment_of(document.started_at)
        return _contradiction_of_streams(document) or _contradiction_of_the_rest(document)
    if isinstance(document, Manifest):
        sequences = [document.last_seq, *(one.last_seq for one in document.segments)]
        if max(sequences) > MAX_SEQUENCE:
            return f"a sequence is above {MAX_SEQUENCE}"
    return ""


def damaged(key: str, why: str, kind: str = "damaged") -> BadDataError:
    """The error for an object that is not what it must be; `kind` is of those in docs/reference/findings.md."""
    return BadDataError(
        f"{key} is damaged: {why}",
        code=f"data.{kind}",
        means="what depends on this object cannot be read; other backups are not affected",
        hint="run `jetkeep verify` to see which backups it touches, and restore from another one",
    )


def _contradiction_of_streams(backup: Backup) -> str:
    names = [one.name for one in backup.streams if one.status == "complete"]
    if len(names) != len(set(names)):
        return "a stream is there twice"
    for entry in backup.streams:
        if (entry.status == "complete") != (entry.manifest is not None and bool(entry.kind)):
            return f"stream {entry.name} is {entry.status} and should say so by its manifest"
    if backup.status == "complete" and any(one.status != "complete" for one in backup.streams):
        return "it says that it is complete, and a stream failed"
    return ""


def _contradiction_of_the_rest(backup: Backup) -> str:
    files, part = backup.files, backup.set
    if files and (files.status == "complete") != (files.archive is not None):
        return f"its files are {files.status} and should say so by their archive"
    if files and files.status == "failed" and backup.status == "complete":
        return "it says that it is complete, and its files failed"
    if part and (part.part not in part.parts or part.part.partition(".")[0] != backup.source):
        return f"it cannot be part {part.part} of a set of {', '.join(part.parts)}"
    return ""
