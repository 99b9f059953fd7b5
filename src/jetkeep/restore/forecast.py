"""What a target will drop from a stream once its real configuration is in force: counted, not guessed. Pure.

The order is that of a server that gets the configuration by an update (measured on 2.10.26 to 2.15.1): first `max_msgs`
and `max_bytes` from the front, then `max_msgs_per_subject`, then age and per-message TTL. With discard `new` the first
two drop nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from jetkeep.codecs.batch import MessageBatch
from jetkeep.model import JsonDict
from jetkeep.restore.fields import BATCHED, Version

#: A server takes a record above this for damage, even one that it wrote itself (file storage).
LARGEST_RECORD = 32 * 1024 * 1024
_SECOND = 1_000_000_000
_TTL = b"Nats-TTL"
_SCHEDULE = b"Nats-Schedule"
_MARKER = b"Nats-Marker-Reason"
_SOURCE = b"Nats-Stream-Source"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(h|ms|us|µs|ns|m|s)")


@dataclass(frozen=True, slots=True)
class Rules:
    """A configuration's limits as they bite: durations in nanoseconds, 0 = no limit.

    `late_per_subject`: servers up to 2.12 enforce a limit per subject that comes by an update only when they restart.
    `skips_expired`: the archive's restore leaves out what its TTL has ended, whatever the configuration says.
    `max_payload` is heeded by the archive's restore only.
    """

    max_age: int = 0
    max_msgs: int = 0
    max_bytes: int = 0
    max_per_subject: int = 0
    late_per_subject: bool = False
    message_ttl: bool = False
    markers: bool = False
    schedules: bool = False
    memory: bool = False
    skips_expired: bool = False
    max_payload: int = 0
    sources: bool = False

    @classmethod
    def of(cls, config: JsonDict, target: Version, *, archive: bool, max_payload: int) -> Rules:
        """The rules of a configuration that fits `target`."""
        old = config.get("discard", "old") == "old"
        sealed = bool(config.get("sealed"))
        return cls(
            max_age=0 if sealed else max(int(config.get("max_age") or 0), 0),
            max_msgs=max(int(config.get("max_msgs") or 0), 0) if old and not sealed else 0,
            max_bytes=max(int(config.get("max_bytes") or 0), 0) if old and not sealed else 0,
            max_per_subject=max(int(config.get("max_msgs_per_subject") or 0), 0),
            late_per_subject=target < BATCHED,
            message_ttl=bool(config.get("allow_msg_ttl")),
            markers=bool(config.get("subject_delete_marker_ttl")),
            schedules=bool(config.get("allow_msg_schedules")),
            memory=config.get("storage") == "memory",
            skips_expired=archive,
            max_payload=max_payload if archive else 0,
            sources=bool(config.get("sources")),
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What will happen to the messages, as of `now_ns`. Each lost message is counted once, under what drops it first.

    `losses`: cause → messages, at opening. `late`: the same, at the server's next restart. `markers`: messages that the
    server appends. `due`: schedules whose time has passed; each fires once. `origins`: (stream, filter) → highest
    sequence of that origin among the messages. `scanned` says whether messages were looked at.
    """

    now_ns: int
    messages: int
    bytes: int
    losses: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    markers: int = 0
    due: int = 0
    oversize: int = 0
    origins: dict[tuple[str, str], int] = field(default_factory=dict)
    scanned: bool = False

    @property
    def lost(self) -> int:
        """Messages that are gone once the stream is open."""
        return sum(self.losses.values())


