"""What either snapshot form turns into: one protocol for the archive of 2.15 and the tar of blocks before it."""

from __future__ import annotations

from dataclasses import dataclass

from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.model import ConsumerRecord, JsonDict


@dataclass(frozen=True, slots=True)
class StateEvent:
    """The stream's state as the archive holds it; the tar form has none."""

    state: JsonDict


@dataclass(frozen=True, slots=True)
class ConsumerEvent:
    """One consumer with its state."""

    record: ConsumerRecord


@dataclass(frozen=True, slots=True)
class DeletedEvent:
    """Sequences among the rows already given that are not live; comes last, from the tar form only."""

    sequences: SequenceSet


SnapshotEvent = StateEvent | ConsumerEvent | DeletedEvent | MessageBatch
