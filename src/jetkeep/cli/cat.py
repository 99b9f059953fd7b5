"""`jetkeep cat`."""

from __future__ import annotations

import sys
import time
from glob import escape

import click

from jetkeep.cli.options import identity_options, repository_options


@click.command("cat")
@click.argument("stream")
@repository_options
@identity_options
@click.option("--backup", "label", metavar="LABEL", help="Which backup.  [default: the newest that has the stream]")
@click.option("--source", metavar="NAME", help="Only backups of this source.")
@click.option("--seq", "sequences", metavar="N|A-B|A-", help="Only these sequences.")
@click.option("--subject", "subjects", multiple=True, metavar="SUBJECT", help="With `*` and `>`; may be repeated.")
@click.option("--since", metavar="TIME", help="Stored at or after: RFC 3339, or so long ago, such as 2h30m.")
@click.option("--until", metavar="TIME", help="Stored before: RFC 3339, or so long ago.")
@click.option("--last-per-subject", is_flag=True, help="Only the newest message of each subject.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many messages.")
@click.option("--headers", is_flag=True, help="Print the headers, too.")
@click.option("--raw", is_flag=True, help="Nothing but the payloads' bytes, one after the other.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; it always has the headers.")
def command(
    stream: str,
    repo: str | None,
    label: str | None,
    source: str | None,
    sequences: str | None,
    subjects: tuple[str, ...],
    since: str | None,
    until: str | None,
    last_per_subject: bool,
    limit: int | None,
    headers: bool,
    raw: bool,
    as_json: bool,
) -> int:
    """Print stored messages of a stream, verified, without restoring anything.

    \b
    Examples:
      jetkeep cat ORDERS --seq 17 --headers --repo /backups
      jetkeep cat ORDERS --subject 'orders.*.failed' --since 2h --repo /backups
      jetkeep cat KV_config --last-per-subject --json --repo /backups
      jetkeep cat OBJ_files --subject '$O.files.C.7Hwq1' --raw --repo /backups > file
    """
    from jetkeep.browse import Wanted, browse
    from jetkeep.catalog import choose_streams, find_backup, reading
    from jetkeep.cli.failures import report_failure
    from jetkeep.cli.messages import JsonPrinter, MessagePrinter, RawPrinter, TextPrinter
    from jetkeep.cli.ranges import moment, sequence_range
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_to_read
    from jetkeep.errors import JetkeepError
    from jetkeep.repository.documents import Backup

    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other")
    now_ns = time.time_ns()
    first, last = sequence_range(sequences)
    wanted = Wanted(first, last, moment(since, now_ns), moment(until, now_ns), subjects, last_per_subject)

    def printer(backup: Backup) -> MessagePrinter:
        if as_json:
            return JsonPrinter({"label": backup.label, "source": backup.source, "stream": stream})
        return RawPrinter(sys.stdout.buffer) if raw else TextPrinter(headers)

    async def operation() -> int:
        repository = await open_to_read(repo)
        backup = await find_backup(repository, label, [escape(stream)], source)
        async with reading(repository, backup, now_ns=time.time_ns):
            manifest = (await choose_streams(repository, backup, [escape(stream)]))[0].manifest
            out = printer(backup)
            left = limit
            try:
                async for message in browse(repository, manifest, wanted):
                    out.message(message)
                    if left is not None and (left := left - 1) == 0:
                        break
            except JetkeepError as failure:
                # The document is open already: it ends with the error, instead of a second document behind it.
                out.end(failure)
                return report_failure(failure, as_json=False)
            out.end()
            return 0

    return run(operation())
