"""Where things are by default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where downloads are kept: `JETKEEP_CACHE`, else `jetkeep` in the user's cache directory (XDG)."""
    if chosen := environ.get("JETKEEP_CACHE"):
        return Path(chosen).absolute()
    # XDG base directories: a relative path in the variable must be ignored.
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "jetkeep"