def must_scan(rules: Rules, facts: Facts, now_ns: int) -> str:
    """Why messages have to be looked at before the restore; empty when the manifest alone is enough."""
    if not facts.messages:
        return ""
    upper = facts.raw_bytes + (0 if rules.memory else 18 * facts.messages)
    reasons = {
        "max_age": rules.max_age and facts.first_ts_ns + rules.max_age <= now_ns,
        "max_msgs": rules.max_msgs and facts.messages > rules.max_msgs,
        "max_bytes": rules.max_bytes and upper > rules.max_bytes,
        "max_msgs_per_subject": rules.max_per_subject
        and facts.messages > rules.max_per_subject
        and not facts.per_subject_holds,
        "Nats-TTL": rules.message_ttl or rules.skips_expired,
        "Nats-Schedule": rules.schedules,
        "max_payload": rules.max_payload and facts.largest_segment > rules.max_payload,
        "message size": not rules.memory and facts.may_hold_huge,
        "sources": rules.sources,
    }
    return ", ".join(name for name, bites in reasons.items() if bites)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest tells about messages without reading one.

    `per_subject_holds`: the source enforced this limit per subject at all times. `may_hold_huge`: some segment
    may hold a message above `LARGEST_RECORD`.
    """

    messages: int
    raw_bytes: int
    first_ts_ns: int
    largest_segment: int = 0
    per_subject_holds: bool = False
    may_hold_huge: bool = False


class Scan:
    """Counts what `rules` drop, in one pass over the live batches, or two where `again` says so.

    Memory: one entry for each subject where a limit per subject or delete markers need it, else nothing.
    """

    def __init__(self, rules: Rules, now_ns: int) -> None:
        self._rules = rules
        self._now = now_ns
        self._by_subject = bool(rules.max_per_subject or (rules.markers and (rules.max_age or rules.message_ttl)))
        self._counts: dict[bytes, int] = {}
        self._messages = self._bytes = self._due = self._oversize = self._huge = 0
        self._losses: dict[str, int] = {}
        self._late = 0
        self._origins: dict[tuple[str, str], int] = {}
        self._seen = self._left = 0
        self._last_is_marker: dict[bytes, bool] = {}
        self._alive: dict[bytes, int] = {}

    def first(self, batch: MessageBatch) -> None:
        """Totals: what the second pass needs to know before it can tell which rows go."""
        self._messages += len(batch)
        with_headers = _with_headers(batch)
        self._bytes += batch.raw_bytes + (0 if self._rules.memory else 14 * len(batch) + 4 * with_headers)
        if self._by_subject:
            for at in range(len(batch)):
                subject = _subject(batch, at)
                self._counts[subject] = self._counts.get(subject, 0) + 1
        if with_headers and (self._rules.schedules or self._rules.sources):
            self._note_headers(batch)
        self._note_sizes(batch)

    def second(self, batch: MessageBatch) -> None:
        """Decide for each row, in the order in which a server does."""
        rules = self._rules
        excess = self._messages - rules.max_msgs if rules.max_msgs else 0
        timed = bytes(_span(batch.headers, batch.header_offsets)).find(_TTL) >= 0
        for at in range(len(batch)):
            headers = bytes(batch.headers[batch.header_offsets[at] : batch.header_offsets[at + 1]]) if timed else b""
            subject = _subject(batch, at) if self._by_subject else b""
            cause = self._front(batch, at, excess)
            self._seen += 1
            surplus = not cause and self._per_subject(subject)
            if self._by_subject:
                self._counts[subject] -= 1
            if surplus and not rules.late_per_subject:
                cause = "max_msgs_per_subject"
            aged = "" if cause else self._expired(batch.ts[at], headers)
            self._late += surplus and rules.late_per_subject and not aged
            if cause or aged:
                self._losses[cause or aged] = self._losses.get(cause or aged, 0) + 1
            if rules.markers and self._by_subject and not cause:
                self._alive[subject] = self._alive.get(subject, 0) + (not aged)
                self._last_is_marker[subject] = _MARKER in _headers(batch, at)

    @property
    def again(self) -> bool:
        """A second pass is needed."""
        rules = self._rules
        return bool(
            rules.max_age
            or rules.message_ttl
            or rules.skips_expired
            or (rules.max_msgs and self._messages > rules.max_msgs)
            or (rules.max_bytes and self._bytes > rules.max_bytes)
            or (rules.max_per_subject and max(self._counts.values(), default=0) > rules.max_per_subject)
        )

    def begin_second(self) -> None:
        """Call between the passes."""
        self._left = self._bytes

    def result(self) -> Forecast:
        """What was counted."""
        losses = dict(self._losses)
        if self._huge:
            losses["message_size"] = self._huge
        if self._oversize:
            losses["max_payload"] = self._oversize
        markers = sum(1 for key, alive in self._alive.items() if not alive and not self._last_is_marker[key])
        late = {"max_msgs_per_subject": self._late} if self._late else {}
        return Forecast(
            self._now,
            self._messages,
            self._bytes,
            losses,
            late,
            markers,
            self._due,
            self._oversize + self._huge,
            self._origins,
            scanned=True,
        )

    def _front(self, batch: MessageBatch, at: int, excess: int) -> str:
        rules = self._rules
        size = _size(rules, batch, at) if rules.max_bytes else 0
        if self._seen < excess:
            self._left -= size
            return "max_msgs"
        if rules.max_bytes and self._left > rules.max_bytes:
            self._left -= size
            return "max_bytes"
        return ""

    def _per_subject(self, subject: bytes) -> bool:
        return bool(self._rules.max_per_subject) and self._counts[subject] > self._rules.max_per_subject

    def _expired(self, ts: int, headers: bytes) -> str:
        ttl = message_ttl(headers) if headers else 0
        if ttl > 0 and (self._rules.message_ttl or self._rules.skips_expired) and ts + ttl * _SECOND <= self._now:
            return "ttl"
        if self._rules.max_age and ttl >= 0 and ts + self._rules.max_age <= self._now:
            return "max_age"
        return ""

    def _note_sizes(self, batch: MessageBatch) -> None:
        large = len(too_large(self._rules, batch))
        if self._rules.memory:
            self._oversize += large
        else:
            self._huge += large

    def _note_headers(self, batch: MessageBatch) -> None:
        block = bytes(_span(batch.headers, batch.header_offsets))
        if _SCHEDULE not in block and _SOURCE not in block:
            return
        for at in range(len(batch)):
            headers = _headers(batch, at)
            if self._rules.schedules and _is_due(headers, self._now):
                self._due += 1
            if self._rules.sources and (told := header(headers, _SOURCE)):
                key, seq = origin_of(told)
                self._origins[key] = max(seq, self._origins.get(key, 0))


def too_large(rules: Rules, batch: MessageBatch) -> set[int]:
    """Positions of the messages that the target's storage cannot take."""
    limit = rules.max_payload if rules.memory else LARGEST_RECORD
    if not limit or batch.raw_bytes + 18 <= limit:
        return set()
    fixed = 0 if rules.memory else 34
    found = set()
    for at in range(len(batch)):
        headers, body = _lengths(batch, at)
        subject = 0 if rules.memory else batch.subject_offsets[at + 1] - batch.subject_offsets[at]
        if fixed + subject + headers + body > limit:
            found.add(at)
    return found


