"""The JSON documents of format 1 as typed values: strict both ways (docs/format.md).

An unknown key, format or feature is an error by name: a reader that overlooked one could say that all is well.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, TypeVar

import msgspec
import zstandard

from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict, Pending, Position

FORMAT = 1
#: Bounds against hostile objects: a stored document, and a manifest once decompressed.
MAX_DOCUMENT = 256 * 1024 * 1024
MAX_MANIFEST = 2 * 1024 * 1024 * 1024


class Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every document has."""

    format: int = FORMAT
    features: list[str] = []


class Part(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A piece of a document."""


D = TypeVar("D", bound=Document)


class RepositoryDocument(Document):
    """`jetkeep.json`."""

    id: str
    created_at: str
    created_by: str


class ManifestRef(Part):
    """Where a manifest is, and what it must be."""

    key: str
    sha256: str
    bytes: int


class Failure(Part):
    """Why a stream failed."""

    code: str
    what: str
    means: str = ""
    hint: str = ""


class StreamEntry(Part, omit_defaults=True):
    """One stream in a backup; without a manifest when it failed."""

    name: str
    status: str
    manifest: ManifestRef | None = None
    kind: str = ""
    timeline: str = ""
    messages: int = 0
    first_seq: int = 0
    last_seq: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    consumers: int = 0
    fingerprint: str = ""
    gaps: int = 0
    error: Failure | None = None


class Tool(Part):
    """Who wrote it."""

    name: str
    version: str


class ServerFacts(Part):
    """The server as it introduced itself; empty where it said nothing."""

    version: str = ""
    name: str = ""
    cluster: str = ""
    domain: str = ""
    account: str = ""


class Selection(Part):
    """What was asked for; `total` streams were in the account."""

    include: list[str]
    exclude: list[str]
    total: int


class Backup(Document):
    """`backups/<label>.json`: the commit."""

    repository: str
    label: str
    source: str
    started_at: str
    finished_at: str
    status: str
    tool: Tool
    server: ServerFacts
    host: str
    tags: list[str]
    selection: Selection
    streams: list[StreamEntry]

    def stream(self, name: str) -> StreamEntry | None:
        """The complete entry of a stream, None when it is not there or failed."""
        return next((one for one in self.streams if one.name == name and one.status == "complete"), None)


class SegmentRef(Part):
    """A segment: where it is, what it must be, what is in it."""

    key: str
    sha256: str
    bytes: int
    first_seq: int
    last_seq: int
    count: int
    first_ts_ns: int
    last_ts_ns: int
    raw_bytes: int
    fingerprint: str


class Gap(Part):
    """Sequences that should be there and are not, and why."""

    set: str
    reason: str


class StateDoc(Part):
    """A consumer's state."""

    delivered: dict[str, int]
    ack_floor: dict[str, int]
    pending: dict[str, tuple[int, int]]
    redelivered: dict[str, int]


class ConsumerDoc(Part):
    """A consumer in a manifest."""

    name: str
    config: JsonDict
    created_at: str | None
    state: StateDoc

    @classmethod
    def of(cls, record: ConsumerRecord) -> ConsumerDoc:
        """The document of a consumer."""
        state = record.state
        return cls(
            name=record.name,
            config=record.config,
            created_at=record.created,
            state=StateDoc(
                delivered=state.delivered._asdict(),
                ack_floor=state.ack_floor._asdict(),
                pending={str(seq): (one.consumer_seq, one.ts) for seq, one in sorted(state.pending.items())},
                redelivered={str(seq): count for seq, count in sorted(state.redelivered.items())},
            ),
        )

    def record(self) -> ConsumerRecord:
        """The consumer of a document."""
        state = ConsumerState(
            Position(**self.state.delivered),
            Position(**self.state.ack_floor),
            {int(seq): Pending(*one) for seq, one in self.state.pending.items()},
            {int(seq): count for seq, count in self.state.redelivered.items()},
        )
        return ConsumerRecord(self.name, self.config, state, self.created_at)


class Manifest(Document):
    """All that one backup says of one stream; complete in itself."""

    source: str
    stream: str
    timeline: str
    label: str
    kind: str
    method: str
    reason: str
    captured_at_ns: int
    server_version: str
    config: JsonDict
    created_at: str
    state: JsonDict
    messages: int
    first_seq: int
    last_seq: int
    bytes: int
    first_ts_ns: int
    last_ts_ns: int
    fingerprint: str
    segments: list[SegmentRef]
    deleted: str
    gaps: list[Gap]
    consumers: list[ConsumerDoc]
    notes: list[str]


class Pin(Document):
    """`pins/<label>.json`."""

    label: str
    pinned_at: str
    reason: str


class Owner(Part):
    """Who holds a lease."""

    host: str
    pid: int


class LeaseDocument(Document):
    """`leases/<purpose>-<nonce>.json`."""

    purpose: str
    nonce: str
    owner: Owner
    acquired_at: str
    expires_at: str
    labels: list[str]


_ENVELOPE = re.compile(rb'\{"sha256":"([0-9a-f]{64})","body":')


def seal(document: Document | JsonDict) -> bytes:
    """The bytes of an enveloped document."""
    body = msgspec.json.encode(document)
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
    """A manifest's stored bytes."""
    return zstandard.ZstdCompressor(level=3).compress(msgspec.json.encode(manifest))


def decode_manifest(data: bytes, key: str) -> Manifest:
    """Read a manifest whose stored bytes have been proven.

    Raises:
        BadDataError: it cannot be decompressed within bounds, or is no manifest of this format.
    """
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= MAX_MANIFEST:
            raise damaged(key, f"it states a size of {size} bytes")
        body = zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as wrong:
        raise damaged(key, str(wrong)) from None
    return _decode(body, key, Manifest)


class _Versions(msgspec.Struct):
    format: int
    features: list[str] = []


def _decode(body: bytes, key: str, kind: type[D]) -> D:
    try:
        versions = msgspec.json.decode(body, type=_Versions)
        if versions.format != FORMAT or versions.features:
            unknown = f"format {versions.format}" if versions.format != FORMAT else f"feature '{versions.features[0]}'"
            raise BadDataError(
                f"{key} needs {unknown}, which this version does not know",
                code="data.format",
                means="nothing of it was read; its data is untouched",
                hint="use the newer jetkeep that wrote it",
            )
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as wrong:
        raise damaged(key, str(wrong)) from None


def damaged(key: str, why: str) -> BadDataError:
    """The error for an object that is not what it must be."""
    return BadDataError(
        f"{key} is damaged: {why}",
        code="data.damaged",
        means="what depends on this object cannot be read; other backups are not affected",
        hint="run `jetkeep verify` to see which backups it touches, and restore from another one",
    )


def as_dict(document: Any) -> JsonDict:
    """A document or part as plain JSON values."""
    value: JsonDict = msgspec.to_builtins(document)
    return value
