"""`jetkeep copy`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import config_option, identity_options, output_options

if TYPE_CHECKING:
    from jetkeep.replicate import CopyReport
    from jetkeep.repository.repository import Repository


@click.command("copy")
@click.argument("labels", nargs=-1, metavar="[LABEL]...")
@click.option(
    "--from", "source", metavar="URL", help="The repository with the backups.  [default: the first configured]"
)
@click.option("--to", "target", metavar="URL", help="The repository that lacks them.  [default: each other configured]")
@config_option
@identity_options
@output_options
def command(labels: tuple[str, ...], source: str | None, target: str | None, as_json: bool, quiet: bool) -> int:
    """Bring the backups of one repository into another: all that it lacks, or those that are named (of a set: all its parts).

    Every byte is compared with its digest and every segment with its fingerprint on the way. A backup is there whole or
    not at all; a copy that was interrupted goes on where it stopped. Pins and evidence belong to each repository and
    are not copied.

    \b
    Examples:
      jetkeep copy --config jetkeep.toml
      jetkeep copy --from /backups --to s3://bucket/jetkeep
      jetkeep copy 20261123-131500 --from local --to offsite
    """
    from jetkeep.catalog import members
    from jetkeep.cli.progress import progress
    from jetkeep.cli.recording import recorded
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_or_create_repository, open_repository, other_repositories
    from jetkeep.replicate import copy_backups

    targets = [target] if target else other_repositories(source)

    async def operation() -> list[tuple[Repository, CopyReport]]:
        begin = await open_repository(source)
        wanted = [one for label in labels for one in await members(begin, label)]
        done = []
        for one in targets:
            # A target that cannot be opened has no record: the repository beside it has.
            async with recorded("copy", [one, source], quiet=quiet) as recording:
                into = await open_or_create_repository(one)
                recording.works_on(into)
                with progress(quiet) as emit:
                    report = await copy_backups(begin, into, labels=wanted, emit=emit, now_ns=time.time_ns)
                recording.facts.backups, recording.facts.bytes = len(report.copied), report.bytes
                recording.ended(3 if report.failed else 0, partial=bool(report.failed))
            done.append((into, report))
        return done

    done = run(operation())
    _json(done) if as_json else _print(done)
    return 3 if any(report.failed for _, report in done) else 0


def _print(done: list[tuple[Repository, CopyReport]]) -> None:
    from jetkeep.cli.render import say, seconds, size

    for into, report in done:
        for label, failure in report.failed.items():
            say(f"{label}: NOT copied: {failure.what}  [{failure.code}]")
            if failure.hint:
                say(f"  do: {failure.hint}")
        for label in report.copied:
            say(f"copied {label}")
        say(
            f"{into.url}: {len(report.copied)} copied ({size(report.bytes)} in {seconds(report.seconds)}), "
            f"{len(report.present)} there already, {len(report.failed)} failed"
        )


def _json(done: list[tuple[Repository, CopyReport]]) -> None:
    from jetkeep.cli.render import document

    targets: list[dict[str, Any]] = [
        {
            "repository": into.id,
            "url": into.url,
            "copied": report.copied,
            "present": report.present,
            "failed": {label: failure.to_dict() for label, failure in report.failed.items()},
            "bytes": report.bytes,
            "seconds": round(report.seconds, 3),
        }
        for into, report in done
    ]
    document("jetkeep.copy/1", {"targets": targets})
