"""`jetkeep expire`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.expire import ExpireReport
    from jetkeep.repository.repository import Repository


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

    Without a rule, and without --repo: each repository of the configuration that says what it keeps, by its own rules.
    Periods are those of UTC. What a running restore or backup needs stays until the next run.

    \b
    Examples:
      jetkeep expire --keep-daily 7 --keep-weekly 4 --dry-run --repo /backups
      jetkeep expire --config jetkeep.toml
      jetkeep expire --keep-within 30d --keep-tag release --repo /backups
    """
    from jetkeep.cli.progress import progress
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_repository, policy_of, repositories_to_expire
    from jetkeep.expire import expire
    from jetkeep.retention import Policy

    policy = Policy(
        keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, keep_within, tuple(keep_tags)
    )

    async def operation() -> list[tuple[Repository, ExpireReport]]:
        done = []
        for name in repositories_to_expire(repo):
            repository = await open_repository(name)
            with progress(quiet) as emit:
                own = policy_of(name) if policy.empty else policy
                report = await expire(repository, own, now_ns=time.time_ns, emit=emit, dry_run=dry_run)
            done.append((repository, report))
        return done

    done = run(operation())
    if as_json:
        _json(done)
        return 0
    for repository, report in done:
        _print(report, repository.url if len(done) > 1 else "")
    return 0


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


def _json(done: list[tuple[Repository, ExpireReport]]) -> None:
    from jetkeep.cli.render import document

    document("jetkeep.expire/1", {"repositories": [_document(*one) for one in done]})


def _document(repository: Repository, report: ExpireReport) -> dict[str, Any]:
    from jetkeep.repository.leases import rfc3339

    return {
        "repository": repository.id,
        "url": repository.url,
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
