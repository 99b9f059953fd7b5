"""From flags to settings: where the repository is, how NATS is reached."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jetkeep.errors import UsageError

if TYPE_CHECKING:
    from jetkeep.config import ConnectionSettings
    from jetkeep.repository.repository import Repository
    from jetkeep.repository.store import Store


def store_of(repo: str | None) -> Store:
    """The store at `--repo`.

    Raises:
        UsageError: none was given, or its URL cannot be used.
    """
    from jetkeep.repository.address import store_at

    if not repo:
        raise UsageError(
            "no repository was named",
            code="usage.no-repo",
            hint="give --repo PATH, or set JETKEEP_REPO",
        )
    return store_at(repo)


async def open_repository(repo: str | None) -> Repository:
    """The repository at `--repo`, which must be there."""
    from jetkeep.repository.repository import Repository

    return await Repository.open(store_of(repo))


async def open_or_create_repository(repo: str | None) -> Repository:
    """The repository at `--repo`, created where nothing is."""
    from jetkeep.repository.repository import Repository

    return await Repository.open_or_create(store_of(repo), now_ns=time.time_ns)


def server_settings(flags: dict[str, Any]) -> ConnectionSettings:
    """How NATS is reached: flags, then NATS_* variables, then the context."""
    from jetkeep.config import connection_settings

    return connection_settings(flags)


def operator() -> str:
    """Who runs this command, for evidence."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return f"user {os.getuid()}"
