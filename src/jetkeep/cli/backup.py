"""`jetkeep backup`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import connection_options, output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.capture.run import BackupReport
    from jetkeep.capture.sources import SetReport
    from jetkeep.cli.recording import Recording
    from jetkeep.repository.documents import Backup
    from jetkeep.repository.fanout import Member


@click.command("backup")
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@repository_options
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out streams that match; may be repeated.")
@click.option("--label", help="Name of the backup.  [default: the time in UTC, such as 20261123-131500]")
@click.option("--source", metavar="NAME", help="Name of what is backed up.  [default: the context's name, or 'nats']")
@click.option("--all-sources", is_flag=True, help="Every source of the configuration, together one set.")
@click.option("--shard", metavar="I/N", help="Only share I of N of the streams: a part of the set --label; I from 0.")
@click.option("--shards", type=int, metavar="N", help="The same with the I of an Indexed Job ($JOB_COMPLETION_INDEX).")
@click.option(
    "--include-files",
    "files",
    multiple=True,
    metavar="PATH",
    help="Files, folders or globs to keep with the streams, such as the server's configuration; may be repeated.",
)
@click.option("--force-unsealed", is_flag=True, help="Keep files although the repository is not encrypted.")
@click.option("--tag", "tags", multiple=True, help="Tag for `expire --keep-tag`; may be repeated.")
@connection_options
@output_options
def command(
    streams: tuple[str, ...],
    repo: str | None,
    exclude: tuple[str, ...],
    label: str | None,
    source: str | None,
    all_sources: bool,
    shard: str | None,
    shards: int | None,
    files: tuple[str, ...],
    force_unsealed: bool,
    tags: tuple[str, ...],
    connection: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> int:
    """Back up streams: messages, configuration and consumers, exactly. All streams of the account by default.

    The repository is created where the path is absent or empty. A stream that fails does not stop the others:
    the backup is then partial and the exit status 3. A source that fails does not stop the other sources either.

    \b
    Examples:
      jetkeep backup --repo /backups
      jetkeep backup 'KV_*' ORDERS --repo /backups --context prod
      jetkeep backup --exclude 'tmp-*' --tag before-upgrade --repo /backups --json
      jetkeep backup --all-sources --config /etc/jetkeep.toml
      jetkeep backup --shard 2/4 --label nightly-20261123 --repo s3://backups/prod
    """
    from jetkeep.capture.run import BackupOptions, back_up
    from jetkeep.cli import backup_parts as parts
    from jetkeep.cli.progress import progress
    from jetkeep.cli.recording import recorded
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_all, repositories_meant, store_of
    from jetkeep.jetstream import connect

    store_of(repo)  # what is wrong with it is said before anything else is tried
    share = parts.chosen_shard(shard, shards, label)
    options = BackupOptions(streams, exclude, label=label, tags=tags, files=files)
    names = repositories_meant(repo)
    if all_sources or share:
        chosen = (parts.chosen_sources if all_sources else parts.chosen_source)(source, options, connection)

        async def of_parts() -> SetReport:
            async with recorded("backup", names, source=source or "", quiet=quiet) as recording:
                taken = await parts.back_up_parts(repo, chosen, label, share, force_unsealed, quiet)
                parts.note_set(recording, taken)
                return taken

        of_set = run(of_parts())
        parts.print_set_json(of_set) if as_json else parts.print_set(of_set)
        return parts.status_of(of_set)
    (one,) = parts.chosen_source(source, options, connection)
    settings = one.settings()

    async def operation() -> BackupReport:
        async with recorded("backup", names, source=one.options.source, quiet=quiet) as recording:
            async with connect(settings) as js:
                if one.options.files:
                    await parts.refuse_unsealed(repo, force_unsealed)
                into = await open_all(repo)
                with progress(quiet) as emit:
                    report = await back_up(js, into, one.options, emit=emit, now_ns=time.time_ns)
            await catch_up(report, quiet)
            recording.works_on(*into.opened)
            note_backup(recording, report)
        return report

    report = run(operation())
    _print_json(report) if as_json else print_report(report)
    return status_of(report)


def status_of(report: BackupReport) -> int:
    """3 where a stream failed, or a required repository does not have the backup."""
    missed = any(one.required for one in report.into.missed)
    return 3 if missed or report.backup.status != "complete" else 0


def note_backup(recording: Recording, report: BackupReport) -> None:
    """What the record of the run tells."""
    backup, facts = report.backup, recording.facts
    whole = [entry for entry in backup.streams if entry.status == "complete"]
    facts.label = facts.label or (backup.set.label if backup.set else backup.label)
    facts.streams += len(whole)
    facts.failed += len(backup.streams) - len(whole)
    for name in ("messages", "bytes", "stored_bytes", "gaps"):
        setattr(facts, name, getattr(facts, name) + sum(getattr(entry, name) for entry in whole))
    recording.ended(status_of(report), partial=bool(status_of(report)))


async def catch_up(report: BackupReport, quiet: bool) -> None:
    """Bring what the other repositories missed before; a failure is told, and the next run tries again."""
    from jetkeep import replicate
    from jetkeep.cli.progress import progress
    from jetkeep.cli.settings import policy_of
    from jetkeep.errors import JetkeepError

    first, *others = [one for one in report.into.members if one.committed]
    for member in others:
        try:
            with progress(quiet) as emit:
                copied = await replicate.catch_up(
                    first.open, member.open, policy_of(member.name), emit=emit, now_ns=time.time_ns
                )
        except JetkeepError as failure:
            member.behind = {member.name: failure}
        else:
            member.caught_up, member.behind = copied.copied, copied.failed


def print_report(report: BackupReport) -> None:
    """For people."""
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
    _print_files(backup)
    _print_repositories(report.into.members)
    done = len(report.captured)
    messages = sum(entry.messages for entry in backup.streams)
    stored = sum(entry.stored_bytes for entry in backup.streams)
    kind = "" if backup.status == "complete" else ", PARTIAL"
    say(
        f"backup {backup.label}{kind}: {done} of {len(backup.streams)} streams, {messages:,} messages, "
        f"{size(stored)} stored in {seconds(report.seconds)}"
    )


def _print_files(backup: Backup) -> None:
    from jetkeep.cli.render import say

    if backup.files and backup.files.error:
        say(f"files: FAILED: {backup.files.error.what}  [{backup.files.error.code}]")
        say(f"  do: {backup.files.error.hint}")
    elif backup.files:
        say(f"{backup.files.count} files kept: `jetkeep extract {backup.label} DIR` gives them back")


def _print_repositories(members: list[Member]) -> None:
    from jetkeep.cli.render import say

    for member in members:
        if member.committed is None:
            _print_missed(member, members)
        if member.caught_up:
            say(f"repository {member.name} was brought what it missed: {', '.join(member.caught_up)}")
        for name, failure in member.behind.items():
            say(f"repository {member.name} still misses {name}: {failure.what}  [{failure.code}]")


def _print_missed(member: Member, members: list[Member]) -> None:
    from jetkeep.cli.render import say

    kind = "required" if member.required else "optional"
    assert member.failure
    say(f"repository {member.name} ({kind}) does NOT have this backup: {member.failure.what}  [{member.failure.code}]")
    hint = f"{member.failure.hint}; " if member.failure.hint else ""
    then = "the next backup brings what is missing"
    if member is members[0]:
        there = next(one.name for one in members if one.committed)
        then = f"then `jetkeep copy --from {there} --to {member.name}` brings what is missing"
    say(f"  do: {hint}{then}")


def _print_json(report: BackupReport) -> None:
    from jetkeep.cli.render import document

    document("jetkeep.backup/1", fields_of(report))


def fields_of(report: BackupReport) -> dict[str, Any]:
    """The fields of `jetkeep.backup/1`."""
    from jetkeep.repository.documents import as_dict

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
    return {
        "label": backup.label,
        "status": backup.status,
        "source": backup.source,
        "repository": backup.repository,
        "started_at": backup.started_at,
        "finished_at": backup.finished_at,
        "seconds": round(report.seconds, 3),
        "server_version": backup.server.version,
        "streams": streams,
        "files": as_dict(backup.files) if backup.files else None,
        "repositories": [_repository(one) for one in report.into.members],
    }


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
