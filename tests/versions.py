"""The server versions that everything is tested with: each must be pinned in src/jetkeep/servers.txt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from _pytest.mark import ParameterSet

VERSIONS = ("2.10.26", "2.11.11", "2.12.8", "2.14.6", "2.15.1")
NEWEST = VERSIONS[-1]


def ends_first(versions: Sequence[str] = VERSIONS) -> list[ParameterSet]:
    """These versions as parameters: the oldest and the newest by default, those between with `make slow`."""
    between = versions[1:-1]
    return [pytest.param(one, marks=pytest.mark.slow if one in between else ()) for one in versions]
