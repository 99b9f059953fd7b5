"""Which of the rows that a snapshot's blocks hold are live: what tombstones and index.db say, taken together.

A row is live when no tombstone in any block names it and index.db lists its block, with a first sequence that is
not above it and without it among the deleted.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from jetkeep.codecs.msgblock.index_db import IndexedBlock
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import BadDataError

#: Tombstones are folded into ranges whenever so many have been collected.
_FOLD = 1_000_000


class Liveness:
    """Collects what was read; holds ranges of rows and tombstones, not one by one."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._rows: dict[int, SequenceSet] = {}
        self._cut: set[int] = set()
        self._tombstones = SequenceSet()
        self._loose = array("Q")
        self._dead: list[SequenceSet] = []
        self._listed: set[int] = set()
        self.last_block = 0

    def add_block(self, number: int, rows: SequenceSet, tombstones: array[int], *, is_cut: bool) -> None:
        """Take in a block that was read; `is_cut`: it holds rows that were left out. Numbers rise."""
        self._rows[number] = rows
        if is_cut:
            self._cut.add(number)
        self._loose.extend(tombstones)
        if len(self._loose) >= _FOLD:
            self._fold()
        self.last_block = number

    def add_indexed(self, block: IndexedBlock) -> None:
        """Take in a block as index.db has it, after all blocks; raises BadDataError where messages are missing."""
        rows = self._rows.get(block.number, SequenceSet())
        self._listed.add(block.number)
        below = [(0, block.first_seq - 1)] if block.first_seq else []
        dead = rows & SequenceSet.from_ranges(below) | rows & block.deleted
        live = rows.count() - dead.count()
        # The last block may have grown after it was copied; every block before it was complete by then.
        if live < block.messages and block.number < self.last_block and block.number not in self._cut:
            raise BadDataError(
                f"block {block.number} of the snapshot of {self._stream} holds {live} of {block.messages} messages",
                code="data.snapshot-incomplete",
                means="messages that the server counts are not in its snapshot; nothing of it was used",
                hint="take it again; if it fails the same way, the server's own store has lost them",
            )
        if dead:
            self._dead.append(dead)

    def dead(self) -> SequenceSet:
        """The rows that are not live, once everything was taken in."""
        self._fold()
        unlisted = [rows for number, rows in self._rows.items() if number not in self._listed]
        named = SequenceSet()
        if self._tombstones:
            every = SequenceSet.from_ranges(run for number in sorted(self._rows) for run in self._rows[number].ranges())
            named = every & self._tombstones
        return SequenceSet.from_ranges(sorted(_runs([*self._dead, *unlisted, named])))

    def dead_without_index(self, messages: int | None) -> SequenceSet | None:
        """The same without index.db, where it can be told: no row is left to doubt, or exactly `messages` rows are."""
        self._listed = set(self._rows)
        dead = self.dead()
        left = sum(rows.count() for rows in self._rows.values()) - dead.count()
        return dead if left in (0, messages) else None

    def _fold(self) -> None:
        self._tombstones |= SequenceSet.of(set(self._loose))
        self._loose = array("Q")


def _runs(sets: list[SequenceSet]) -> Iterator[tuple[int, int]]:
    for one in sets:
        yield from one.ranges()
