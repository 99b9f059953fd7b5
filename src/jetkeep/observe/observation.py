"""What was found out about repositories and sources, as values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from jetkeep.repository.documents import RunRecord
from jetkeep.repository.runs import Ran


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """A stream as the newest backup of its source has it.

    Attributes:
        captured: when the backup that has it began, seconds since the epoch.
        gap_messages: sequences that no object covers, with a reason.
        lag_messages: what the source has stored since; None where it was not asked.
        lag_seconds: for how long at most a message has not been safe; 0 when none is missing, None where it was not asked.
    """

    source: str
    account: str
    name: str
    last_sequence: int
    messages: int
    captured: float
    gap_messages: int
    lag_messages: int | None = None
    lag_seconds: float | None = None


@dataclass(slots=True)
class SourceFacts:
    """The backups of one source in one repository; sizes are bytes, times seconds since the epoch."""

    source: str
    backups: Counter[str] = field(default_factory=Counter)
    last_success: float | None = None
    duration: float = 0.0
    raw_bytes: int = 0
    stored_bytes: int = 0
    messages: int = 0
    streams: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class DrillFacts:
    """The newest evidence: times in seconds since the epoch."""

    finished: float
    successful: bool
    rto_seconds: float
    rpo_seconds: float
    next_due: float


@dataclass(slots=True)
class RepositoryFacts:
    """One repository; `up` is False where it could not be listed, and then nothing else is known.

    Attributes:
        behind: backups of the first repository that it lacks; None for the first, or where that is not known.
        lag_seconds: how old the oldest of these is.
        counted: runs of the last seven days by kind and outcome.
        newest: the newest run of each kind, with its record where that can be read.
        last_success: when the newest successful run of each kind ended.
    """

    name: str
    required: bool
    up: bool = False
    encrypted: bool = False
    size: int = 0
    objects: int = 0
    volume: tuple[int, int] | None = None
    behind: int | None = None
    lag_seconds: float | None = None
    sources: dict[str, SourceFacts] = field(default_factory=dict)
    drill: DrillFacts | None = None
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)
    newest: dict[str, tuple[Ran, RunRecord | None]] = field(default_factory=dict)
    last_success: dict[str, datetime] = field(default_factory=dict)


@dataclass(slots=True)
class Observation:
    """Everything, of one moment; `left_out` streams are not among `streams` (MOST_STREAMS)."""

    repositories: list[RepositoryFacts] = field(default_factory=list)
    streams: list[StreamFacts] = field(default_factory=list)
    left_out: int = 0
    uncovered: dict[str, list[str]] = field(default_factory=dict)
    unreachable: list[str] = field(default_factory=list)
    seconds: float = 0.0
