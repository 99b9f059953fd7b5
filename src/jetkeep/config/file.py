"""The TOML file for what a command line should not carry: repositories in order, sources (docs/reference/config.md).

Secrets do not stand in it: they come from the environment, from files that it names, or from natscli's contexts.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from jetkeep.errors import UsageError

_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")
_AT = re.compile(r"^(.*?) - at `\$\.?([^`]*)`$")
#: What is secret of obstore's settings.
_SECRET = re.compile(r"secret|password|token|_key")
_NO_SECRET = re.compile(r"_(file|id|path|uri|url|enabled)$")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NO_TOML = "text needs quotes; tables are written [like.this]"
T = TypeVar("T", bound="Table")
Some = Annotated[int, Meta(ge=1)]


class Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename="kebab"):
    """A table of the file; keys are written with hyphens."""


class Keep(Table):
    """What `expire` keeps in a repository: restic's words."""

    last: Some | None = None
    hourly: Some | None = None
    daily: Some | None = None
    weekly: Some | None = None
    monthly: Some | None = None
    yearly: Some | None = None
    within: str | None = None
    tag: list[str] = []


class Lock(Table):
    """Retention that the store enforces for each object."""

    mode: Literal["governance", "compliance"]
    days: Some


class RepositoryTable(Table):
    """`[repositories.NAME]`."""

    url: str
    required: bool | None = None
    keep: Keep | None = None
    encrypt_to: list[str] = []
    sealed_to: str | None = None
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    ca_file: str | None = None
    allow_http: bool = False
    lock: Lock | None = None
    timeout: str | None = None
    store_options: dict[str, str] = {}


class SourceTable(Table):
    """`[sources.NAME]`: how one account is reached, by the flags' names; secrets as natscli's contexts refer to them."""

    context: str | None = None
    server: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    creds: str | None = None
    nkey: str | None = None
    tlscert: str | None = None
    tlskey: str | None = None
    tlsca: str | None = None
    tlsfirst: bool | None = None
    timeout: str | None = None
    js_domain: str | None = None
    js_api_prefix: str | None = None
    inbox_prefix: str | None = None
    streams: list[str] = []
    exclude: list[str] = []
    include_files: list[str] = []

    def flags(self) -> dict[str, Any]:
        """What `connection_settings` takes; without a context none is chosen for this source."""
        own = {"streams", "exclude", "include_files"}
        given = {name: value for name in self.__struct_fields__ if name not in own and (value := getattr(self, name))}
        return given if self.context else {**given, "no_context": True}


class MetricsTable(Table):
    """`[metrics]`: where each run leaves the figures at its end."""

    textfile: str | None = None
    push_gateway: str | None = None


class ScheduleTable(Table):
    """`[schedules.KIND]` or `[schedules.KIND-NAME]`: when `jetkeep agent` runs a command, and with which arguments."""

    cron: str
    time_zone: str = "UTC"
    jitter: str | None = None
    deadline: str | None = None
    arguments: list[str] = []


class AgentTable(Table):
    """`[agent]`: where it serves, and how old a missed run may be that is made good."""

    listen: str = "127.0.0.1:9750"
    catch_up: str = "24h"


class HeartbeatTable(Table):
    """`[heartbeat]`: who misses us when no run succeeds any more."""

    url: str
    kinds: list[str] = msgspec.field(default_factory=lambda: ["backup"])


class NotificationTable(Table):
    """`[notifications.NAME]`: who is told of runs."""

    url: str
    on: list[Literal["failure", "recovery", "success"]] = msgspec.field(default_factory=lambda: ["failure", "recovery"])


class ConfigFile(Table):
    """The whole file. The first repository is the one that commands use by default, and is required unless it says otherwise."""

    repositories: dict[str, RepositoryTable] = {}
    sources: dict[str, SourceTable] = {}
    metrics: MetricsTable | None = None
    agent: AgentTable = msgspec.field(default_factory=AgentTable)
    schedules: dict[str, ScheduleTable] = {}
    heartbeat: HeartbeatTable | None = None
    notifications: dict[str, NotificationTable] = {}

    def required(self, name: str) -> bool:
        """Whether a backup that does not reach this repository has failed."""
        said = self.repositories[name].required
        return next(iter(self.repositories)) == name if said is None else said


def load_config(path: str | None = None, environ: Mapping[str, str] = os.environ) -> ConfigFile:
    """The file at `path`, else at `JETKEEP_CONFIG`; empty when neither is given.

    Raises:
        UsageError: it cannot be read, is no TOML, or holds a key or value that is not known; the message names the key.
    """
    chosen = path or environ.get("JETKEEP_CONFIG", "")
    if not chosen:
        return ConfigFile()
    try:
        text = Path(chosen).expanduser().read_text(encoding="utf-8")
    except OSError as failure:
        raise _bad(chosen, f"cannot be read: {failure.strerror}", "check --config or JETKEEP_CONFIG") from None
    except UnicodeDecodeError as failure:
        raise _bad(chosen, f"is no TOML: {failure}", _NO_TOML) from None
    return parse_config(text, chosen)


