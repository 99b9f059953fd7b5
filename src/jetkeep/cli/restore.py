"""`jetkeep restore`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import connection_options, identity_options, output_options, repository_options
from jetkeep.errors import UsageError

if TYPE_CHECKING:
    from jetkeep.repository.repository import Repository
    from jetkeep.restore.decisions import Plan, RestoreOptions, Step
    from jetkeep.restore.report import RestoreReport


@click.command("restore")
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@repository_options
@identity_options
@click.option(
    "--backup", "label", metavar="LABEL", help="The backup or set.  [default: the newest that has the streams]"
)
@click.option("--source", metavar="NAME", help="Only from backups of this source; of a set only its part.")
@click.option(
    "--all-sources",
    is_flag=True,
    help="Of a set every part, each into the account that the configuration names for it.",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out streams that match; may be repeated.")
@click.option("--as", "as_name", metavar="NAME", help="Restore one stream under another name.")
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan with its reasons; change nothing.")
@click.option(
    "--if-exists",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="When a stream of that name is there.",
)
@click.option("--accept-loss", is_flag=True, help="Restore although the plan names messages that the target will drop.")
@click.option("--replicas", type=click.IntRange(1, 5), metavar="N", help="Another number of replicas.")
@click.option("--storage", type=click.Choice(["file", "memory"]), help="Another storage.")
@click.option("--placement-cluster", metavar="NAME", help="Place the streams in this cluster.")
@click.option(
    "--placement-tag", "tags", multiple=True, metavar="TAG", help="On servers with this tag; may be repeated."
)
@connection_options
@output_options
def command(
    streams: tuple[str, ...],
    repo: str | None,
    label: str | None,
    source: str | None,
    all_sources: bool,
    exclude: tuple[str, ...],
    as_name: str | None,
    dry_run: bool,
    if_exists: str,
    accept_loss: bool,
    replicas: int | None,
    storage: str | None,
    placement_cluster: str | None,
    tags: tuple[str, ...],
    connection: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> int:
    """Put streams back exactly as they were captured: all of the newest backup, or those that are named.

    Each stream is restored closed (its subjects are not open yet), compared message by message and consumer by
    consumer, and only then opened. What the target would drop is counted first and refused without --accept-loss. A
    failure leaves nothing that takes publishes.

    \b
    Examples:
      jetkeep restore --dry-run --repo /backups
      jetkeep restore ORDERS --repo /backups --context prod
      jetkeep restore ORDERS --as ORDERS-yesterday --backup 20261122-020000 --repo /backups
      jetkeep restore --all-sources --config /etc/jetkeep.toml
      jetkeep restore 'KV_*' --if-exists skip --replicas 3 --repo /backups
    """
    from jetkeep.cli.running import run
    from jetkeep.restore.decisions import RestoreOptions

    options = RestoreOptions(
        as_name=as_name,
        if_exists="skip" if if_exists == "skip" else "fail",
        accept_loss=accept_loss,
        replicas=replicas,
        storage=None if storage is None else "memory" if storage == "memory" else "file",
        cluster=placement_cluster,
        tags=tags,
    )
    if all_sources:
        if streams or source or as_name or connection:
            raise UsageError(
                "--all-sources takes servers and streams from the configuration and the set",
                code="usage.all-sources",
                means="nothing was restored",
                hint="leave streams, --source, --as and flags of the connection away, or restore one account by them",
            )
        return run(_restore_all(exclude, repo, label, options, dry_run, as_json, quiet))
    return run(_restore(streams, exclude, repo, label, source, options, connection, dry_run, as_json, quiet))


async def _restore(
    streams: tuple[str, ...],
    exclude: tuple[str, ...],
    repo: str | None,
    label: str | None,
    source: str | None,
    options: RestoreOptions,
    connection: dict[str, Any],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    from jetkeep.catalog import choose_streams, find_point, reading
    from jetkeep.cli.progress import progress
    from jetkeep.cli.render import document
    from jetkeep.cli.settings import server_settings
    from jetkeep.jetstream import connect
    from jetkeep.restore.run import plan_restore, restore

    settings = server_settings(connection)
    repository = await _opened(repo, label, streams, source, quiet)
    point = await find_point(repository, label, streams, source)
    async with reading(repository, *point.backups, now_ns=time.time_ns) as held, connect(settings) as js:
        chosen = await choose_streams(repository, point, streams, exclude)
        manifests = [one.manifest for one in chosen]
        with progress(quiet) as emit:
            if dry_run:
                plan, _ = await plan_restore(repository, js, manifests, options, now_ns=time.time_ns, emit=emit)
                report = None
            else:
                report = await restore(repository, js, manifests, options, emit=emit, held=held)
    if report is None:
        if as_json:
            document("jetkeep.plan/1", {"backup": point.label, **plan.to_dict()})
        else:
            print_plan(plan, point.label)
        return 40 if plan.refusals else 0
    if as_json:
        document("jetkeep.restore/1", {"backup": point.label, **report.to_dict()})
    else:
        print_report(report, point.label)
    return status_of(report)


async def _restore_all(
    exclude: tuple[str, ...],
    repo: str | None,
    label: str | None,
    options: RestoreOptions,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    from jetkeep.catalog import find_point
    from jetkeep.cli import restore_sources as accounts

    repository = await _opened(repo, label, (), None, quiet)
    point = await find_point(repository, label)
    done = await accounts.restore_all(repository, point, exclude, options, dry_run=dry_run, quiet=quiet)
    accounts.print_all_json(done, point.label) if as_json else accounts.print_all(done, point.label)
    failed = [one.status for one in done if one.status]
    return 3 if failed and len(failed) < len(done) and not dry_run else next(iter(failed), 0)


async def _opened(
    repo: str | None, label: str | None, streams: tuple[str, ...], source: str | None, quiet: bool
) -> Repository:
    from jetkeep.cli.lagging import refuse_older
    from jetkeep.cli.progress import notices
    from jetkeep.cli.settings import configuration, open_to_read

    repository = await open_to_read(repo, quiet=quiet)
    if not (repo or label) and len(configuration().repositories) > 1:
        await refuse_older(repository, streams, source, notices(quiet))
    return repository


def status_of(report: RestoreReport) -> int:
    """0 when everything is there, 3 when a part failed, else the status of what failed."""
    if not report.failed:
        return 0
    error = report.failed[0].error
    return error.exit_status if report.status == "failed" and error else 3


def print_plan(plan: Plan, label: str) -> None:
    """For people."""
    from jetkeep.cli.render import say

    say(f"plan: backup {label} to a server {plan.target_version}; nothing was changed")
    for at, step in enumerate(plan.steps, start=1):
        say()
        say(f"{at}. {_headline(step)}")
        if step.action == "skip":
            continue
        _details(step)
        for loss in step.losses:
            mark = "accepted" if plan.accept_loss else "REFUSED"
            say(f"   LOSS      {loss.count:,} {loss.unit}: {loss.why} ({mark})")
        for one in step.refusals:
            say(f"   REFUSED   {one.what}  [{one.code}]")
            say(f"             {one.hint}")
    for notice in plan.notices:
        say()
        say(f"note: {notice}")
    if plan.refusals:
        say()
        say("this restore would be refused (exit status 40)")


def _headline(step: Step) -> str:
    from jetkeep.cli.render import size

    name = step.manifest.stream + (f" as {step.name}" if step.name != step.manifest.stream else "")
    if step.action == "skip":
        return f"skip {name}: {step.reason}"
    manifest = step.manifest
    return (
        f"restore {name}: {manifest.messages:,} messages ({manifest.first_seq} to {manifest.last_seq}), "
        f"{size(step.stored_bytes)} to read, {len(step.consumers)} consumers"
    )


def _details(step: Step) -> None:
    from jetkeep.cli.render import say

    say(f"   written   as {step.writer}: {step.reason}")
    if step.after:
        say(f"   after     {', '.join(step.after)}")
    if step.leftover:
        say("   first     an unfinished restore of this repository is removed")
    appended = step.forecast.markers + step.forecast.due
    if appended:
        say(f"   appended  {appended:,} messages by the server: delete markers, schedules that are due")
    for one in step.differences:
        say(f"   differs   {one.what}: {one.why}")


def print_report(report: RestoreReport, label: str) -> None:
    """For people."""
    from jetkeep.cli.render import say, seconds, table

    rows = []
    for one in report.streams:
        manifest = one.step.manifest
        phases = " ".join(f"{phase} {seconds(value)}" for phase, value in one.seconds.items())
        messages = f"{manifest.messages - one.lost:,}" if one.status == "restored" else ""
        rows.append([one.step.name, one.status, messages, str(len(one.step.consumers)), one.step.writer, phases])
    if rows:
        table(("stream", "status", "messages", "consumers", "written as", "time"), rows, ("messages", "consumers"))
        say()
    for one in report.streams:
        if one.status == "restored":
            for difference in one.step.differences:
                say(f"{one.step.name}: differs: {difference.what}: {difference.why}")
        if one.lost:
            foreseen = "as foreseen" if one.as_foreseen else f"foreseen were {one.step.forecast.lost:,}"
            say(f"{one.step.name}: LOST {one.lost:,} messages, {foreseen}")
        for note in one.notes:
            say(f"{one.step.name}: {note}")
        if one.error:
            say(f"{one.step.name}: FAILED: {one.error.what}  [{one.error.code}]")
            if one.error.means:
                say(f"  data: {one.error.means}")
            if one.error.hint:
                say(f"  do:   {one.error.hint}")
    done = [one for one in report.streams if one.status == "restored"]
    total = sum(one.step.manifest.messages - one.lost for one in done)
    kind = "" if report.status == "complete" else f", {report.status.upper()}"
    say(
        f"restored {len(done)} of {len(report.streams)} streams from backup {label}{kind}: {total:,} messages, "
        f"compared with what was captured, in {seconds(report.seconds)}"
    )