def _lengths(batch: MessageBatch, at: int) -> tuple[int, int]:
    headers = batch.header_offsets[at + 1] - batch.header_offsets[at]
    return headers, batch.payload_offsets[at + 1] - batch.payload_offsets[at]


def _size(rules: Rules, batch: MessageBatch, at: int) -> int:
    """Bytes that a server counts for a message."""
    headers, body = _lengths(batch, at)
    raw = batch.subject_offsets[at + 1] - batch.subject_offsets[at] + headers + body + 16
    return int(raw if rules.memory else raw + (18 if headers else 14))


def header(headers: bytes, name: bytes) -> str:
    """The first value of a header, by its exact name; empty when it is not there."""
    at = headers.find(b"\r\n" + name + b":")
    if at < 0:
        return ""
    start = at + len(name) + 3
    return headers[start : headers.find(b"\r\n", start)].strip().decode("utf-8", "replace")


def message_ttl(headers: bytes) -> int:
    """A message's own TTL in seconds as servers read it; 0 = none (or not readable), -1 = never expires."""
    text = header(headers, _TTL)
    if not text:
        return 0
    if text.lower() == "never":
        return -1
    if text.isdigit():
        return int(text)
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return 0
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def origin_of(told: str) -> tuple[tuple[str, str], int]:
    """(stream, filter) and sequence out of a `Nats-Stream-Source` header."""
    tokens = told.split(" ")
    name = tokens[0].split(":")[0]
    seq = int(tokens[1]) if len(tokens) > 1 and tokens[1].isdigit() else 0
    return (name, tokens[2] if len(tokens) > 2 else ">"), seq


def _is_due(headers: bytes, now_ns: int) -> bool:
    told = header(headers, _SCHEDULE)
    if not told.startswith("@at "):
        return False
    try:
        at = datetime.fromisoformat(told[4:].strip())
    except ValueError:
        return False
    return at.timestamp() * 1e9 <= now_ns


def _headers(batch: MessageBatch, at: int) -> bytes:
    return bytes(batch.headers[batch.header_offsets[at] : batch.header_offsets[at + 1]])


def _subject(batch: MessageBatch, at: int) -> bytes:
    return bytes(batch.subjects[batch.subject_offsets[at] : batch.subject_offsets[at + 1]])


def _span(data: memoryview, offsets: memoryview) -> memoryview:
    return data[offsets[0] : offsets[len(offsets) - 1]] if len(offsets) else data[:0]


def _with_headers(batch: MessageBatch) -> int:
    offsets = batch.header_offsets
    if not len(batch) or offsets[0] == offsets[len(batch)]:
        return 0
    return sum(1 for at in range(len(batch)) if offsets[at + 1] > offsets[at])
