"""Where every object lies: keys from their parts. Pure; the table is in docs/format.md, *Layout*."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from jetkeep.errors import BadDataError
from jetkeep.repository.names import escape

REPOSITORY = "jetkeep.json"
BACKUPS, PINS, EVIDENCE, LEASES, SOURCES = "backups/", "pins/", "evidence/", "leases/", "sources/"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def backup_key(label: str) -> str:
    """The commit of a backup."""
    return f"{BACKUPS}{label}.json"


def pin_key(label: str) -> str:
    """The pin of a backup."""
    return f"{PINS}{label}.json"


def timeline_prefix(source: str, stream: str, timeline: str) -> str:
    """The folder of one life of a stream."""
    return f"{SOURCES}{source}/{escape(stream)}/{timeline}/"


def segment_key(prefix: str, first: int, last: int, digest: str, copy: int = 1) -> str:
    """A segment's key; `copy` is above 1 where damaged bytes hold the name."""
    return f"{prefix}segments/{first:020d}-{last:020d}-{digest[:16]}{_copy(copy)}.parquet"


def manifest_key(prefix: str, label: str, digest: str, copy: int = 1) -> str:
    """A manifest's key."""
    return f"{prefix}manifests/{label}-{digest[:16]}{_copy(copy)}.json.zst"


def _copy(copy: int) -> str:
    return f"-{copy}" if copy > 1 else ""


def timeline_of(created_at: str, life: int) -> str:
    """The timeline's name: the stream's creation time in UTC to the nanosecond; `life` counts from 1.

    Raises:
        BadDataError: the creation time is no RFC 3339 time.
    """
    found = _TIME.fullmatch(created_at)
    if not found:
        raise BadDataError(f"'{created_at}' is no creation time of a stream", code="data.created")
    moment = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00")).astimezone(UTC)
    name = f"{moment:%Y%m%dT%H%M%S}-{(found[2] or '').ljust(9, '0')}"
    return name if life == 1 else f"{name}-r{life}"
