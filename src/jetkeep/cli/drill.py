"""`jetkeep drill`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import identity_options, output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.drill import DrillOptions, DrillReport
    from jetkeep.errors import JetkeepError
    from jetkeep.evidence.signing import Signer
    from jetkeep.repository.repository import Repository
    from jetkeep.repository.sets import RestorePoint


@click.command("drill")
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@repository_options
@identity_options
@click.option("--backup", "label", metavar="LABEL", help="The backup.  [default: the newest complete one]")
@click.option("--random", "at_random", is_flag=True, help="A backup chosen at random; the evidence holds the seed.")
@click.option("--seed", type=int, help="Choose backup and sample by this number again.")
@click.option("--source", metavar="NAME", help="Choose among the backups of this source.")
@click.option(
    "--server-version",
    metavar="VERSION",
    help="Such as 2.12 or 2.15.1.  [default: the backup's release if it is here, else the installed one]",
)
@click.option(
    "--sample", type=click.IntRange(0), default=30, show_default=True, help="Messages a stream, byte by byte."
)
@click.option("--run", "run_command", metavar="CMD", help="Your own check: a shell command, NATS_URL is the sandbox.")
@click.option("--run-timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="SECONDS")
@click.option(
    "--signing-key",
    envvar="JETKEEP_SIGNING_KEY",
    show_envvar=True,
    metavar="FILE",
    help="Sign the evidence with this Ed25519 key (`jetkeep evidence keygen` makes one); the variable may hold the key itself.",
)
@click.option("--rto-target", metavar="DURATION", help="Fail when the recovery takes longer, such as 15m or 4h.")
@click.option("--rpo-target", metavar="DURATION", help="Fail when the backup is older, such as 1h.")
@click.option(
    "--next-due",
    type=click.IntRange(1, 3660),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="When the next drill is due; `check` warns from then on.",
)
@click.option(
    "--triggered-by",
    envvar="JETKEEP_TRIGGERED_BY",
    show_envvar=True,
    metavar="TEXT",
    help="Who or what asked for it, such as a schedule or a ticket.",
)
@click.option(
    "--ask-source",
    is_flag=True,
    help="Ask the source (NATS_* variables, selected context), reading only, how many messages the backup has not.",
)
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
    signing_key: str | None,
    rto_target: str | None,
    rpo_target: str | None,
    next_due: int,
    triggered_by: str | None,
    ask_source: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Restore a backup into a throw-away server on this machine, compare everything, keep the evidence.

    All messages are compared by fingerprint, a sample byte by byte through ordinary consumers, all consumers by their
    positions. Your own check gets the server's URL in NATS_URL, in an empty directory, without your NATS contexts and
    secrets, and decides by its exit status. Nothing at your servers is touched. Exit status 31 when the comparison or
    your check failed or a target was missed, 30 when stored data is bad, 40 when it cannot be restored.

    \b
    Examples:
      jetkeep drill --repo /backups
      jetkeep drill --random --server-version 2.12 --repo /backups
      jetkeep drill --rto-target 15m --rpo-target 26h --signing-key drill.key --repo /backups
      jetkeep drill ORDERS --run 'nats stream info ORDERS' --repo /backups --json
    """
    import secrets

    from jetkeep.cli.failures import report_failure
    from jetkeep.cli.render import document
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import operator
    from jetkeep.config.connection import seconds as duration
    from jetkeep.drill import DrillOptions
    from jetkeep.errors import UsageError

    if label and at_random:
        raise UsageError("--backup names the one backup, and --random chooses among all", hint="give one of the two")
    number = seed if seed is not None else secrets.randbelow(2**31)
    options = DrillOptions(
        version=server_version,
        sample=sample,
        command=run_command,
        command_timeout_s=run_timeout,
        seed=number,
        whole=not streams,
        chosen="random" if at_random else "label" if label else "latest",
        triggered_by=triggered_by or f"{operator()} at the command line",
        operator=operator(),
        rto_target_s=duration(rto_target) if rto_target else None,
        rpo_target_s=duration(rpo_target) if rpo_target else None,
        next_due_days=next_due,
        signer=_signer(signing_key),
    )
    point, reports, unanswered = run(_drill(repo, streams, label, source, options, ask_source, quiet))
    status = next((one.status for one in reports if one.status), unanswered.exit_status if unanswered else 0)
    if as_json and len(point.backups) > 1:
        document("jetkeep.drill-set/1", {"label": point.label, "status": status, "drills": [*map(_fields, reports)]})
    elif as_json:
        document("jetkeep.drill/1", _fields(reports[0]))
    for one in reports:
        if not as_json:
            _print(one)
        if one.unkept is not None:
            report_failure(one.unkept, as_json=False)
    if unanswered:
        report_failure(unanswered, as_json=False)
    return status


def _signer(key: str | None) -> Signer | None:
    if not key:
        return None
    from jetkeep.evidence.signing import read_signer

    return read_signer(key)


