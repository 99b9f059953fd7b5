"""From what a person types after `--repo` to a store."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from jetkeep.errors import UsageError
from jetkeep.repository.local import LocalStore

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


def store_at(address: str) -> LocalStore:
    """The store at a path or a `file://` URL; nothing is looked at yet.

    Raises:
        UsageError: the URL's scheme is not known, or there is no path in it.
    """
    found = _URL.fullmatch(address)
    if found is None:
        return LocalStore(Path(address).expanduser())
    scheme, path = found.groups()
    if scheme != "file":
        raise UsageError(
            f"a repository at {scheme}:// is not supported yet",
            code="usage.repo-scheme",
            hint="give a path or a file:// URL",
        )
    if not path.startswith("/"):
        raise UsageError(
            f"'{address}' names no absolute path",
            code="usage.repo-scheme",
            hint="write file:///path with three slashes, or the path alone",
        )
    return LocalStore(Path(unquote(path)))
