"""The JSON documents of format 1 as typed values: strict both ways (docs/format.md).

An unknown key, format or feature is an error by name: a reader that overlooked one could say that all is well.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import JetkeepError
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict, Pending, Position

FORMAT = 1

#: What the types of Python do not say.
Count = Annotated[int, Meta(ge=0)]
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
FingerprintText = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
RunId = Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")]
Moment = Annotated[str, Meta(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z\Z")]


def moment_of(text: Moment) -> datetime:
    """A document's time, to the microsecond.

    Raises:
        ValueError: there is no such time.
    """
    return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)


class Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every document has."""

    format: int = FORMAT
    features: list[str] = []


class Part(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A piece of a document."""


class Sealing(Part):
    """That a repository is sealed; its keys lie under `keys/`."""

    cipher: Literal["AES-256-GCM"] = "AES-256-GCM"


class RepositoryDocument(Document):
    """`jetkeep.json`. `sealing` is absent, or says that whoever has no identity reads neither messages nor configurations."""

    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    created_at: Moment
    created_by: str
    sealing: Sealing | msgspec.UnsetType = msgspec.UNSET


class Wrapped(Part):
    """Private keys, wrapped with age for one recipient (`age1…`, `ssh-…`, or `passphrase`); base64."""

    recipient: str
    data: str


class KeyDocument(Document):
    """`keys/<generation>.json`: whom runs seal for, and the private keys of this and all earlier such recipients."""

    generation: Count
    created_at: Moment
    recipient: str
    wrapped: list[Wrapped]


class SealedBy(Part):
    """The key of the run that made a backup, wrapped (base64), and the code by which it vouches for the document (64 hex digits)."""

    key: str
    code: Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")]


class ManifestRef(Part):
    """Where a manifest is, and what it must be."""

    key: str
    sha256: Digest
    bytes: Count


class Failure(Part):
    """Why a stream failed, or the files."""

    code: str
    what: str
    means: str = ""
    hint: str = ""

    @classmethod
    def of(cls, error: JetkeepError) -> Failure:
        """The document of an error."""
        return cls(code=error.code, what=error.what, means=error.means, hint=error.hint)


class StreamEntry(Part, omit_defaults=True):
    """One stream in a backup; without a manifest when it failed."""

    name: str
    status: Literal["complete", "failed"]
    manifest: ManifestRef | None = None
    kind: Literal["full", "incremental", ""] = ""
    timeline: str = ""
    messages: Count = 0
    first_seq: Count = 0
    last_seq: Count = 0
    bytes: Count = 0
    stored_bytes: Count = 0
    consumers: Count = 0
    fingerprint: str = ""
    gaps: Count = 0
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
    total: Count


class SetPart(Part):
    """Which part of which set a backup is; `parts` are the names of all, sorted."""

    label: str
    part: str
    parts: list[str]


class FilesEntry(Part, omit_defaults=True):
    """The files that went into a backup: one archive of `count` files, or why there is none."""

    status: Literal["complete", "failed"]
    archive: ManifestRef | None = None
    count: Count = 0
    error: Failure | None = None


class Backup(Document):
    """`backups/<label>.json`: the commit. `run` is the same in every repository that a run wrote to or was copied to.

    `set` and `files` are unset for most: the keys are then absent.
    """

    repository: str
    label: str
    source: str
    started_at: Moment
    finished_at: Moment
    status: Literal["complete", "partial"]
    tool: Tool
    server: ServerFacts
    host: str
    tags: list[str]
    selection: Selection
    streams: list[StreamEntry]
    run: RunId = ""
    set: SetPart | msgspec.UnsetType = msgspec.UNSET
    files: FilesEntry | msgspec.UnsetType = msgspec.UNSET
    sealed: SealedBy | msgspec.UnsetType = msgspec.UNSET

    @property
    def started(self) -> datetime:
        """When it began, in UTC."""
        return moment_of(self.started_at)

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for the same backup in every repository: the run that made it, else label and beginning."""
        return (self.run, "") if self.run else (self.label, self.started_at)

    @property
    def refs(self) -> list[ManifestRef]:
        """The objects that it names: its streams' manifests, and the archive of its files."""
        found = [entry.manifest for entry in self.streams]
        return [one for one in (*found, self.files.archive if self.files else None) if one is not None]

    def stream(self, name: str) -> StreamEntry | None:
        """The complete entry of a stream, None when it is not there or failed."""
        return next((one for one in self.streams if one.name == name and one.status == "complete"), None)


class SegmentRef(Part):
    """A segment: where it is, what it must be, what is in it."""

    key: str
    sha256: Digest
    bytes: Count
    first_seq: Count
    last_seq: Count
    count: Count
    first_ts_ns: int
    last_ts_ns: int
    raw_bytes: Count
    fingerprint: FingerprintText


class Gap(Part):
    """Sequences that should be there and are not, and why."""

    set: str
    reason: str


class PositionDoc(Part):
    """Where a consumer is."""

    consumer_seq: Count
    stream_seq: Count


class StateDoc(Part):
    """A consumer's state; keys are stream sequences."""

    delivered: PositionDoc
    ack_floor: PositionDoc
    pending: dict[Count, tuple[Count, int]]
    redelivered: dict[Count, Count]


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
                delivered=PositionDoc(**state.delivered._asdict()),
                ack_floor=PositionDoc(**state.ack_floor._asdict()),
                pending={seq: (one.consumer_seq, one.ts) for seq, one in sorted(state.pending.items())},
                redelivered=dict(sorted(state.redelivered.items())),
            ),
        )

    def record(self) -> ConsumerRecord:
        """The consumer of a document."""
        state = ConsumerState(
            Position(self.state.delivered.consumer_seq, self.state.delivered.stream_seq),
            Position(self.state.ack_floor.consumer_seq, self.state.ack_floor.stream_seq),
            {seq: Pending(*one) for seq, one in self.state.pending.items()},
            dict(self.state.redelivered),
        )
        return ConsumerRecord(self.name, self.config, state, self.created_at)


