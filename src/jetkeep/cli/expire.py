"""`jetkeep expire`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.errors import JetkeepError
    from jetkeep.expire import ExpireReport
    from jetkeep.retention import Policy


@click.command("expire")
@repository_options
@click.option("--keep-last", type=click.IntRange(0), default=0, metavar="N", help="The newest N.")
@click.option("--keep-hourly", type=click.IntRange(0), default=0, metavar="N", help="The newest of each of N hours.")
@click.option("--keep-daily", type=click.IntRange(0), default=0, metavar="N", help="The newest of each of N days.")
@click.option("--keep-weekly", type=click.IntRange(0), default=0, metavar="N", help="The newest of each of N weeks.")
@click.option("--keep-monthly", type=click.IntRange(0), default=0, metavar="N", help="The newest of each of N months.")
@click.option("--keep-yearly", type=click.IntRange(0), default=0, metavar="N", help="The newest of each of N years.")
@click.option("--keep-within", default="", metavar="DURATION", help="All younger than, for instance, 7d, 12h, 1y6m.")
@click.option("--keep-tag", "keep_tags", multiple=True, metavar="TAG", help="All with this tag; may be repeated.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would go and why; change nothing.")
@output_options
def command(
    repo: str | None,
    keep_last: int,
    keep_hourly: int,
    keep_daily: int,
    keep_weekly: int,
    keep_monthly: int,
    keep_yearly: int,
    keep_within: str,
    keep_tags: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Let go of backups that no rule keeps. Pins and the newest complete backup always stay.

    Without a rule, and without --repo: each repository of the configuration that says what it keeps, by its own rules; one
    that fails does not stop the others.
    Periods are those of UTC. What a running restore or backup needs stays until the next run.

    \b
    Examples:
      jetkeep expire --keep-daily 7 --keep-weekly 4 --dry-run --repo /backups
      jetkeep expire --config jetkeep.toml
      jetkeep expire --keep-within 30d --keep-tag release --repo /backups
    """
    from jetkeep.cli.running import run
    from jetkeep.retention import Policy

    policy = Policy(
        keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, keep_within, tuple(keep_tags)
    )
    done = run(_expire_all(repo, policy, dry_run, quiet))
    _json(done) if as_json else _print_all(done)
    return next((one.error.exit_status for one in done if one.error and one.required), 0)


@dataclass(frozen=True, slots=True)
class _Done:
    """What was done in one repository, or why nothing was."""

    name: str
    url: str
    required: bool
    repository: str | None = None
    report: ExpireReport | None = None
    error: JetkeepError | None = None


async def _expire_all(repo: str | None, policy: Policy, dry_run: bool, quiet: bool) -> list[_Done]:
    """Each repository, whatever becomes of the others.

    Raises:
        JetkeepError: nothing was done anywhere: the first one's error.
    """
    from jetkeep.cli.progress import progress
    from jetkeep.cli.recording import recorded
    from jetkeep.cli.settings import configuration, open_repository, policy_of, repositories_to_expire
    from jetkeep.errors import JetkeepError
    from jetkeep.expire import expire

    config, done = configuration(), []
    for name in repositories_to_expire(repo):
        table = config.repositories.get(name or next(iter(config.repositories), ""))
        one = _Done(name or "", table.url if table else repo or "", not name or not table or config.required(name))
        try:
            async with recorded("expire", [name], quiet=quiet, dry_run=dry_run) as recording:
                repository = await open_repository(name, read=False)
                recording.works_on(repository)
                with progress(quiet) as emit:
                    own = policy_of(name) if policy.empty else policy
                    report = await expire(repository, own, now_ns=time.time_ns, emit=emit, dry_run=dry_run)
                recording.facts.backups = len(report.expired)
        except JetkeepError as failure:
            done.append(replace(one, error=failure))
        else:
            done.append(replace(one, url=repository.url, repository=repository.id, report=report))
    if not any(one.report for one in done):
        raise next(one.error for one in done if one.error)
    return done


def _print_all(done: list[_Done]) -> None:
    from jetkeep.cli.render import say

    for one in done:
        if one.report:
            _print(one.report, one.url if len(done) > 1 else "")
        elif one.error:
            kind = "required" if one.required else "optional"
            say(f"{one.url}:")
            say(f"nothing was done in repository {one.name} ({kind}): {one.error.what}  [{one.error.code}]")
            if one.error.hint:
                say(f"  do: {one.error.hint}")


def _print(report: ExpireReport, url: str) -> None:
    from jetkeep.cli.render import say, size, table

    if url:
        say(f"{url}:")

    rows = []
    for one in report.decisions:
        label = one.candidate.label
        if label in report.locked:
            action, why = "locked", f"{one.why_not}; {_until(report.locked[label])}"
        else:
            going = "expire" if report.dry_run else "expired"
            action = "keep" if one.keep else "held" if label in report.held else going
            why = ", ".join(one.reasons) or one.why_not
        rows.append([action, label, one.candidate.source, why])
    if rows:
        table(("", "backup", "source", "why"), rows)
    gone = sum(not one.keep for one in report.decisions) - len(report.locked)
    if report.dry_run:
        say(f"dry run: {gone} of {len(report.decisions)} backups would go; nothing was changed")
        return
    say(
        f"expired {len(report.expired)} of {len(report.decisions)} backups, "
        f"deleted {report.deleted_objects} objects of {size(report.freed_bytes)}"
    )
    if report.kept_back:
        say(report.kept_back)


def _until(until_ns: int | None) -> str:
    if until_ns is None:
        return "the store keeps it for now"
    return f"the store keeps it until {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(until_ns // 10**9 + 1))}, then it can go"


def _json(done: list[_Done]) -> None:
    from jetkeep.cli.render import document

    document("jetkeep.expire/1", {"repositories": [_document(one) for one in done]})


def _document(one: _Done) -> dict[str, Any]:
    head = {"repository": one.repository, "url": one.url, "required": one.required}
    if one.report is None:
        assert one.error
        return {**head, "error": one.error.to_dict()}
    return {**head, **_report(one.report)}


def _report(report: ExpireReport) -> dict[str, Any]:
    from jetkeep.repository.leases import rfc3339

    return {
        "dry_run": report.dry_run,
        "backups": [
            {
                "label": one.candidate.label,
                "source": one.candidate.source,
                "keep": one.keep,
                "reasons": one.reasons or [one.why_not],
            }
            for one in report.decisions
        ],
        "expired": report.expired,
        "held": report.held,
        "locked": [
            {"label": label, "until": rfc3339(until) if until else None} for label, until in report.locked.items()
        ],
        "deleted_objects": report.deleted_objects,
        "freed_bytes": report.freed_bytes,
        "kept_back": report.kept_back,
    }
