"""From flags and the configuration to settings: where repositories are, how NATS is reached."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import CONFIG, IDENTITY
from jetkeep.errors import UsageError

if TYPE_CHECKING:
    from jetkeep.config import ConnectionSettings
    from jetkeep.config.file import ConfigFile, RepositoryTable
    from jetkeep.repository.address import StoreOptions
    from jetkeep.repository.fanout import FanOut
    from jetkeep.repository.keys import Credentials
    from jetkeep.repository.repository import Repository
    from jetkeep.repository.store import Store
    from jetkeep.repository.vault import SealFor
    from jetkeep.retention import Policy


def configuration() -> ConfigFile:
    """The TOML file of this command; empty when there is none."""
    from jetkeep.config.file import load_config

    context = click.get_current_context(silent=True)
    return load_config(context.meta.get(CONFIG) if context else None)


def store_of(repo: str | None) -> Store:
    """The store at `--repo`, which may be a name of the configuration; without it the first repository there.

    Raises:
        UsageError: none was given, or its URL cannot be used.
    """
    from jetkeep.repository.address import store_at

    tables = configuration().repositories
    chosen = repo or next(iter(tables), None)
    if not chosen:
        raise UsageError(
            "no repository was named",
            code="usage.no-repo",
            hint="give --repo PATH or URL, set JETKEEP_REPO, or name repositories in a configuration (--config)",
        )
    table = tables.get(chosen)
    return store_of_table(table) if table else store_at(chosen)


def store_of_table(table: RepositoryTable) -> Store:
    """The store of a repository of the configuration.

    Raises:
        UsageError: its URL or a setting cannot be used.
    """
    from jetkeep.repository.address import store_at

    return store_at(table.url, _options(table))


def _table(repo: str | None) -> RepositoryTable:
    """What the configuration says of a repository; nothing of one that it does not name."""
    from jetkeep.config.file import RepositoryTable

    tables = configuration().repositories
    return tables.get(repo or next(iter(tables), ""), RepositoryTable(url=repo or ""))


def seal_for(recipients: Sequence[str], passphrase: str | None) -> SealFor | None:
    """Whom a new repository is sealed for; None: it is not sealed."""
    if not recipients and passphrase is None:
        return None
    from jetkeep.repository.vault import SealFor

    return SealFor(tuple(recipients), passphrase)


def recipients_of(repo: str | None) -> list[str]:
    """Whom the configuration has this repository sealed for."""
    return list(_table(repo).encrypt_to)


def ask_passphrase(*, new: bool) -> str:
    """The passphrase: JETKEEP_PASSPHRASE, else asked for on the terminal, a new one twice.

    Raises:
        UsageError: there is no terminal to ask on.
    """
    import sys

    from jetkeep.config.identity import read_passphrase

    if (found := read_passphrase()) is not None:
        return found
    if not sys.stdin.isatty():
        raise UsageError("no passphrase was given", code="usage.passphrase", hint="set JETKEEP_PASSPHRASE")
    answer: str = click.prompt("passphrase", hide_input=True, confirmation_prompt=new, err=True)
    return answer


def _credentials() -> Credentials | None:
    from jetkeep.config.identity import read_identities, read_passphrase

    context = click.get_current_context(silent=True)
    given = context.meta.get(IDENTITY) if context else None
    if given is None:
        return None
    identities = read_identities(given.get("identity"), given.get("identity_command"))
    passphrase = ask_passphrase(new=False) if given.get("ask_passphrase") else read_passphrase()
    if not identities and passphrase is None:
        return None
    from jetkeep.repository.keys import Credentials

    return Credentials(identities, passphrase)


def _options(table: RepositoryTable) -> StoreOptions:
    import os

    from jetkeep.config.connection import seconds
    from jetkeep.config.secrets import literal
    from jetkeep.repository.address import StoreOptions

    return StoreOptions(
        endpoint=table.endpoint,
        region=table.region,
        path_style=table.path_style,
        ca_file=table.ca_file,
        allow_http=table.allow_http,
        lock_mode=table.lock.mode if table.lock else None,
        lock_days=table.lock.days if table.lock else None,
        timeout_s=seconds(table.timeout) if table.timeout else StoreOptions().timeout_s,
        extra={key: literal(value, key, os.environ) for key, value in table.store_options.items()},
    )


async def open_repository(repo: str | None, *, read: bool = True) -> Repository:
    """The repository at `--repo`, which must be there; unless only listed, opened for reading where an identity was given."""
    from jetkeep.repository.repository import Repository

    credentials = _credentials() if read else None
    return await Repository.open(store_of(repo), credentials=credentials, pinned=_table(repo).sealed_to)


async def open_to_read(repo: str | None, *, quiet: bool = False) -> Repository:
    """The repository at `--repo`; without it the first of the configuration, with the others behind it for what it cannot give."""
    from jetkeep.cli.progress import notices
    from jetkeep.repository.failover import Failover, Source

    names = list(configuration().repositories)
    if repo or len(names) < 2:
        return await open_repository(repo)
    sources = [Source(name, partial(open_repository, name)) for name in names]
    return await Failover.begin(sources, tell=notices(quiet), now_ns=time.time_ns)


async def open_or_create_repository(repo: str | None) -> Repository:
    """The repository at `--repo`, created where nothing is, sealed where the configuration says for whom."""
    from jetkeep.repository.repository import Repository

    table = _table(repo)
    return await Repository.open_or_create(
        store_of(repo), now_ns=time.time_ns, seal_for=seal_for(table.encrypt_to, None), pinned=table.sealed_to
    )


def policy_of(name: str | None) -> Policy:
    """What a configured repository keeps; no rule when it does not say."""
    from jetkeep.config.file import Keep
    from jetkeep.retention import Policy

    table = configuration().repositories.get(name or "")
    keep = (table.keep if table else None) or Keep()
    return Policy(
        last=keep.last or 0,
        hourly=keep.hourly or 0,
        daily=keep.daily or 0,
        weekly=keep.weekly or 0,
        monthly=keep.monthly or 0,
        yearly=keep.yearly or 0,
        within=keep.within or "",
        tags=tuple(keep.tag),
    )


def repositories_meant(repo: str | None) -> list[str | None]:
    """The repository at `--repo`, else all of the configuration, else the one in the environment."""
    names: list[str | None] = [] if repo else [*configuration().repositories]
    return names or [repo]


def repositories_to_expire(repo: str | None) -> list[str | None]:
    """The repository at `--repo`, else all configured ones that say what they keep, else the first."""
    tables = configuration().repositories
    named: list[str | None] = [name for name, table in tables.items() if table.keep]
    return named if named and not repo else [repo]


def other_repositories(first: str | None) -> list[str]:
    """The names of all configured repositories but this one (without it, the first).

    Raises:
        UsageError: there is none.
    """
    if others := others_if_any(first):
        return others
    raise UsageError(
        "no other repository was named",
        code="usage.no-repo",
        hint="give --to or --from, or name a second repository in the configuration (--config)",
    )


def others_if_any(first: str | None) -> list[str]:
    """The names of all configured repositories but this one (without it, the first)."""
    names = list(configuration().repositories)
    return [one for one in names if one != (first or names[0])]


async def open_all(repo: str | None) -> FanOut:
    """Where a backup goes: the repository at `--repo`, else all that the configuration names, each created where nothing is.

    Raises:
        UsageError: none was given, or a URL or setting cannot be used.
        JetkeepError: none of them can be opened: the first one's error.
    """
    from jetkeep.repository.fanout import FanOut, Member

    config = configuration()
    if repo or len(config.repositories) < 2:
        return FanOut.alone(await open_or_create_repository(repo))
    members = [Member(name, table.url, None, config.required(name)) for name, table in config.repositories.items()]
    return await FanOut.of(members, lambda member: open_or_create_repository(member.name))


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
