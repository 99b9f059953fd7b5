"""`jetkeep export`."""

from __future__ import annotations

import time
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import identity_options, output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.interchange.exporting import ExportReport


@click.command("export")
@click.argument("stream")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@repository_options
@identity_options
@click.option("--backup", "label", metavar="LABEL", help="Which backup.  [default: the newest that has the stream]")
@click.option("--source", metavar="NAME", help="Only backups of this source.")
@click.option("--tar", is_flag=True, help="The form of servers before 2.15; servers of any version restore it.")
@output_options
def command(
    stream: str,
    directory: Path,
    repo: str | None,
    label: str | None,
    source: str | None,
    tar: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write a stream as the directory that the official CLI's `nats backup restore stream DIR` takes.

    By default in the form of servers from 2.15, `stream.arc.s2`; with --tar `stream.tar.s2`. DIR must not exist, or be
    empty. Everything is verified while it is read; DIR appears complete or not at all.

    \b
    Examples:
      jetkeep export ORDERS ./orders --repo /backups
      jetkeep export ORDERS ./orders --tar --backup 20261123-131500 --repo /backups
    """
    from jetkeep.catalog import choose_streams, find_backup, reading
    from jetkeep.cli.progress import progress
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_to_read
    from jetkeep.interchange.exporting import export_stream

    async def operation() -> ExportReport:
        repository = await open_to_read(repo, quiet=quiet)
        backup = await find_backup(repository, label, [escape(stream)], source)
        async with reading(repository, backup, now_ns=time.time_ns):
            manifest = (await choose_streams(repository, backup, [escape(stream)]))[0].manifest
            with progress(quiet) as emit:
                return await export_stream(repository, manifest, directory, "tar" if tar else "archive", emit=emit)

    report = run(operation())
    _print_json(report) if as_json else _print(report)
    return 0


def _print(report: ExportReport) -> None:
    from jetkeep.cli.render import say, seconds, size

    manifest = report.manifest
    say(
        f"exported {manifest.stream} of backup {manifest.label} to {report.directory}: {manifest.messages:,} messages, "
        f"{len(manifest.consumers)} consumers, {report.data_file} of {size(report.data_bytes)}, "
        f"in {seconds(report.seconds)}"
    )
    for note in report.notes:
        say(f"note: {note}")
    say(f"restore it with: nats backup restore stream {report.directory}")


def _print_json(report: ExportReport) -> None:
    from jetkeep.cli.render import document

    manifest = report.manifest
    document(
        "jetkeep.export/1",
        {
            "label": manifest.label,
            "source": manifest.source,
            "stream": manifest.stream,
            "directory": str(report.directory),
            "form": report.form,
            "data_file": report.data_file,
            "data_bytes": report.data_bytes,
            "messages": manifest.messages,
            "bytes": manifest.bytes,
            "server_bytes": report.stored_bytes,
            "first_seq": manifest.first_seq,
            "last_seq": manifest.last_seq,
            "consumers": len(manifest.consumers),
            "fingerprint": manifest.fingerprint,
            "seconds": round(report.seconds, 3),
            "notes": report.notes,
        },
    )
