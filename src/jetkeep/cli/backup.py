"""`jetkeep backup`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import connection_options, output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.capture.run import BackupReport
    from jetkeep.repository.fanout import Member


@click.command("backup")
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@repository_options
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out streams that match; may be repeated.")
@click.option("--label", help="Name of the backup.  [default: the time in UTC, such as 20261123-131500]")
@click.option("--source", metavar="NAME", help="Name of what is backed up.  [default: the context's name, or 'nats']")
@click.option("--tag", "tags", multiple=True, help="Tag for `expire --keep-tag`; may be repeated.")
@connection_options
@output_options
def command(
    streams: tuple[str, ...],
    repo: str | None,
    exclude: tuple[str, ...],
    label: str | None,
    source: str | None,
    tags: tuple[str, ...],
    connection: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> int:
    """Back up streams: messages, configuration and consumers, exactly. All streams of the account by default.

    The repository is created where the path is absent or empty. A stream that fails does not stop the others:
    the backup is then partial and the exit status 3.

    \b
    Examples:
      jetkeep backup --repo /backups
      jetkeep backup 'KV_*' ORDERS --repo /backups --context prod
      jetkeep backup --exclude 'tmp-*' --tag before-upgrade --repo /backups --json
    """
    from jetkeep.capture.run import BackupOptions, back_up
    from jetkeep.cli.progress import progress
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_all, server_settings, store_of
    from jetkeep.jetstream import connect

    store_of(repo)  # what is wrong with it is said before anything else is tried
    settings = server_settings(connection)
    options = BackupOptions(streams, exclude, source or settings.context or "nats", label, tags)

    async def operation() -> BackupReport:
        async with connect(settings) as js:
            into = await open_all(repo)
            with progress(quiet) as emit:
                report = await back_up(js, into, options, emit=emit, now_ns=time.time_ns)
        await _catch_up(report, quiet)
        return report

    report = run(operation())
    _print_json(report) if as_json else _print(report)
    return 3 if report.failed or any(one.required for one in report.into.missed) else 0


async def _catch_up(report: BackupReport, quiet: bool) -> None:
    """Bring what the other repositories missed before; a failure is told, and the next run tries again."""
    from jetkeep.cli.progress import progress
    from jetkeep.cli.settings import policy_of
    from jetkeep.errors import JetkeepError
    from jetkeep.replicate import catch_up

    first, *others = [one for one in report.into.members if one.committed]
    for member in others:
        try:
            with progress(quiet) as emit:
                copied = await catch_up(first.open, member.open, policy_of(member.name), emit=emit, now_ns=time.time_ns)
        except JetkeepError as failure:
            member.behind = {member.name: failure}
        else:
            member.caught_up, member.behind = copied.copied, copied.failed


def _print(report: BackupReport) -> None:
    from jetkeep.cli.render import say, seconds, size, table

    backup = report.backup
    rows = []
    for entry in backup.streams:
        if entry.status == "failed":
            rows.append([entry.name, "failed", "", "", "", "", "", ""])
            continue
        how = report.captured[entry.name].road.method
        numbers = [f"{entry.messages:,}", size(entry.bytes), size(entry.stored_bytes)]
        rows.append([entry.name, *numbers, str(entry.first_seq), str(entry.last_seq), str(entry.consumers), how])
    if rows:
        columns = ("stream", "messages", "bytes in", "stored", "first", "last", "consumers", "read by")
        table(columns, rows, columns[1:7])
        say()
    for name, captured in sorted(report.captured.items()):
        if captured.road.method != "snapshot":
            say(f"{name}: read by {captured.road.method}: {captured.road.reason}")
        for note in captured.notes:
            say(f"{name}: {note}")
    for name, failure in sorted(report.failed.items()):
        say(f"{name}: FAILED: {failure.what}  [{failure.code}]")
        if failure.hint:
            say(f"  do: {failure.hint}")
    for member in report.into.members:
        if member.committed is None:
            _print_missed(member)
        if member.caught_up:
            say(f"repository {member.name} was brought what it missed: {', '.join(member.caught_up)}")
        for name, failure in member.behind.items():
            say(f"repository {member.name} still misses {name}: {failure.what}  [{failure.code}]")
    done = len(report.captured)
    messages = sum(entry.messages for entry in backup.streams)
    stored = sum(entry.stored_bytes for entry in backup.streams)
    kind = "" if backup.status == "complete" else ", PARTIAL"
    say(
        f"backup {backup.label}{kind}: {done} of {len(backup.streams)} streams, {messages:,} messages, "
        f"{size(stored)} stored in {seconds(report.seconds)}"
    )


def _print_missed(member: Member) -> None:
    from jetkeep.cli.render import say

    kind = "required" if member.required else "optional"
    assert member.failure
    say(f"repository {member.name} ({kind}) does NOT have this backup: {member.failure.what}  [{member.failure.code}]")
    hint = f"{member.failure.hint}; " if member.failure.hint else ""
    say(f"  do: {hint}the next backup brings what is missing")


def _print_json(report: BackupReport) -> None:
    from jetkeep.cli.render import document

    backup = report.backup
    streams: list[dict[str, Any]] = []
    for entry in backup.streams:
        if entry.error is not None:
            failure = report.failed[entry.name]
            streams.append({"stream": entry.name, "status": "failed", "error": failure.to_dict()})
            continue
        captured = report.captured[entry.name]
        streams.append(
            {
                "stream": entry.name,
                "status": "complete",
                "messages": entry.messages,
                "bytes": entry.bytes,
                "stored_bytes": entry.stored_bytes,
                "first_seq": entry.first_seq,
                "last_seq": entry.last_seq,
                "consumers": entry.consumers,
                "fingerprint": entry.fingerprint,
                "method": captured.road.method,
                "reason": captured.road.reason,
                "seconds": round(captured.seconds, 3),
                "notes": captured.notes,
            }
        )
    document(
        "jetkeep.backup/1",
        {
            "label": backup.label,
            "status": backup.status,
            "source": backup.source,
            "repository": backup.repository,
            "started_at": backup.started_at,
            "finished_at": backup.finished_at,
            "seconds": round(report.seconds, 3),
            "server_version": backup.server.version,
            "streams": streams,
            "repositories": [_repository(one) for one in report.into.members],
        },
    )


def _repository(member: Member) -> dict[str, Any]:
    return {
        "name": member.name,
        "url": member.url,
        "required": member.required,
        "status": "committed" if member.committed else "failed",
        **({"label": member.committed.label} if member.committed else {}),
        "caught_up": member.caught_up,
        "still_missing": {label: failure.to_dict() for label, failure in member.behind.items()},
        **({"error": member.failure.to_dict()} if member.failure else {}),
    }
