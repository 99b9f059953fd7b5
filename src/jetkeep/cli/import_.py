"""`jetkeep import`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.interchange.importing import ImportReport


@click.command("import")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@repository_options
@click.option("--label", help="Name of the backup.  [default: the time in UTC, such as 20261123-131500]")
@click.option("--source", default="nats", show_default=True, metavar="NAME", help="Name of what was backed up.")
@click.option("--tag", "tags", multiple=True, help="Tag for `expire --keep-tag`; may be repeated.")
@click.option("--accept-loss", is_flag=True, help="Import also what holds fewer messages than it claims.")
@output_options
def command(
    directory: Path,
    repo: str | None,
    label: str | None,
    source: str,
    tags: tuple[str, ...],
    accept_loss: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Take a directory that the official CLI wrote into the repository, as a backup like any other.

    DIR is what `nats backup stream` or `nats backup account` wrote, with `stream.arc.s2` (servers from 2.15) or
    `stream.tar.s2` (servers before). What is cut, damaged, or holds less than it claims is refused. A stream that
    fails does not stop the others: the exit status is then 3.

    \b
    Examples:
      jetkeep import ./orders --repo /backups
      jetkeep import ./account --source prod --label before-jetkeep --repo /backups
    """
    from jetkeep.cli.progress import progress
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_or_create_repository
    from jetkeep.interchange.importing import ImportOptions, import_directory

    options = ImportOptions(source, label, tags, accept_loss)

    async def operation() -> ImportReport:
        repository = await open_or_create_repository(repo)
        with progress(quiet) as emit:
            return await import_directory(directory, repository, options, emit=emit, now_ns=time.time_ns)

    report = run(operation())
    _print_json(report) if as_json else _print(report)
    return 3 if report.failed else 0


def _print(report: ImportReport) -> None:
    from jetkeep.cli.render import say, seconds, size, table

    rows = []
    for name, one in sorted(report.imported.items()):
        entry = one.entry
        numbers = [f"{entry.messages:,}", size(entry.bytes), size(entry.stored_bytes)]
        rows.append([name, *numbers, str(entry.first_seq), str(entry.last_seq), str(entry.consumers), one.form])
    columns = ("stream", "messages", "bytes in", "stored", "first", "last", "consumers", "form")
    table(columns, rows, columns[1:7])
    say()
    for name, one in sorted(report.imported.items()):
        for note in one.notes:
            say(f"{name}: {note}")
    for name, failure in sorted(report.failed.items()):
        say(f"{name}: FAILED: {failure.what}  [{failure.code}]")
        if failure.hint:
            say(f"  do: {failure.hint}")
    kind = ", PARTIAL" if report.failed else ""
    say(
        f"imported as backup {report.backup.label}{kind}: {len(report.imported)} of "
        f"{len(report.imported) + len(report.failed)} streams, "
        f"{sum(one.entry.messages for one in report.imported.values()):,} messages in {seconds(report.seconds)}"
    )


def _print_json(report: ImportReport) -> None:
    from jetkeep.cli.render import document

    streams: list[dict[str, Any]] = [
        {
            "stream": name,
            "status": "complete",
            "form": one.form,
            "messages": one.entry.messages,
            "bytes": one.entry.bytes,
            "stored_bytes": one.entry.stored_bytes,
            "first_seq": one.entry.first_seq,
            "last_seq": one.entry.last_seq,
            "consumers": one.entry.consumers,
            "fingerprint": one.entry.fingerprint,
            "seconds": round(one.seconds, 3),
            "notes": one.notes,
        }
        for name, one in sorted(report.imported.items())
    ]
    streams += [
        {"stream": name, "status": "failed", "error": one.to_dict()} for name, one in sorted(report.failed.items())
    ]
    backup = report.backup
    document(
        "jetkeep.import/1",
        {
            "label": backup.label,
            "status": backup.status,
            "source": backup.source,
            "repository": backup.repository,
            "seconds": round(report.seconds, 3),
            "streams": streams,
        },
    )
