"""`jetkeep drill`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.drill import DrillOptions, DrillReport


@click.command("drill")
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@repository_options
@click.option("--backup", "label", metavar="LABEL", help="The backup.  [default: the newest complete one]")
@click.option("--random", "at_random", is_flag=True, help="A backup chosen at random; the evidence holds the seed.")
@click.option("--seed", type=int, help="Choose backup and sample by this number again.")
@click.option("--source", metavar="NAME", help="Choose among the backups of this source.")
@click.option("--server-version", metavar="VERSION", help="Such as 2.12 or 2.15.1.  [default: the installed one]")
@click.option(
    "--sample", type=click.IntRange(0), default=30, show_default=True, help="Messages a stream, byte by byte."
)
@click.option("--run", "run_command", metavar="CMD", help="Your own check: a shell command, NATS_URL is the sandbox.")
@click.option("--run-timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="SECONDS")
@output_options
def command(
    streams: tuple[str, ...],
    repo: str | None,
    label: str | None,
    at_random: bool,
    seed: int | None,
    source: str | None,
    server_version: str | None,
    sample: int,
    run_command: str | None,
    run_timeout: float,
    as_json: bool,
    quiet: bool,
) -> int:
    """Restore a backup into a throw-away server on this machine, compare everything, keep the evidence.

    All messages are compared by fingerprint, a sample byte by byte through ordinary consumers, all consumers by their
    positions. Nothing at your servers is touched. Exit status 31 when the drill failed.

    \b
    Examples:
      jetkeep drill --repo /backups
      jetkeep drill --random --server-version 2.12 --repo /backups
      jetkeep drill --run 'nats stream info ORDERS' --repo /backups --json
    """
    import secrets

    from jetkeep.cli.running import run
    from jetkeep.drill import DrillOptions

    number = seed if seed is not None else secrets.randbelow(2**31)
    options = DrillOptions(
        version=server_version,
        sample=sample,
        command=run_command,
        command_timeout_s=run_timeout,
        seed=number,
        chosen="random" if at_random else "label" if label else "latest",
    )
    report = run(_drill(repo, streams, label, source, at_random, options, quiet))
    _json(report) if as_json else _print(report)
    return 0 if report.verdict == "SUCCESSFUL" else 31


async def _drill(
    repo: str | None,
    streams: tuple[str, ...],
    label: str | None,
    source: str | None,
    at_random: bool,
    options: DrillOptions,
    quiet: bool,
) -> DrillReport:
    import random

    from jetkeep.catalog import choose_streams, find_backup, reading
    from jetkeep.cli.progress import progress
    from jetkeep.cli.settings import open_repository
    from jetkeep.drill import drill

    repository = await open_repository(repo)
    backup = await find_backup(repository, label, streams, source)
    if at_random and label is None:
        whole, _ = await repository.backups()
        pool = [one.label for one in whole if one.status == "complete" and (source is None or one.source == source)]
        pick = random.Random(options.seed).choice(sorted(pool) or [backup.label])  # noqa: S311 - can be drawn again
        backup = await repository.read_backup(pick)
    async with reading(repository, backup, now_ns=time.time_ns):
        chosen = await choose_streams(repository, backup, streams)
        with progress(quiet) as emit:
            return await drill(repository, chosen, options, emit=emit)


def _print(report: DrillReport) -> None:
    from jetkeep.cli.render import age, say, seconds, table

    rows = []
    for one in report.streams:
        expected, found = one["expected"], one["found"] or {}
        messages = f"{found.get('messages', 0):,} of {expected['messages']:,}"
        consumers = f"{found.get('consumers', 0)} of {expected['consumers']}"
        sampled = str(one.get("sample", {}).get("compared", 0))
        rows.append([one["stream"], one["verdict"], messages, consumers, sampled])
    if rows:
        table(
            ("stream", "verdict", "messages", "consumers", "byte by byte"),
            rows,
            ("messages", "consumers", "byte by byte"),
        )
        say()
    for failure in report.failures:
        say(f"FAILED: {failure}")
    if report.check is not None:
        status = "did not end" if report.check.status is None else f"exit status {report.check.status}"
        say(f"your check: {status} after {seconds(report.check.seconds)}")
        for line in report.check.output.splitlines()[-10:]:
            say(f"  {line}")
    phases = ", ".join(f"{name} {seconds(value)}" for name, value in report.phases.items())
    backup = report.document["backup"]
    say(f"{report.verdict}: backup {backup['label']} restored into a server {report.server_version} and compared")
    say(
        f"RPO {age(report.rpo_seconds)} (age of what would have been restored), RTO {seconds(report.rto_seconds)}: {phases}"
    )
    say(f"evidence: {report.key}")


def _json(report: DrillReport) -> None:
    from jetkeep.cli.render import document

    document("jetkeep.drill/1", {"evidence": report.key, **{k: v for k, v in report.document.items() if k != "schema"}})
