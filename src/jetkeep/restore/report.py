"""What a restore did, stream by stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jetkeep.errors import JetkeepError
from jetkeep.model import ConsumerRecord, JsonDict
from jetkeep.restore.comparing import Found
from jetkeep.restore.decisions import Plan, Step


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What the target's own snapshot held before the stream was opened; `bytes` are raw bytes."""

    messages: int
    first_seq: int
    last_seq: int
    bytes: int
    fingerprint: str
    consumers: dict[str, ConsumerRecord]

    @classmethod
    def of(cls, found: Found) -> ReadBack:
        """Without the sequences, of which there may be many."""
        first, last = (int(found.state.get(key, 0)) for key in ("first_seq", "last_seq"))
        total = found.fingerprint
        return cls(total.count, first, last, found.raw_bytes, total.hex(), found.consumers)


@dataclass(slots=True)
class StreamReport:
    """One stream: seconds by phase (fetch, send, settle, compare, open), and what became true of the forecast.

    `lost` are messages of the backup that are not there once the stream is open; `appended` what the server, or somebody
    else, has added by then. `read_back` is there once the stream was read for comparison, also when that failed. `notes` is for people.
    """

    step: Step
    status: Literal["restored", "skipped", "failed"] = "failed"
    seconds: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    appended: int = 0
    notes: list[str] = field(default_factory=list)
    read_back: ReadBack | None = None
    error: JetkeepError | None = None

    @property
    def as_foreseen(self) -> bool:
        """The plan's number of lost messages turned out true."""
        return self.lost == self.step.forecast.lost

    def to_dict(self) -> JsonDict:
        """For `--json`; sizes in bytes."""
        step = self.step
        return {
            "stream": step.manifest.stream,
            "as": step.name,
            "status": self.status,
            "messages": step.manifest.messages,
            "bytes": step.manifest.bytes,
            "consumers": len(step.consumers),
            "writer": step.writer,
            "reason": step.reason,
            "seconds": {phase: round(value, 3) for phase, value in self.seconds.items()},
            "differences": [one.to_dict() for one in step.differences],
            "losses": [one.to_dict() for one in step.losses],
            "lost": self.lost,
            "appended": self.appended,
            "notes": self.notes,
            "error": self.error.to_dict() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """A whole restore, in the plan's order; `plan_seconds` of its `seconds` went before anything was changed."""

    plan: Plan
    streams: tuple[StreamReport, ...]
    seconds: float
    plan_seconds: float

    @property
    def failed(self) -> list[StreamReport]:
        """Streams that were not restored and nothing of which is left."""
        return [one for one in self.streams if one.status == "failed"]

    @property
    def status(self) -> Literal["complete", "partial", "failed"]:
        """Whether everything, something or nothing that was asked for is there."""
        if not self.failed:
            return "complete"
        return "failed" if len(self.failed) == len(self.streams) else "partial"

    def to_dict(self) -> JsonDict:
        """For `--json`."""
        return {
            "status": self.status,
            "target_version": self.plan.target_version,
            "seconds": round(self.seconds, 3),
            "notices": list(self.plan.notices),
            "streams": [one.to_dict() for one in self.streams],
        }
