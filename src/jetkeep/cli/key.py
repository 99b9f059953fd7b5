"""`jetkeep key`: new, list, add, remove, rotate."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import identity_options, output_options, repository_options
from jetkeep.errors import UsageError

if TYPE_CHECKING:
    from jetkeep.repository.keys import Keyring


@click.group("key")
def command() -> None:
    """Who can read an encrypted repository.

    \b
    Examples:
      jetkeep key new me.txt
      jetkeep key list --repo s3://bucket/jetkeep
      jetkeep key add age1… --identity me.txt --repo s3://bucket/jetkeep
      jetkeep key remove age1… --identity me.txt --repo s3://bucket/jetkeep
      jetkeep key rotate --identity me.txt --repo s3://bucket/jetkeep
    """


@command.command("new")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@output_options
def new(file: Path, as_json: bool, quiet: bool) -> int:
    """Write a new age identity into FILE, readable by you alone, and print its recipient, as `age-keygen` does.

    The recipient is for `jetkeep init --encrypt-to`. Keep the file off the machines that back up.
    """
    from jetkeep.cli.render import document, say
    from jetkeep.config.identity import new_identity

    recipient = new_identity(file)
    if as_json:
        document("jetkeep.key-new/1", {"file": str(file), "recipient": recipient})
    elif not quiet:
        say(recipient)
    return 0


@command.command("list")
@repository_options
@output_options
def list_(repo: str | None, as_json: bool, quiet: bool) -> int:
    """Whose identities open the repository; needs none."""
    return _done(repo, _itself, as_json, quiet)


@command.command("add")
@click.argument("recipients", nargs=-1, metavar="[RECIPIENT]...")
@repository_options
@identity_options
@click.option("--passphrase", is_flag=True, help="A passphrase: JETKEEP_PASSPHRASE, or asked for.")
@output_options
def add(recipients: tuple[str, ...], repo: str | None, passphrase: bool, as_json: bool, quiet: bool) -> int:
    """Let others read, too: all that is stored, and all that will be."""
    from jetkeep.cli.settings import ask_passphrase
    from jetkeep.repository.keys import PASSPHRASE

    _named(recipients, passphrase)

    async def change(keyring: Keyring) -> Keyring:
        have = keyring.names
        if passphrase and PASSPHRASE in have:
            raise UsageError("there is a passphrase", code="usage.recipient", hint="remove it, then add the new one")
        secret = ask_passphrase(new=True) if passphrase else None
        return await keyring.rewrap([*have, *recipients], secret, rotate=False, now_ns=time.time_ns)

    return _done(repo, change, as_json, quiet)


@command.command("remove")
@click.argument("recipients", nargs=-1, metavar="[RECIPIENT]...")
@repository_options
@identity_options
@click.option("--passphrase", is_flag=True, help="The passphrase.")
@output_options
def remove(recipients: tuple[str, ...], repo: str | None, passphrase: bool, as_json: bool, quiet: bool) -> int:
    """Take recipients out. Who has read the keys before may have kept them: rotate, too, so that later backups are closed."""
    from jetkeep.repository.keys import PASSPHRASE

    _named(recipients, passphrase)
    named = {*recipients, *([PASSPHRASE] if passphrase else [])}

    async def change(keyring: Keyring) -> Keyring:
        have = keyring.names
        if absent := named.difference(have):
            what = f"{min(absent)} does not open the repository"
            raise UsageError(what, code="usage.recipient", hint="`jetkeep key list` shows who does")
        return await keyring.rewrap([one for one in have if one not in named], None, rotate=False, now_ns=time.time_ns)

    return _done(repo, change, as_json, quiet)


@command.command("rotate")
@repository_options
@identity_options
@output_options
def rotate(repo: str | None, as_json: bool, quiet: bool) -> int:
    """Seal later backups with a new key pair of the repository; earlier ones stay as they are, and readable to the same people."""
    from jetkeep.cli.settings import ask_passphrase
    from jetkeep.repository.keys import PASSPHRASE

    async def change(keyring: Keyring) -> Keyring:
        secret = ask_passphrase(new=False) if PASSPHRASE in keyring.names else None
        return await keyring.rewrap(keyring.names, secret, rotate=True, now_ns=time.time_ns)

    return _done(repo, change, as_json, quiet)


def _named(recipients: tuple[str, ...], passphrase: bool) -> None:
    if not recipients and not passphrase:
        raise UsageError("nobody was named", code="usage.recipient", hint="give a recipient (age1…) or --passphrase")


async def _itself(keyring: Keyring) -> Keyring:
    return keyring


def _done(repo: str | None, change: Callable[[Keyring], Awaitable[Keyring]], as_json: bool, quiet: bool) -> int:
    from jetkeep.cli.render import document, say
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_repository

    async def operation() -> Keyring:
        repository = await open_repository(repo)
        if repository.vault is None:
            raise UsageError(
                f"{repository.url} is not encrypted",
                code="usage.not-sealed",
                means="nothing was changed",
                hint="make an encrypted one (`jetkeep init --encrypt-to`) and `jetkeep copy` into it",
            )
        return await change(await repository.vault.keyring())

    keyring = run(operation())
    for key in keyring.left:
        click.echo(f"notice: {key} could not be deleted: whoever it names can still read what is there", err=True)
    found = keyring.document
    if as_json:
        facts = {"generation": found.generation, "created_at": found.created_at, "sealed_to": found.recipient}
        document("jetkeep.key/1", {**facts, "recipients": keyring.names, "not_deleted": keyring.left})
    elif not quiet:
        for one in keyring.names:
            say(one)
        say(f"runs seal for {found.recipient} (generation {found.generation}, {found.created_at})")
    return 0
