"""`jetkeep key`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import identity_options, output_options, repository_options
from jetkeep.errors import UsageError

if TYPE_CHECKING:
    from jetkeep.repository.keys import Keyring


@click.command("key")
@click.argument("action", type=click.Choice(["list", "add", "remove", "rotate"]))
@click.argument("recipients", nargs=-1, metavar="[RECIPIENT]...")
@repository_options
@identity_options
@click.option("--passphrase", is_flag=True, help="With add: a passphrase, too; with remove: the passphrase.")
@output_options
def command(
    action: str,
    recipients: tuple[str, ...],
    repo: str | None,
    passphrase: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Who can read a sealed repository: list, add or remove age recipients, or rotate its own key.

    Adding, removing and rotating need an identity that opens it. A recipient that was removed may have kept the key:
    rotate, too, so that later backups are closed to them; earlier ones stay as they are.

    \b
    Examples:
      jetkeep key list --repo s3://bucket/jetkeep
      jetkeep key add age1… --identity me.txt --repo s3://bucket/jetkeep
      jetkeep key remove age1… --identity me.txt --repo s3://bucket/jetkeep
      jetkeep key rotate --identity me.txt --repo s3://bucket/jetkeep
    """
    from jetkeep.cli.render import document, say
    from jetkeep.cli.running import run

    if (action in ("list", "rotate")) == bool(recipients or passphrase):
        raise UsageError(
            f"`jetkeep key {action}` takes {'no' if recipients else 'a'} recipient",
            code="usage.recipient",
            hint="see `jetkeep key --help`",
        )
    keyring = run(_change(repo, action, recipients, passphrase))
    found = keyring.document
    for key in keyring.left:
        click.echo(
            f"notice: {key} could not be deleted: whoever it names can still read what is sealed so far", err=True
        )
    if as_json:
        names = [one.recipient for one in found.wrapped]
        document("jetkeep.key/1", {"generation": found.generation, "sealed_to": found.recipient, "recipients": names})
    elif not quiet:
        for one in found.wrapped:
            say(one.recipient)
        say(f"generation {found.generation} of {found.created_at}; runs seal for {found.recipient}")
    return 0


async def _change(repo: str | None, action: str, recipients: tuple[str, ...], passphrase: bool) -> Keyring:
    from jetkeep.cli.settings import ask_passphrase, open_repository
    from jetkeep.repository.keys import PASSPHRASE

    repository = await open_repository(repo)
    if repository.vault is None:
        raise UsageError(
            f"{repository.url} is not encrypted",
            code="usage.not-sealed",
            means="nothing was changed",
            hint="make an encrypted one (`jetkeep init --encrypt-to`) and `jetkeep copy` into it",
        )
    keyring = await repository.vault.keyring()
    if action == "list":
        return keyring
    if not keyring.unlocked:
        keyring.unwrap(b"")  # says what to give
    have = [one.recipient for one in keyring.document.wrapped]
    named = [*recipients, *([PASSPHRASE] if passphrase else [])]
    if action == "remove" and (absent := [one for one in named if one not in have]):
        raise UsageError(
            f"{absent[0]} is no recipient of {repository.url}", code="usage.recipient", hint="see `jetkeep key list`"
        )
    if action == "add" and PASSPHRASE in named and PASSPHRASE in have:
        raise UsageError(
            f"{repository.url} has a passphrase", code="usage.recipient", hint="remove it, then add the new one"
        )
    secret = None
    if (action == "add" and passphrase) or (action == "rotate" and PASSPHRASE in have):
        secret = ask_passphrase(new=action == "add")
    wanted = [one for one in have if one not in named] if action == "remove" else [*have, *recipients]
    return await keyring.rewrap(wanted, secret, rotate=action == "rotate", now_ns=time.time_ns)