class Manifest(Document):
    """All that one backup says of one stream; complete in itself."""

    source: str
    stream: str
    timeline: str
    label: str
    kind: Literal["full", "incremental"]
    method: str
    reason: str
    captured_at_ns: int
    server_version: str
    config: JsonDict
    created_at: str
    state: JsonDict
    messages: Count
    first_seq: Count
    last_seq: Count
    bytes: Count
    first_ts_ns: int
    last_ts_ns: int
    fingerprint: FingerprintText
    segments: list[SegmentRef]
    deleted: str
    gaps: list[Gap]
    consumers: list[ConsumerDoc]
    notes: list[str]


class IndexEntry(Part):
    """A backup object as a listing showed it, and its bytes."""

    key: str
    size: Count
    modified_ns: int
    text: str


class Index(Document):
    """`index/…`: backup objects that need not be read one by one."""

    entries: list[IndexEntry]


class Pin(Document):
    """`pins/<label>.json`."""

    label: str
    pinned_at: Moment
    reason: str


class RunRecord(Document):
    """`runs/<time>-<kind>-<outcome>-<nonce>.json`: that something was done here, or failed; nothing depends on it.

    Counts are of what that kind of run counts, 0 elsewhere: `bytes` and `stored_bytes`, `messages` and `gaps` (sequences) of
    a backup; `streams` and `failed`; `backups` that were copied or let go; `damage` that was found. `label` is the backup's,
    or the set's. A drill has `rto_seconds` and `rpo_seconds`.
    """

    kind: Annotated[str, Meta(pattern=r"\A[a-z]{1,16}\Z")]
    outcome: Literal["success", "partial", "failure"]
    started_at: Moment
    finished_at: Moment
    exit_status: Count = 0
    error: str = ""
    host: str = ""
    tool: str = ""
    source: str = ""
    label: str = ""
    streams: Count = 0
    failed: Count = 0
    messages: Count = 0
    bytes: Count = 0
    stored_bytes: Count = 0
    gaps: Count = 0
    backups: Count = 0
    damage: Count = 0
    rto_seconds: float | None = None
    rpo_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """How long it took, by its machine's clock."""
        return (moment_of(self.finished_at) - moment_of(self.started_at)).total_seconds()


class Owner(Part):
    """Who holds a lease; `process` names the process for all time, empty when that is not possible."""

    host: str
    pid: int
    process: str = ""


class ClaimDocument(Document):
    """`claims/<occurrence>-<schedule>-<attempt>.json`: who does the work of a schedule at one of its times."""

    schedule: str
    occurrence: Moment
    nonce: str
    owner: Owner
    acquired_at: Moment
    renewals: Count = 0
    finished_at: str = ""
    outcome: str = ""


class LeaseDocument(Document):
    """`leases/<purpose>-<nonce>.json`."""

    purpose: str
    nonce: str
    owner: Owner
    acquired_at: Moment
    expires_at: Moment
    labels: list[str]


def as_dict(document: Any) -> JsonDict:
    """A document or part as plain JSON values."""
    value: JsonDict = msgspec.to_builtins(document)
    return value


def difference(backup: Backup, entry: StreamEntry, manifest: Manifest) -> str:
    """Which statement of a manifest is not the one of its backup; empty when they agree."""
    same = ("kind", "timeline", "messages", "first_seq", "last_seq", "bytes", "fingerprint")
    pairs = {
        "source": (manifest.source, backup.source),
        "stream": (manifest.stream, entry.name),
        "label": (manifest.label, backup.label),
        **{one: (getattr(manifest, one), getattr(entry, one)) for one in same},
        **({"fingerprint": ("", entry.fingerprint)} if backup.sealed else {}),
        "stored_bytes": (sum(one.bytes for one in manifest.segments), entry.stored_bytes),
        "consumers": (len(manifest.consumers), entry.consumers),
        "gaps": (sum(SequenceSet.decode(one.set).count() for one in manifest.gaps), entry.gaps),
    }
    return next((name for name, (one, other) in pairs.items() if one != other), "")
