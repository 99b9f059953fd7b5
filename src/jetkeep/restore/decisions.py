"""What a plan is made of: steps with reasons, differences, losses in numbers, refusals. All frozen, all printable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jetkeep.errors import CannotRestoreError
from jetkeep.model import ConsumerRecord, JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.restore.forecast import Forecast, Rules

Writer = Literal["tar", "archive"]


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How streams are to be restored.

    `as_name` renames the one stream that is restored. `if_exists`: `fail` or `skip`. `replicas`, `storage`, `cluster`
    and `tags` override the stored configuration. `accept_loss` allows what the plan names as lost.
    """

    as_name: str | None = None
    if_exists: Literal["fail", "skip"] = "fail"
    accept_loss: bool = False
    replicas: int | None = None
    storage: Literal["file", "memory"] | None = None
    cluster: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that will not be as it was captured: where, and why. Nothing is lost by it."""

    what: str
    why: str

    def to_dict(self) -> JsonDict:
        """For `--json`."""
        return {"what": self.what, "why": self.why}


@dataclass(frozen=True, slots=True)
class Loss:
    """So many messages, consumers or subjects will not be there; `when`: once the stream is open, or at a restart."""

    cause: str
    count: int
    unit: Literal["messages", "consumers", "subjects"]
    why: str
    when: Literal["open", "restart"] = "open"

    def to_dict(self) -> JsonDict:
        """For `--json`."""
        return {"cause": self.cause, "count": self.count, "unit": self.unit, "why": self.why, "when": self.when}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a stream cannot be restored as asked, and what would help."""

    code: str
    what: str
    hint: str

    def to_dict(self) -> JsonDict:
        """For `--json`."""
        return {"code": self.code, "what": self.what, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Step:
    """One stream of a plan.

    `config` is what the stream will have once it is open; `consumers` what goes with it; `rules`
    what it enforces; `after` the streams of this
    plan that are opened before it; `leftover` says that an unfinished restore of this repository is removed first.
    """

    manifest: Manifest
    name: str
    action: Literal["restore", "skip"]
    writer: Writer
    reason: str
    config: JsonDict
    consumers: tuple[ConsumerRecord, ...]
    forecast: Forecast
    rules: Rules
    after: tuple[str, ...] = ()
    leftover: bool = False
    differences: tuple[Difference, ...] = ()
    losses: tuple[Loss, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def stored_bytes(self) -> int:
        """Bytes that are read from the repository."""
        return sum(one.bytes for one in self.manifest.segments)

    def to_dict(self) -> JsonDict:
        """For `--json`; sizes in bytes."""
        return {
            "stream": self.manifest.stream,
            "as": self.name,
            "action": self.action,
            "writer": self.writer,
            "reason": self.reason,
            "messages": self.manifest.messages,
            "bytes": self.manifest.bytes,
            "stored_bytes": self.stored_bytes,
            "first_seq": self.manifest.first_seq,
            "last_seq": self.manifest.last_seq,
            "consumers": [one.name for one in self.consumers],
            "after": list(self.after),
            "removes_leftover": self.leftover,
            "appended": self.forecast.markers + self.forecast.due,
            "differences": [one.to_dict() for one in self.differences],
            "losses": [one.to_dict() for one in self.losses],
            "refusals": [one.to_dict() for one in self.refusals],
            "config": self.config,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered steps to one target, as of `now_ns`; what `--dry-run` prints."""

    target_version: str
    now_ns: int
    steps: tuple[Step, ...]
    accept_loss: bool = False
    notices: tuple[str, ...] = field(default=())

    @property
    def refusals(self) -> list[tuple[str, Refusal]]:
        """All reasons not to begin, with the stream that each is about."""
        found = [(step.manifest.stream, one) for step in self.steps for one in step.refusals]
        if not self.accept_loss:
            found += [(step.manifest.stream, _refused(loss)) for step in self.steps for loss in step.losses]
        return found

    def check(self) -> None:
        """Refuse what cannot end well.

        Raises:
            CannotRestoreError: with the code of the first reason; the text names all of them.
        """
        found = self.refusals
        if not found:
            return
        hints = list(dict.fromkeys(one.hint for _, one in found if one.hint))
        raise CannotRestoreError(
            "; ".join(f"{stream}: {one.what}" for stream, one in found),
            code=found[0][1].code,
            means="nothing was changed at the target",
            hint="; ".join(hints),
        )

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "target_version": self.target_version,
            "accept_loss": self.accept_loss,
            "notices": list(self.notices),
            "steps": [step.to_dict() for step in self.steps],
        }


def _refused(loss: Loss) -> Refusal:
    code = f"restore.loss-{loss.cause.replace('_', '-')}"
    hint = "look at the plan (--dry-run); --accept-loss restores all the same"
    return Refusal(code, f"{loss.count:,} {loss.unit}: {loss.why}", hint)
