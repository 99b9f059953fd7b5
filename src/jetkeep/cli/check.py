"""`jetkeep check`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from jetkeep.cli.options import connection_options, output_options, repository_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetkeep.readiness import Readiness, Thresholds
    from jetkeep.repository.documents import Backup


@click.command("check")
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@repository_options
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out streams that match; may be repeated.")
@click.option("--source", metavar="NAME", help="Age of this source's backups only.  [default: of every source]")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "json", "nagios", "prometheus"]),
    default="text",
    show_default=True,
    help="nagios uses its own exit statuses 0, 1, 2, 3.",
)
@click.option("--restore", "restoring", is_flag=True, help="Try the permissions of a restore as well.")
@click.option(
    "--store",
    "storing",
    is_flag=True,
    help="Try what the store does, and what these credentials may do in it: writes and deletes small objects.",
)
@click.option(
    "--velero",
    is_flag=True,
    help="Does Velero store jetkeep's volumes? Reads the cluster; in a pod that may, this is looked at without asking.",
)
@click.option(
    "--namespace", metavar="NAME", help="With --velero.  [default: the kubeconfig's or the pod's, else jetkeep]"
)
@click.option("--no-server", is_flag=True, help="Look at the repository only.")
@click.option(
    "--warn-age",
    type=click.FloatRange(0),
    default=25.0,
    show_default=True,
    metavar="HOURS",
    help="Of the newest backup.",
)
@click.option(
    "--critical-age", type=click.FloatRange(0), default=48.0, show_default=True, metavar="HOURS", help="The same."
)
@connection_options
@output_options
def command(
    streams: tuple[str, ...],
    repo: str | None,
    exclude: tuple[str, ...],
    source: str | None,
    shape: str,
    restoring: bool,
    storing: bool,
    velero: bool,
    namespace: str | None,
    no_server: bool,
    warn_age: float,
    critical_age: float,
    connection: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> int:
    """Can every part reach every other, with the permissions that it needs? Changes nothing that counts.

    Connects, tries each permission of a backup (one that is missing looks like a time-out elsewhere; here it is
    named), asks every stream, and looks at the repository: readable, writable, room left, age of the newest backup, last
    drill. Exit status 0 when a backup can be made, however old the last one is; --format nagios tells that, too.

    \b
    Examples:
      jetkeep check --repo /backups
      jetkeep check --restore --context staging
      jetkeep check --store --repo s3://bucket/prefix
      jetkeep check --velero --namespace jetkeep --no-server
      jetkeep check --format nagios --warn-age 26 --repo /backups
      jetkeep check --format prometheus --no-server --repo /backups
    """
    from jetkeep.cli.running import run
    from jetkeep.readiness import Thresholds

    what = _What(
        streams,
        exclude,
        source,
        restoring,
        storing,
        no_server,
        velero,
        Thresholds(warn_age * 3600, critical_age * 3600),
    )
    readiness = run(_check(repo, connection, what))
    _velero(readiness, namespace, asked=velero)
    shape = "json" if as_json else shape
    if shape == "text":
        _text(readiness, quiet)
    else:
        {"json": _json, "nagios": _nagios, "prometheus": _prometheus}[shape](readiness)
    return int(readiness.level) if shape == "nagios" else readiness.status


class _What(NamedTuple):
    """What is to be looked at."""

    streams: tuple[str, ...]
    exclude: tuple[str, ...]
    source: str | None
    restoring: bool
    storing: bool
    no_server: bool
    velero: bool
    thresholds: Thresholds


async def _check(repo: str | None, connection: dict[str, Any], what: _What) -> Readiness:
    from jetkeep.cli.settings import configuration, open_repository, server_settings, store_of
    from jetkeep.errors import JetkeepError, NoRepositoryError, UsageError
    from jetkeep.jetstream import connect
    from jetkeep.readiness import Level, Readiness, probe_repository, probe_server, probe_store

    readiness = Readiness()
    if not what.no_server:
        settings = server_settings(connection)
        try:
            async with connect(settings) as js:
                await probe_server(js, readiness, restoring=what.restoring, include=what.streams, exclude=what.exclude)
        except UsageError:
            raise
        except JetkeepError as error:
            readiness.fail("connect", error)
    if what.storing:
        await probe_store(store_of(repo), readiness, writing=not what.no_server, now_ns=time.time_ns)
    if repo or configuration().repositories or (what.no_server and not what.velero):
        try:
            repository = await open_repository(repo)
            await probe_repository(
                repository,
                readiness,
                what.thresholds,
                source=what.source,
                writing=not what.no_server,
                now_ns=time.time_ns,
            )
            if not repo:
                await _others((await repository.backups())[0], readiness)
        except UsageError:
            raise
        except NoRepositoryError as absent:
            hint = "the first `jetkeep backup` creates it"
            readiness.add("repository", Level.WARNING, absent.what, hint)
            if not repo:
                await _others([], readiness)
        except JetkeepError as error:
            readiness.fail("repository", error)
    return readiness


async def _others(backups: Sequence[Backup], readiness: Readiness) -> None:
    """How far the other repositories of the configuration are behind the first, which has these backups, or ahead of it."""
    from jetkeep.cli.lagging import other_states
    from jetkeep.readiness import Level

    for one in await other_states(backups):
        level = Level.OK if one.seconds == 0 else Level.CRITICAL if one.required else Level.WARNING
        hint = (one.error.hint if one.error else "") or "the next `jetkeep backup` brings it, or `jetkeep copy`"
        if one.lag and one.lag.ahead:
            level, hint = (
                max(level, Level.WARNING),
                f"`jetkeep copy --from {one.name} --to {one.first}` brings them back",
            )
        readiness.add(f"repository {one.name}", level, one.words(), "" if level is Level.OK else hint)


def _velero(readiness: Readiness, namespace: str | None, *, asked: bool) -> None:
    """Where it was asked for, or where this pod has a service account that may see something."""
    from jetkeep.errors import UsageError
    from jetkeep.kube.cluster import Cluster, in_a_pod
    from jetkeep.readiness import Level, probe_velero

    if not asked and not in_a_pod():
        return
    try:
        probe_velero(Cluster.connect(None, namespace), readiness, asked=asked)
    except UsageError as error:
        if asked:
            raise
        readiness.add("velero", Level.OK, f"not looked at: {error.what} [{error.code}]")


def _text(readiness: Readiness, quiet: bool) -> None:
    from jetkeep.cli.render import say

    marks = {0: "ok", 1: "WARNING", 2: "FAILED", 3: "UNKNOWN"}
    for one in readiness.probes:
        if one.level or not quiet:
            say(f"{marks[one.level]:<8}{one.name}: {one.what}")
        if one.hint and one.level:
            say(f"        do: {one.hint}")
    others = sum(1 for one in readiness.probes if one.level)
    if readiness.status:
        say("not ready")
    else:
        say("ready" + (f", with {others} to look at" if others else ""))


def _json(readiness: Readiness) -> None:
    from jetkeep.cli.render import document
    from jetkeep.repository.leases import rfc3339

    document(
        "jetkeep.check/1",
        {
            "level": readiness.level.name,
            "status": readiness.status,
            "streams": readiness.streams,
            "backups": readiness.backups,
            "newest": {source: rfc3339(round(at * 1e9)) for source, at in readiness.newest.items()},
            "newest_age_seconds": max((time.time() - at for at in readiness.newest.values()), default=None),
            "free_bytes": readiness.free_bytes,
            "estimate_bytes": readiness.estimate_bytes,
            "probes": [
                {"name": one.name, "level": one.level.name, "what": one.what, "hint": one.hint}
                for one in readiness.probes
            ],
        },
    )


def _nagios(readiness: Readiness) -> None:
    from jetkeep.cli.render import say

    worst = [one for one in readiness.probes if one.level == readiness.level and one.level]
    words = "; ".join(f"{one.name}: {one.what}" for one in worst) or f"{len(readiness.probes)} probes"
    figures = []
    for source, at in readiness.newest.items():
        figures.append(f"'backup_age_{source}'={max(0.0, time.time() - at):.0f}s")
    if readiness.free_bytes is not None:
        figures.append(f"free={readiness.free_bytes}B")
    if readiness.streams is not None:
        figures.append(f"streams={readiness.streams}")
    say(f"JETKEEP {readiness.level.name}: {words.replace('|', '/')}" + (f" | {' '.join(figures)}" if figures else ""))


def _prometheus(readiness: Readiness) -> None:
    from jetkeep.cli.render import say

    def family(name: str, words: str, rows: list[tuple[str, float | int | None]]) -> None:
        told = [(labels, value) for labels, value in rows if value is not None]
        if told:
            say(f"# HELP {name} {words}\n# TYPE {name} gauge")
        for labels, value in told:
            say(f"{name}{labels} {value}")

    levels: dict[str, int] = {}
    for one in readiness.probes:
        levels[one.name] = max(int(one.level), levels.get(one.name, 0))
    family("jetkeep_check_level", "Worst level: 0 ok, 1 warning, 2 critical, 3 unknown.", [("", int(readiness.level))])
    probes: list[tuple[str, float | int | None]] = [(_label("probe", name), level) for name, level in levels.items()]
    family("jetkeep_check_probe_level", "Level of each probe.", probes)
    family("jetkeep_check_streams", "Streams that the account lists.", [("", readiness.streams)])
    newest: list[tuple[str, float | int | None]] = [
        (_label("source", source), round(at, 3)) for source, at in readiness.newest.items()
    ]
    family("jetkeep_newest_backup_timestamp_seconds", "When each source's newest complete backup began.", newest)
    family("jetkeep_backups", "Backups in the repository.", [("", readiness.backups)])
    family("jetkeep_repository_free_bytes", "Room that is left in the repository.", [("", readiness.free_bytes)])
    family("jetkeep_backup_estimate_bytes", "What a full backup needs at most.", [("", readiness.estimate_bytes)])


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{{name}="{escaped}"}}'
