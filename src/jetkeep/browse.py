"""Browse: read chosen messages of a backup without restoring anything."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from jetkeep.catalog import live_batches
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.sequences import MAX_SEQUENCE, SequenceSet
from jetkeep.errors import UsageError
from jetkeep.model import Message
from jetkeep.repository.documents import Manifest
from jetkeep.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which live messages are wanted: all conditions must hold.

    `first` and `last` are sequences, inclusive; `since_ns` (inclusive) and `until_ns` (exclusive) are the time at which
    the server stored a message; `subjects` are NATS subjects with their wildcards, none means all.
    `last_per_subject` keeps the newest of each subject among those that fulfil the other conditions.
    """

    first: int = 0
    last: int = MAX_SEQUENCE
    since_ns: int | None = None
    until_ns: int | None = None
    subjects: tuple[str, ...] = ()
    last_per_subject: bool = False


async def browse(repository: Repository, manifest: Manifest, wanted: Wanted) -> AsyncIterator[Message]:
    """The wanted live messages, by rising sequence; every segment is verified before anything of it is given.

    Memory is bounded by a segment; with `last_per_subject` also by the number of subjects. Segments outside the
    wanted sequences and times are not read.

    Raises:
        UsageError: a subject is none.
        BadDataError: a segment is not what its manifest says.
        StoreError: a segment could not be read.
    """
    choose = _chooser(wanted)
    spans = _spans(manifest, wanted)
    if wanted.last_per_subject:
        newest: dict[bytes, int] = {}
        for first, last in spans:
            async for batch in live_batches(repository, manifest, first, last):
                newest.update((_subject(batch, at), batch.seq[at]) for at in choose(batch))
        only = SequenceSet.of(newest.values())
        del newest
        spans = [span for span in spans if only.intersects(*span)]
    for first, last in spans:
        async for batch in live_batches(repository, manifest, first, last):
            for at in choose(batch):
                if not wanted.last_per_subject or batch.seq[at] in only:
                    yield batch[at]


def subject_pattern(subject: str) -> re.Pattern[bytes]:
    """A pattern for whole subjects: `*` stands for one token, `>` at the end for one or more.

    Raises:
        UsageError: it is no subject.
    """
    tokens = subject.encode().split(b".")
    if b"" in tokens or b">" in tokens[:-1] or re.search(r"\s", subject):
        raise UsageError(
            f"'{subject}' is no subject",
            code="usage.subject",
            means="nothing was read",
            hint="tokens between dots are not empty, `*` stands for one of them, `>` for all that follow, at the end",
        )
    parts = {b"*": rb"[^.]+", b">": rb".+"}
    return re.compile(rb"\.".join(parts.get(token, re.escape(token)) for token in tokens), re.DOTALL)


def _spans(manifest: Manifest, wanted: Wanted) -> list[tuple[int, int]]:
    """The sequences of each segment that can hold wanted messages."""
    since = wanted.since_ns if wanted.since_ns is not None else -(2**63)
    until = wanted.until_ns if wanted.until_ns is not None else 2**63
    spans = []
    for one in manifest.segments:
        first, last = max(one.first_seq, wanted.first), min(one.last_seq, wanted.last)
        if first <= last and one.last_ts_ns >= since and one.first_ts_ns < until:
            spans.append((first, last))
    return spans


def _chooser(wanted: Wanted) -> Callable[[MessageBatch], Iterable[int]]:
    """A function that gives the positions of a batch's rows whose time and subject are wanted."""
    patterns = [subject_pattern(one) for one in wanted.subjects]
    since, until = wanted.since_ns, wanted.until_ns

    def choose(batch: MessageBatch) -> Iterable[int]:
        rows: Iterable[int] = range(len(batch))
        if since is not None or until is not None:
            rows = [
                at
                for at in rows
                if (since is None or batch.ts[at] >= since) and (until is None or batch.ts[at] < until)
            ]
        if patterns:
            rows = [at for at in rows if any(one.fullmatch(_subject(batch, at)) for one in patterns)]
        return rows

    return choose


def _subject(batch: MessageBatch, at: int) -> bytes:
    return bytes(batch.subjects[batch.subject_offsets[at] : batch.subject_offsets[at + 1]])
