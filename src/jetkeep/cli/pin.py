"""`jetkeep pin`."""

from __future__ import annotations

import time

import click

from jetkeep.cli.options import output_options, repository_options


@click.command("pin")
@click.argument("label")
@repository_options
@click.option("--reason", default="", help="Why; `info` shows it.")
@click.option("--remove", is_flag=True, help="Take the pin away: the rules decide again.")
@output_options
def command(label: str, repo: str | None, reason: str, remove: bool, as_json: bool, quiet: bool) -> int:
    """Keep a backup or a set for ever, whatever `expire`'s rules say.

    \b
    Examples:
      jetkeep pin 20261123-131500 --reason 'before the migration' --repo /backups
      jetkeep pin 20261123-131500 --remove --repo /backups
    """
    from jetkeep.catalog import members
    from jetkeep.cli.render import document, say
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_repository
    from jetkeep.errors import UsageError
    from jetkeep.repository import pins

    async def operation() -> None:
        repository = await open_repository(repo)
        try:
            labels = await members(repository, label)
        except UsageError:
            if not remove:
                raise
            labels = [label]  # a pin can be left over
        for one in labels:
            if remove:
                await pins.unpin(repository, one)
            else:
                await pins.pin(repository, one, reason, now_ns=time.time_ns)

    run(operation())
    if as_json:
        document("jetkeep.pin/1", {"label": label, "pinned": not remove, "reason": reason})
    elif not quiet:
        say(f"backup {label} is " + ("not pinned any more" if remove else "pinned: it is never expired"))
    return 0