def parse_config(text: str, chosen: str) -> ConfigFile:
    """The configuration in `text`; messages call it `chosen`.

    Raises:
        UsageError: as `load_config`.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise _bad(chosen, f"is no TOML: {failure}", _NO_TOML) from None
    for key in found:
        if key not in _TABLES:
            raise _unknown(chosen, key, "", tuple(_TABLES))
    config = ConfigFile(
        repositories=_tables(chosen, found, "repositories", RepositoryTable),
        sources=_tables(chosen, found, "sources", SourceTable),
        metrics=_single(chosen, found, "metrics", MetricsTable),
        agent=_single(chosen, found, "agent", AgentTable) or AgentTable(),
        schedules=_tables(chosen, found, "schedules", ScheduleTable),
        heartbeat=_single(chosen, found, "heartbeat", HeartbeatTable),
        notifications=_tables(chosen, found, "notifications", NotificationTable),
    )
    _refuse_twins(chosen, config)
    _refuse_secrets(chosen, config)
    return config


def _refuse_twins(path: str, config: ConfigFile) -> None:
    seen: dict[str, str] = {}
    for name, table in config.repositories.items():
        twin = seen.setdefault(table.url.rstrip("/"), name)
        if twin != name:
            raise _bad(
                path,
                f"has one place for two repositories: {twin} and {name} are both at {table.url}",
                "a second copy needs a place of its own",
            )


def _refuse_secrets(path: str, config: ConfigFile) -> None:
    """No message holds the value."""
    stated = [
        (f"repositories.{name}.store-options.{key}", value)
        for name, table in config.repositories.items()
        for key, value in table.store_options.items()
        if _SECRET.search(key) and not _NO_SECRET.search(key)
    ]
    stated += [
        (f"sources.{name}.{key}", value)
        for name, source in config.sources.items()
        for key, value in (("password", source.password), ("token", source.token))
        if value
    ]
    stated += [(f"notifications.{name}.url", one.url) for name, one in config.notifications.items()]
    stated += [("heartbeat.url", config.heartbeat.url)] if config.heartbeat else []
    stated += [
        (f"sources.{name}.server", "")
        for name, source in config.sources.items()
        if any("@" in url.partition("://")[2] for url in (source.server or "").split(","))
    ]
    for key, value in stated:
        if not value.startswith(("env://", "file://")):
            raise _bad(
                path,
                f"holds a secret at {key}",
                "write env://NAME or file://PATH in its place, and a user and password beside the URL, not in it",
            )


def _tables(path: str, found: dict[str, Any], group: str, kind: type[T]) -> dict[str, T]:
    tables = found.get(group, {})
    if not isinstance(tables, dict):
        raise _bad(path, f"{group} is no table", f"write [{group}.NAME]")
    return {name: _table(path, f"{group}.{name}", name, value, kind) for name, value in tables.items()}


def _single(path: str, found: dict[str, Any], place: str, kind: type[T]) -> T | None:
    return _table(path, place, place, found[place], kind) if place in found else None


def _table(path: str, place: str, name: str, value: Any, kind: type[T]) -> T:
    if not _NAME.fullmatch(name):
        raise _bad(
            path, f"has a table [{place}]: that is no name", "names have letters, digits, '-' and '_', at most 64"
        )
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as failure:
        words = str(failure)
    if unknown := _UNKNOWN.search(words):
        inner = unknown[2] or ""
        raise _unknown(path, unknown[1], f"{place}.{inner}" if inner else place, _keys(_INNER.get(inner, kind)))
    at = _AT.match(words)
    where, what = (f"{place}.{at[2]}", at[1]) if at else (place, words)
    raise _bad(path, f"is wrong at {where}: {what}", "docs/reference/config.md lists every key")


_TABLES = ("repositories", "sources", "metrics", "agent", "schedules", "heartbeat", "notifications")
_INNER: dict[str, type[Table]] = {"keep": Keep, "lock": Lock}


def _keys(kind: type[Table]) -> tuple[str, ...]:
    return kind.__struct_encode_fields__


def _unknown(path: str, key: str, place: str, known: tuple[str, ...]) -> UsageError:
    near = difflib.get_close_matches(key.replace("_", "-"), known, 1, 0.6)
    where = f"[{place}]" if place else "the file"
    hint = f"did you mean '{near[0]}'?" if near else f"{where} takes {', '.join(known)}"
    return _bad(path, f"has an unknown key '{key}' in {where}", hint)


def _bad(path: str, what: str, hint: str) -> UsageError:
    return UsageError(f"the configuration {path} {what}", code="usage.config", means="nothing was done", hint=hint)
