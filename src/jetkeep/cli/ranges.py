"""Sequences and moments as they are typed on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_SEQUENCES = re.compile(r"(\d{1,20})(-(\d{1,20})?)?")
_AGO = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_SEQUENCE = 2**64 - 1


def sequence_range(text: str | None) -> tuple[int, int]:
    """`17`, `17-20` or `17-` as first and last sequence; everything when nothing was typed."""
    if text is None:
        return 0, MAX_SEQUENCE
    found = _SEQUENCES.fullmatch(text)
    if not found:
        raise click.BadParameter(f"'{text}' is no range of sequences: write 17, 17-20 or 17-", param_hint="--seq")
    first = int(found[1])
    last = int(found[3]) if found[3] else MAX_SEQUENCE if found[2] else first
    if last < first or last > MAX_SEQUENCE:
        raise click.BadParameter(f"'{text}' holds no sequence", param_hint="--seq")
    return first, last


def moment(text: str | None, now_ns: int) -> int | None:
    """RFC 3339, or a time before now such as `90s`, `2h30m` or `3d`, in nanoseconds since the epoch."""
    if text is None:
        return None
    if found := _RFC3339.fullmatch(text):
        try:
            whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
        except ValueError as wrong:
            raise click.BadParameter(f"'{text}' is no time: {wrong}") from None
        return (whole - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))
    if text and (ago := _AGO.fullmatch(text)):
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
        return now_ns - (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000_000
    raise click.BadParameter(f"'{text}' is no time: write 2026-11-23T13:15:00Z, or so long ago: 90s, 2h30m, 3d")
