"""Times as servers write them, and when an imported stream was created. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeGuard

from jetkeep.errors import BadDataError
from jetkeep.repository.layout import timeline_of

#: Go's zero time: what a server says where there is no message to tell the time of.
ZERO_TIME = "0001-01-01T00:00:00Z"
#: Stands in where nothing tells when a stream was created.
EPOCH_TIME = "1970-01-01T00:00:00Z"


def rfc3339(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 with nine digits, in UTC."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def is_time(text: object) -> TypeGuard[str]:
    """It is a time that a timeline can be named after, and not the zero time."""
    if not isinstance(text, str) or text == ZERO_TIME:
        return False
    try:
        timeline_of(text, 1)
    except (BadDataError, ValueError, OverflowError):
        return False
    return True
