"""The official CLI's contexts: JSON files of connection settings, one of them selected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jetkeep.errors import UsageError


class Context(NamedTuple):
    """A context's name and its settings as they stand in the file, keys in lower case."""

    name: str
    settings: dict[str, Any]


NONE = Context("", {})


def load_context(chosen: str, environ: Mapping[str, str]) -> Context:
    """The context `chosen`, by name or as the path of a JSON file; when empty, the selected one, if any.

    Raises:
        UsageError: there is no such context, or its file is no context.
    """
    folder = _folder(environ)
    if chosen.endswith(".json") and Path(chosen).is_file():
        return _read(Path(chosen).stem, Path(chosen))
    name = chosen or _selected(folder)
    if not name:
        return NONE
    path = folder / "context" / f"{name}.json"
    if "/" in name or ".." in name or not path.is_file():
        raise UsageError(
            f"there is no context '{name}'" + ("" if chosen else ", although it is the selected one"),
            code="usage.context",
            hint=_known(folder) + "; --no-context connects without one",
        )
    return _read(name, path)


def _folder(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME")
    base = environ.get("XDG_CONFIG_HOME") or (Path(home) if home else Path.home()) / ".config"
    return Path(base) / "nats"


def _selected(folder: Path) -> str:
    try:
        return (folder / "context.txt").read_text().strip()
    except OSError:
        return ""


def _known(folder: Path) -> str:
    names = sorted(path.stem for path in (folder / "context").glob("*.json"))
    return f"known contexts: {', '.join(names)}" if names else f"no contexts are in {folder / 'context'}"


def _read(name: str, path: Path) -> Context:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise TypeError("not an object")  # noqa: TRY301
    except (OSError, ValueError, TypeError) as failure:
        # A decoder's words can quote the file, and the file holds secrets.
        why = failure.strerror if isinstance(failure, OSError) else "it is no JSON object"
        raise UsageError(f"context '{name}': cannot read {path}: {why}", code="usage.context") from None
    # The official CLI's JSON reader ignores case.
    return Context(name, {str(key).lower(): value for key, value in found.items()})
