"""`jetkeep check`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import connection_options, output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.readiness import Readiness


@click.command("check")
@repository_options
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "json", "nagios", "prometheus"]),
    default="text",
    show_default=True,
    help="nagios uses its own exit statuses 0, 1, 2, 3.",
)
@click.option("--restore", "restoring", is_flag=True, help="Try the permissions of a restore as well.")
@click.option("--no-server", is_flag=True, help="Look at the repository only.")
@click.option("--warn-age", type=float, default=25.0, show_default=True, metavar="HOURS", help="Of the newest backup.")
@click.option("--critical-age", type=float, default=48.0, show_default=True, metavar="HOURS", help="The same.")
@connection_options
@output_options
def command(
    repo: str | None,
    shape: str,
    restoring: bool,
    no_server: bool,
    warn_age: float,
    critical_age: float,
    connection: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> int:
    """Can every part reach every other, with the permissions that it needs? Changes nothing.

    Connects, tries each permission of a backup (one that is missing looks like a time-out elsewhere; here it is
    named), asks every stream, and looks at the repository: readable, room left, age of the newest backup.

    \b
    Examples:
      jetkeep check --repo /backups
      jetkeep check --restore --context staging
      jetkeep check --format nagios --warn-age 26 --repo /backups
      jetkeep check --format prometheus --no-server --repo /backups
    """
    from jetkeep.cli.running import run

    readiness = run(_check(repo, connection, restoring, no_server, warn_age, critical_age))
    shape = "json" if as_json else shape
    {"text": _text, "json": _json, "nagios": _nagios, "prometheus": _prometheus}[shape](readiness)
    del quiet
    return int(readiness.level) if shape == "nagios" else readiness.status


async def _check(
    repo: str | None,
    connection: dict[str, Any],
    restoring: bool,
    no_server: bool,
    warn_age: float,
    critical_age: float,
) -> Readiness:
    from jetkeep.cli.settings import open_repository, server_settings
    from jetkeep.errors import JetkeepError, NoRepositoryError
    from jetkeep.jetstream import connect
    from jetkeep.readiness import Level, Readiness, Thresholds, probe_repository, probe_server

    readiness = Readiness()
    if not no_server:
        settings = server_settings(connection)
        try:
            async with connect(settings) as js:
                await probe_server(js, readiness, restoring=restoring)
        except JetkeepError as error:
            readiness.fail("connect", error)
    if repo:
        try:
            repository = await open_repository(repo)
            thresholds = Thresholds(warn_age * 3600, critical_age * 3600)
            await probe_repository(repository, readiness, thresholds, now_ns=time.time_ns)
        except NoRepositoryError as absent:
            hint = "the first `jetkeep backup` creates it"
            readiness.add("repository", Level.WARNING, absent.what, hint)
        except JetkeepError as error:
            readiness.fail("repository", error)
    return readiness


def _text(readiness: Readiness) -> None:
    from jetkeep.cli.render import say

    marks = {0: "ok      ", 1: "WARNING ", 2: "FAILED  ", 3: "UNKNOWN "}
    for one in readiness.probes:
        say(f"{marks[one.level]}{one.name}: {one.what}")
        if one.hint and one.level:
            say(f"        do: {one.hint}")
    say("ready" if not readiness.level else f"not ready: {readiness.level.name.lower()}")


def _json(readiness: Readiness) -> None:
    from jetkeep.cli.render import document

    document(
        "jetkeep.check/1",
        {
            "level": readiness.level.name,
            "status": readiness.status,
            "streams": readiness.streams,
            "backups": readiness.backups,
            "newest_age_seconds": readiness.newest_age_s,
            "free_bytes": readiness.free_bytes,
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
    if readiness.newest_age_s is not None:
        figures.append(f"backup_age={readiness.newest_age_s:.0f}s")
    if readiness.free_bytes is not None:
        figures.append(f"free={readiness.free_bytes}B")
    if readiness.streams is not None:
        figures.append(f"streams={readiness.streams}")
    say(f"JETKEEP {readiness.level.name}: {words.replace('|', '/')}" + (f" | {' '.join(figures)}" if figures else ""))


def _prometheus(readiness: Readiness) -> None:
    from jetkeep.cli.render import say

    figures = (
        (
            "jetkeep_check_level",
            "Worst level of all probes: 0 ok, 1 warning, 2 critical, 3 unknown.",
            int(readiness.level),
        ),
        ("jetkeep_check_streams", "Streams that the account lists.", readiness.streams),
        ("jetkeep_backup_age_seconds", "Age of the newest complete backup.", readiness.newest_age_s),
        ("jetkeep_backups", "Backups in the repository.", readiness.backups),
        ("jetkeep_repository_free_bytes", "Room that is left in the repository.", readiness.free_bytes),
    )
    for name, words, value in figures:
        if value is not None:
            say(f"# HELP {name} {words}\n# TYPE {name} gauge\n{name} {value}")
    say("# HELP jetkeep_check_probe_level Level of each probe.\n# TYPE jetkeep_check_probe_level gauge")
    levels: dict[str, int] = {}
    for one in readiness.probes:
        levels[one.name] = max(int(one.level), levels.get(one.name, 0))
    for name, level in levels.items():
        label = name.replace("\\", r"\\").replace('"', r"\"")
        say(f'jetkeep_check_probe_level{{probe="{label}"}} {level}')
