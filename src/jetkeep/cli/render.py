"""Results as people read them: sizes, durations, tables; and as scripts do: one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def size(count: int) -> str:
    """Bytes in binary units, three significant digits."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    if unit == "B":
        return f"{count} B"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def seconds(value: float) -> str:
    """A duration as people say it."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def age(value: float) -> str:
    """How long ago, in the largest unit that says enough."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{value / length:.0f} {unit}"
    return f"{max(value, 0):.0f} s"


def document(schema: str, body: Mapping[str, Any]) -> None:
    """Print the one JSON document of a `--json` run; `schema` is like `jetkeep.backup/1` (docs/reference/json.md)."""
    sys.stdout.write(json.dumps({"schema": schema, **body}, ensure_ascii=False) + "\n")


def say(text: str = "") -> None:
    """Print a line of the result."""
    sys.stdout.write(text + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> None:
    """Print a table; the columns named in `right` are numbers. Never cut, never wrapped: logs and `grep` read it too."""
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    numbers = set(right)
    for at, row in enumerate(cells):
        parts = [
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for cell, width, name in zip(row, widths, columns, strict=True)
        ]
        say("  ".join(parts).rstrip())
        if at == 0:
            say("  ".join("─" * width for width in widths))
