"""Where every object lies: keys from their parts, and back. Pure; the table is in docs/format.md, *Layout*."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

from jetkeep.errors import BadDataError
from jetkeep.repository.names import escape

REPOSITORY = "jetkeep.json"
BACKUPS, PINS, EVIDENCE, LEASES, SOURCES = "backups/", "pins/", "evidence/", "leases/", "sources/"
INDEX, KEYS, RUNS, CLAIMS = "index/", "keys/", "runs/", "claims/"
#: Behind the names of objects that only recipients can read.
SEALED = ".sealed"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_KEY = re.compile(r"(?:(?!\.\.?(?:/|$))[A-Za-z0-9._=-]{1,255}(?:/(?!$)|$)){1,8}", re.ASCII)
_LONGEST_KEY = 1000  # what every store takes
_LABEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_TIMELINE = r"sources/[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_=-]{1,200}/\d{8}T\d{6}-\d{9}(?:-r\d+)?"
_SEGMENT = re.compile(rf"{_TIMELINE}/segments/\d{{20}}-\d{{20}}-[0-9a-f]{{16}}(?:-\d+)?\.parquet(?:\.sealed)?")
_MANIFEST = re.compile(rf"{_TIMELINE}/manifests/{_LABEL}-[0-9a-f]{{16}}(?:-\d+)?\.json\.zst(?:\.sealed)?")
_FILES = re.compile(rf"sources/[A-Za-z0-9_-]{{1,64}}/=files/{_LABEL}-[0-9a-f]{{16}}(?:-\d+)?\.tar\.zst(?:\.sealed)?")
_KEYS = re.compile(r"keys/(\d{8})\.json")
_OWN = re.compile(r"-[0-9a-f]{16}(?:-\d{1,4})?\.(?:parquet|json\.zst|tar\.zst)(?:\.sealed)?\Z")
_INDEX = re.compile(r"index/(full|tail)-\d{8}-[0-9a-f]{16}\.json\.zst")
_EVIDENCE = re.compile(r"evidence/(\d{8}|[1-9]\d{8,15})\.json")
_RUN = re.compile(r"runs/(\d{8}T\d{6}\.\d{6}Z)-([a-z]{1,16})-(success|partial|failure)-[0-9a-f]{16}\.json")
_CLAIM = re.compile(r"claims/(\d{8}T\d{6}Z)-([A-Za-z0-9_-]{1,64})-([1-9]\d{0,3})\.json")
_PROBE = re.compile(r"leases/probe-[0-9a-f]{16}\.txt")
_LABELLED = re.compile(rf"(?:backups|pins)/({_LABEL})\.json")


def check_key(key: str) -> str:
    """The key, if a store may use it: short, of harmless characters, and inside of the repository.

    Raises:
        BadDataError: it cannot be one of the format's.
    """
    if len(key) > _LONGEST_KEY or not _KEY.fullmatch(key):
        raise BadDataError(
            f"{key[:200]!r} is no key of a repository",
            code="data.key",
            means="nothing outside of the repository was touched",
            hint="the document that names it is damaged or was made to do harm: run `jetkeep verify`",
        )
    return key


def backup_key(label: str) -> str:
    """The commit of a backup."""
    return f"{BACKUPS}{label}.json"


def pin_key(label: str) -> str:
    """The pin of a backup."""
    return f"{PINS}{label}.json"


def lease_key(purpose: str, nonce: str) -> str:
    """The lease of one run."""
    return f"{LEASES}{purpose}-{nonce}.json"


def probe_key(nonce: str) -> str:
    """What `check --store` writes to learn what a store does; worth nothing a moment later, and nobody takes it for a lease."""
    return f"{LEASES}probe-{nonce}.txt"


def is_probe(key: str) -> bool:
    """Whether it is such a key."""
    return bool(_PROBE.fullmatch(key))


def evidence_key(number: int, kind: str = "json") -> str:
    """The document of a drill, or its printable twin (`html`)."""
    return f"{EVIDENCE}{number:08d}.{kind}"


def evidence_number(key: str) -> int | None:
    """The number of a drill's document; None when the key is no such."""
    found = _EVIDENCE.fullmatch(key)
    return int(found[1]) if found else None


def run_key(finished: datetime, kind: str, outcome: str, nonce: str) -> str:
    """The record of a run; names sort by time, and tell enough to count runs by."""
    return f"{RUNS}{finished.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{kind}-{outcome}-{nonce}.json"