async def _drill(
    repo: str | None,
    streams: tuple[str, ...],
    label: str | None,
    source: str | None,
    options: DrillOptions,
    ask_source: bool,
    quiet: bool,
) -> tuple[RestorePoint, list[DrillReport], JetkeepError | None]:
    """Rehearse a backup, or of a set each part that has the streams: in a sandbox and with evidence of its own."""
    from jetkeep.cli.recording import recorded
    from jetkeep.cli.settings import open_repository

    async with recorded("drill", [repo], source=source or "", quiet=quiet) as recording:
        repository = await open_repository(repo)
        recording.works_on(repository)
        done = await _drill_all(repository, streams, label, source, options, ask_source, quiet)
        point, reports, unanswered = done
        recording.facts.label, recording.facts.streams = point.label, sum(len(one.streams) for one in reports)
        recording.facts.failed = sum(not stream.good for one in reports for stream in one.streams)
        recording.facts.rto_seconds = max((one.rto_seconds for one in reports), default=None)
        recording.facts.rpo_seconds = max((one.rpo_seconds for one in reports), default=None)
        worst = next((one.status for one in reports if one.status), 0)
        recording.ended(worst or (unanswered.exit_status if unanswered else 0), partial=not worst and bool(unanswered))
    return done


async def _drill_all(
    repository: Repository,
    streams: tuple[str, ...],
    label: str | None,
    source: str | None,
    options: DrillOptions,
    ask_source: bool,
    quiet: bool,
) -> tuple[RestorePoint, list[DrillReport], JetkeepError | None]:
    from jetkeep.catalog import choose_streams, find_point, having, reading
    from jetkeep.cli.progress import progress
    from jetkeep.cli.settings import server_settings
    from jetkeep.drill import behind, choose_at_random, drill
    from jetkeep.errors import ServerError
    from jetkeep.jetstream import connect
    from jetkeep.repository.sets import alone

    if options.chosen == "random":
        point = alone(await choose_at_random(repository, streams, source, seed=options.seed))
    else:
        point = await find_point(repository, label, streams, source)
    reports = []
    async with reading(repository, *point.backups, now_ns=time.time_ns):
        for backup in point.backups:
            wanted = having(backup, streams)
            if streams and not wanted:
                continue
            chosen = await choose_streams(repository, backup, wanted)
            if ask_source:
                try:
                    async with connect(server_settings({})) as js:
                        options = replace(options, behind=await behind(js, chosen))
                except ServerError as failure:
                    # A source that is down is what drills are for: the rest is proven, and evidence says what is not known.
                    options = replace(options, behind=None, unanswered=failure)
            with progress(quiet) as emit:
                reports.append(await drill(repository, backup, chosen, options, emit=emit))
    return point, reports, options.unanswered


def _print(report: DrillReport) -> None:
    from jetkeep.cli.render import say, seconds, table

    rows = []
    for one in report.streams:
        expected, found = one.manifest, one.found or {}
        messages = f"{found.get('messages', 0):,} of {expected.messages:,}"
        consumers = f"{found.get('consumers', 0)} of {len(expected.consumers)}"
        verdict = "as captured" if one.good else "FAILED"
        rows.append([expected.stream, messages, consumers, str(one.sample.get("compared", 0)), verdict])
    if rows:
        columns = ("stream", "messages", "consumers", "byte by byte", "verdict")
        table(columns, rows, columns[1:4])
        say()
    for failure in report.failures:
        say(f"FAILED: {failure}")
    if report.check is not None:
        status = "was ended" if report.check.status is None else f"exit status {report.check.status}"
        say(f"your check: {status} after {seconds(report.check.seconds)}")
        for line in report.check.output.splitlines()[-10:]:
            say(f"  {line}")
    _summary(report)


def _summary(report: DrillReport) -> None:
    from jetkeep.cli.render import age, say, seconds

    backup = report.document["backup"]
    for one in backup["not_drilled"] if report.verdict == "SUCCESSFUL" else ():
        say(f"not in this drill: {one['stream']}: {one['reason']}")
    of = f"{len(report.streams)} stream{'s' if len(report.streams) != 1 else ''} of backup {backup['label']}"
    say(f"{report.verdict}: {of}, restored into a throw-away server {report.server_version}")
    phases = ", ".join(f"{name} {seconds(value)}" for name, value in report.phases.items() if value >= 0.0005)
    say(f"RTO {seconds(report.rto_seconds)} until streams are back and compared; all phases: {phases}")
    lost = report.document["rpo"]["messages"]
    of_messages = "" if lost is None else f", {lost:,} messages"
    say(f"RPO {age(report.rpo_seconds)}{of_messages}: what was published since the backup would be lost")
    if report.required_action:
        say(f"do: {report.required_action}")
    if report.key:
        signer = report.document["signer"]
        signed = f"signed by key {signer['key_id'][:16]}…" if signer else "not signed"
        say(f"evidence: {report.key}, {signed}, next drill due {report.document['next_due'][:10]}")


def _fields(report: DrillReport) -> dict[str, Any]:
    kept = {
        "evidence": report.key,
        "status": report.status,
        "error": report.unkept.to_dict() if report.unkept else None,
    }
    return {**kept, **{key: one for key, one in report.document.items() if key != "schema"}}
