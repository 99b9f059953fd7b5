"""Which of an account's streams are backed up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from jetkeep.errors import UsageError


def select(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The streams among `names` that match a glob of `include` (all when there is none) and none of `exclude`, sorted.

    Raises:
        UsageError: a name or glob of `include` matches no stream: a typing error would otherwise be a backup
            that lacks a stream for months.
    """
    for pattern in include:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"no stream matches '{pattern}'",
                code="usage.no-such-stream",
                means="nothing was backed up",
                hint="`nats stream ls` or `jetkeep check` lists the account's streams; is this the right context?",
            )
    chosen = [name for name in names if not include or any(fnmatchcase(name, one) for one in include)]
    return sorted(name for name in chosen if not any(fnmatchcase(name, one) for one in exclude))
