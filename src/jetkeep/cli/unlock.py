"""`jetkeep unlock`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.repository.leases import Seen


@click.command("unlock")
@repository_options
@click.option("-n", "--dry-run", is_flag=True, help="Show who holds what; take nothing away.")
@click.option(
    "--force",
    "nonces",
    multiple=True,
    metavar="NONCE",
    help="Take this lease away although its owner may be at work; may be repeated.",
)
@output_options
def command(repo: str | None, dry_run: bool, nonces: tuple[str, ...], as_json: bool, quiet: bool) -> int:
    """Show who holds what in the repository, and take away what the dead left behind.

    Rarely needed: a lease of a run that died ends by itself five minutes after it was last renewed, at once where its process
    can be looked at. A run whose lease is taken away by --force commits and deletes nothing any more, and says so.

    \b
    Examples:
      jetkeep unlock --repo /backups
      jetkeep unlock --dry-run --json --repo s3://bucket/prefix
      jetkeep unlock --force 5f0c1b2a9d3e4f60 --repo /backups
    """
    from jetkeep.cli.running import run

    found, removed, kept = run(_unlock(repo, nonces, dry_run=dry_run))
    if as_json:
        _json(found, removed, kept)
    else:
        _print(found, removed, kept, quiet=quiet)
    return 0


async def _unlock(repo: str | None, nonces: tuple[str, ...], *, dry_run: bool) -> tuple[list[Seen], set[str], str]:
    """What is there; the keys of what was taken away; why dead ones were left, empty when none was."""
    from jetkeep.cli.settings import open_repository
    from jetkeep.errors import StoreError, UsageError
    from jetkeep.repository.leases import lease_if_possible, leases_in

    store = (await open_repository(repo)).store
    ahead, mine = 0, ""
    if not dry_run:
        # Only a lease of our own tells the store's time: by a wrong clock everybody may look dead.
        async with lease_if_possible(store, "read", now_ns=time.time_ns) as own:
            if own:
                await own.others()
                ahead, mine = own.ahead_ns, own.key
    found = [one for one in await leases_in(store, time.time_ns() - ahead) if one.key != mine]
    if unknown := [one for one in nonces if not any(_nonce(seen) == one for seen in found)]:
        raise UsageError(
            f"there is no lease {unknown[0]}",
            code="usage.no-such-lease",
            means="nothing was taken away",
            hint="`jetkeep unlock --dry-run` lists them; it may have ended meanwhile",
        )
    removed: set[str] = set()
    if dry_run:
        return found, removed, ""
    for one in found:
        if one.live and _nonce(one) not in nonces:
            continue
        try:
            await store.delete(one.key)
        except StoreError as refusal:
            if _nonce(one) in nonces:
                raise
            return found, removed, refusal.what
        removed.add(one.key)
    await store.sync()
    return found, removed, ""


def _nonce(one: Seen) -> str:
    return one.key.rpartition("-")[2].removesuffix(".json")


def _print(found: list[Seen], removed: set[str], kept: str, *, quiet: bool) -> None:
    from jetkeep.cli.render import age, say, table

    rows = []
    for one in found:
        owner = one.document.owner if one.document else None
        rows.append(
            [
                "live" if one.live else "dead",
                one.key.removeprefix("leases/").partition("-")[0],
                f"{owner.host} ({owner.pid})" if owner else "?",
                age(max(0, one.age_ns) / 1e9) + " ago",
                " ".join(one.document.labels) if one.document else "",
                _nonce(one),
                "taken away" if one.key in removed else "",
            ]
        )
    if rows:
        table(("", "purpose", "host (process)", "last renewed", "backups", "nonce", ""), rows)
    elif not quiet:
        say("nobody is at work, and nothing was left behind")
    if kept:
        say(f"dead leases stay, and harm nobody: {kept}")


def _json(found: list[Seen], removed: set[str], kept: str) -> None:
    from jetkeep.cli.render import document
    from jetkeep.repository.documents import as_dict

    document(
        "jetkeep.unlock/1",
        {
            "leases": [
                {
                    "key": one.key,
                    "nonce": _nonce(one),
                    "live": one.live,
                    "renewed_seconds_ago": max(0.0, one.age_ns / 1e9),
                    "purpose": one.key.removeprefix("leases/").partition("-")[0],
                    "owner": as_dict(one.document.owner) if one.document else None,
                    "acquired_at": one.document.acquired_at if one.document else None,
                    "labels": one.document.labels if one.document else [],
                    "removed": one.key in removed,
                }
                for one in found
            ],
            "not_removed": kept,
        },
    )