def run_of(key: str) -> tuple[datetime, str, str] | None:
    """When a run ended, its kind and outcome; None when the key is no record's."""
    found = _RUN.fullmatch(key)
    try:
        return (_time_of(found[1]), found[2], found[3]) if found else None
    except ValueError:
        return None


def claim_key(occurrence: datetime, schedule: str, attempt: int) -> str:
    """Who does a schedule's work at one of its times; `attempt` is above 1 where somebody died at it."""
    return f"{CLAIMS}{occurrence.astimezone(UTC):%Y%m%dT%H%M%SZ}-{schedule}-{attempt}.json"


def claim_of(key: str) -> tuple[datetime, str, int] | None:
    """Occurrence, schedule and attempt; None when the key is no claim's."""
    found = _CLAIM.fullmatch(key)
    try:
        return (_time_of(found[1]), found[2], int(found[3])) if found else None
    except ValueError:
        return None


def _time_of(text: str) -> datetime:
    form = "%Y%m%dT%H%M%S.%fZ" if "." in text else "%Y%m%dT%H%M%SZ"
    return datetime.strptime(text, form).replace(tzinfo=UTC)


def label_of(key: str) -> str | None:
    """The label of a backup's or pin's key; None when the key is no such."""
    found = _LABELLED.fullmatch(key)
    return found[1] if found else None


def index_key(kind: str, generation: int, digest: str) -> str:
    """An index object; of tails the one with the highest generation counts."""
    return f"{INDEX}{kind}-{generation:08d}-{digest[:16]}.json.zst"


def index_of(key: str) -> str | None:
    """`full` or `tail`, None when the key is no index object's."""
    found = _INDEX.fullmatch(key)
    return found[1] if found else None


def keys_key(generation: int) -> str:
    """The document of a sealed repository's keys; the highest generation counts."""
    return f"{KEYS}{generation:08d}.json"


def generation_of(key: str) -> int | None:
    """The generation of a key document's key; None when the key is no such."""
    found = _KEYS.fullmatch(key)
    return int(found[1]) if found else None


def bound_name(key: str) -> str:
    """What a sealed object is bound to: its key without what depends on its own bytes (digest, copy, extension)."""
    return _OWN.sub("", key)


def kind_of(key: str) -> Literal["segment", "manifest", "files"] | None:
    """What lies at a key under `sources/`; None when the format knows no such name."""
    if _SEGMENT.fullmatch(key):
        return "segment"
    if _FILES.fullmatch(key):
        return "files"
    return "manifest" if _MANIFEST.fullmatch(key) else None


def timeline_prefix(source: str, stream: str, timeline: str) -> str:
    """The folder of one life of a stream."""
    return f"{SOURCES}{source}/{escape(stream)}/{timeline}/"


def segment_key(prefix: str, first: int, last: int, digest: str, copy: int = 1) -> str:
    """A segment's key; `copy` is above 1 where damaged bytes hold the name."""
    return f"{prefix}segments/{first:020d}-{last:020d}-{digest[:16]}{_copy(copy)}.parquet"


def manifest_key(prefix: str, label: str, digest: str, copy: int = 1) -> str:
    """A manifest's key."""
    return f"{prefix}manifests/{label}-{digest[:16]}{_copy(copy)}.json.zst"


def files_key(source: str, label: str, digest: str, copy: int = 1) -> str:
    """The archive of a backup's files; no escaped stream is called `=files`."""
    return f"{SOURCES}{source}/=files/{label}-{digest[:16]}{_copy(copy)}.tar.zst"


def _copy(copy: int) -> str:
    return f"-{copy}" if copy > 1 else ""


def timeline_of(created_at: str, life: int) -> str:
    """The timeline's name: the stream's creation time in UTC to the nanosecond; `life` counts from 1.

    Raises:
        BadDataError: the creation time is no RFC 3339 time.
    """
    found = _TIME.fullmatch(created_at)
    try:
        moment = datetime.fromisoformat(found[1] + found[3]).astimezone(UTC) if found else None
    except (ValueError, OverflowError):
        moment = None
    if found is None or moment is None:
        raise BadDataError(
            f"{created_at[:60]!r} is no creation time of a stream",
            code="data.created",
            means="without it the stream's messages cannot be told from those of another life of the same name",
            hint="look at the stream's info on the server",
        )
    name = f"{moment.year:04d}{moment:%m%dT%H%M%S}-{(found[2] or '').ljust(9, '0')}"
    return name if life == 1 else f"{name}-r{life}"
