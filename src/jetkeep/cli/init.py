"""`jetkeep init`."""

from __future__ import annotations

import time

import click

from jetkeep.cli.options import output_options, repository_options


@click.command("init")
@repository_options
@click.option(
    "--encrypt-to",
    multiple=True,
    metavar="RECIPIENT",
    help="Seal it for this age recipient (age1…, ssh-ed25519); may be repeated.",
)
@click.option(
    "--encrypt-passphrase",
    is_flag=True,
    help="Seal it for a passphrase, asked for, or from JETKEEP_PASSPHRASE.",
)
@output_options
def command(repo: str | None, encrypt_to: tuple[str, ...], encrypt_passphrase: bool, as_json: bool, quiet: bool) -> int:
    """Create a repository where the path is absent or empty. The first backup does it too.

    A sealed one is written to without any secret: the machine that backs up cannot read what it stored. Whoever
    restores gives the identity; when every identity is lost, so is the data.

    \b
    Examples:
      jetkeep init --repo /backups
      jetkeep init --encrypt-to age1… --encrypt-to age1… --repo s3://bucket/jetkeep
    """
    from jetkeep.cli.render import document, say
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import ask_passphrase, recipients_of, seal_for, store_of
    from jetkeep.repository.repository import Repository

    passphrase = ask_passphrase(new=True) if encrypt_passphrase else None
    sealed = seal_for([*encrypt_to, *recipients_of(repo)], passphrase)

    async def create() -> tuple[Repository, str | None]:
        repository = await Repository.create(store_of(repo), now_ns=time.time_ns, seal_for=sealed)
        return repository, (await repository.vault.keyring()).recipient if repository.vault else None

    repository, sealed_to = run(create())
    if as_json:
        facts = {"repository": repository.id, "url": repository.url, "format": 1, "encrypted": repository.sealed}
        document("jetkeep.init/1", {**facts, "sealed_to": sealed_to})
    elif not quiet:
        kind = "encrypted" if repository.sealed else "not encrypted"
        say(f"created repository {repository.id[:12]} at {repository.url} (format 1, {kind})")
        if sealed_to:
            say(f"runs seal for {sealed_to}: pin it in the configuration (sealed-to)")
            say("whoever loses every identity it is encrypted to has lost the data: keep one offline")
    return 0
