"""Names of streams as parts of keys that are safe on every store (docs/format.md, *Escaping*)."""

from __future__ import annotations

import hashlib
import re

from jetkeep.errors import UsageError

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST, _CUT = 200, 160
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def escape(stream: str) -> str:
    """A stream's name as one part of a key."""
    units = [chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in stream.encode()]
    escaped = "".join(units)
    if len(escaped) <= _LONGEST:
        return escaped
    kept, size = [], 0
    for unit in units:
        if size + len(unit) > _CUT:
            break
        kept.append(unit)
        size += len(unit)
    return "".join(kept) + "==" + hashlib.sha256(stream.encode()).hexdigest()[:32]


def check_label(label: str) -> str:
    """The label, if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not _LABEL.fullmatch(label):
        raise UsageError(
            f"'{label}' cannot be a backup's label",
            code="usage.label",
            hint="letters, digits, '.', '_' and '-', at most 64, beginning with a letter or a digit",
        )
    return label


def check_source(source: str) -> str:
    """The source's name, if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not _SOURCE.fullmatch(source):
        raise UsageError(
            f"'{source}' cannot be a source's name",
            code="usage.source",
            hint="give one with --source: letters, digits, '_' and '-', at most 64",
        )
    return source
