"""Whether two subject filters can match the same subject."""

from __future__ import annotations

from itertools import zip_longest


def overlap(left: str, right: str) -> bool:
    """Some subject is matched by both."""
    for one, other in zip_longest(left.split("."), right.split(".")):
        if one is None or other is None:
            return False
        if ">" in (one, other):
            return True
        if one != other and "*" not in (one, other):
            return False
    return True
