"""`jetkeep init`."""

from __future__ import annotations

import time

import click

from jetkeep.cli.options import output_options, repository_options


@click.command("init")
@repository_options
@output_options
def command(repo: str | None, as_json: bool, quiet: bool) -> int:
    """Create a repository where the path is absent or empty. The first backup does it too.

    \b
    Examples:
      jetkeep init --repo /backups
      JETKEEP_REPO=/backups jetkeep init
    """
    from jetkeep.cli.render import document, say
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import store_of
    from jetkeep.repository.repository import Repository

    repository = run(Repository.create(store_of(repo), now_ns=time.time_ns))
    if as_json:
        document("jetkeep.init/1", {"repository": repository.id, "url": repository.url, "format": 1})
    elif not quiet:
        say(f"created repository {repository.id[:12]} at {repository.url} (format 1, not encrypted)")
    return 0
