"""`jetkeep extract`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from jetkeep.cli.options import identity_options, output_options, repository_options


@click.command("extract")
@click.argument("label")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@repository_options
@identity_options
@click.option("--source", metavar="NAME", help="Of a set only this source's files.")
@output_options
def command(label: str, directory: Path, repo: str | None, source: str | None, as_json: bool, quiet: bool) -> int:
    """Write the files that `backup --include-files` kept: DIR/<path>, of a set DIR/<part>/<path>.

    DIR must not exist, or be empty. Only their owner can read the files, whatever it was before: there are keys among
    them. LABEL is a backup, a set, or `latest`.

    \b
    Examples:
      jetkeep extract latest ./identity --repo /backups
      jetkeep extract nightly-20261123 ./identity --source prod --repo /backups --identity key.txt
    """
    from jetkeep.capture.files import unpack
    from jetkeep.catalog import find_point, reading
    from jetkeep.cli.render import document, say
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_to_read
    from jetkeep.errors import UsageError

    async def operation() -> tuple[str, list[Path]]:
        repository = await open_to_read(repo, quiet=quiet)
        point = await find_point(repository, label, (), source)
        holding = [one for one in point.backups if one.files and one.files.archive]
        if not holding:
            raise UsageError(
                f"backup {point.label} has no files",
                code="usage.no-files",
                means="nothing was written",
                hint="`jetkeep info` marks backups with files; `backup --include-files` keeps them",
            )
        async with reading(repository, *holding, now_ns=time.time_ns):
            # All are proven before anything is written.
            archives = {
                one.set.part if one.set and point.parts else "": await repository.read_files(one) for one in holding
            }
        return point.label, unpack(archives, directory)

    found, written = run(operation())
    if as_json:
        files = [str(one.relative_to(directory)) for one in written]
        document("jetkeep.extract/1", {"label": found, "directory": str(directory), "files": files})
    elif not quiet:
        say(f"extracted {len(written)} files of {found} to {directory}: only their owner can read them")
    return 0
