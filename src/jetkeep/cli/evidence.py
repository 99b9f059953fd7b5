"""`jetkeep evidence`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jetkeep.cli.options import output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.evidence import Entry, Kept, Proof


@click.group("evidence")
def command() -> None:
    """What drills have found: signed documents, each with the digest of the one before, so that none can go unseen.

    \b
    Examples:
      jetkeep evidence keygen drill.key
      jetkeep evidence list --repo /backups
      jetkeep evidence show --repo /backups
      jetkeep evidence show 12 --html --repo /backups > drill-12.html
      jetkeep evidence verify --key drill.key.pub --repo /backups
    """


@command.command("list")
@repository_options
@output_options
def list_(repo: str | None, as_json: bool, quiet: bool) -> int:
    """List all drills of the repository, failed ones too. Signatures are looked at by `verify`."""
    from jetkeep.cli.render import age, document, say, seconds, table

    proof = _proved(repo, [], [], pages=False)
    if as_json:
        document("jetkeep.evidence-list/1", {"evidence": [one.to_dict() for one in proof.entries]})
        return 0
    rows = []
    for one in proof.entries:
        if (facts := one.facts) is None:
            rows.append([str(one.number), "", "DAMAGED", "", "", "", "", ""])
            continue
        signed = f"{facts.signer.key_id[:16]}…" if facts.signer else "nobody"
        when = f"{facts.finished_at[:10]} {facts.finished_at[11:16]}"
        measured = [seconds(facts.rto.seconds), age(facts.rpo.seconds)]
        rows.append([str(one.number), when, facts.verdict, facts.backup.label, facts.server.version, *measured, signed])
    if rows:
        table(("number", "ended (UTC)", "verdict", "backup", "server", "RTO", "RPO", "signed by"), rows, ("number",))
    elif not quiet:
        say("no drill was made yet: `jetkeep drill` makes one")
    return 0


@command.command("show")
@click.argument("number", default="latest", metavar="[NUMBER]")
@repository_options
@click.option("--html", "as_html", is_flag=True, help="Print the page that was stored, for a browser and a printer.")
@output_options
def show(number: str, repo: str | None, as_html: bool, as_json: bool, quiet: bool) -> int:
    """Show one drill's evidence, of the newest by default; with --json the document as it was signed."""
    from jetkeep.cli.render import say
    from jetkeep.evidence import canonical

    kept, page = _read(repo, number, as_html)
    if page is not None:
        sys.stdout.buffer.write(page)
    elif as_json:
        say(canonical.encode(kept.body).decode())
    else:
        _show(kept)
    return 0


@command.command("verify")
@repository_options
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A public key of which one must have signed every document; may be repeated.",
)
@click.option(
    "--holds",
    multiple=True,
    metavar="SHA256",
    help="The digest of a document, noted elsewhere, that must be there; may be repeated.",
)
@output_options
def verify(repo: str | None, keys: tuple[Path, ...], holds: tuple[str, ...], as_json: bool, quiet: bool) -> int:
    """Check every document, its page, its signature, and that none is missing between the first and the newest.

    Exit status 30 when something is missing or altered, is not signed, or is signed by another key. That the newest
    documents are gone shows only against a digest that was noted elsewhere: --holds.
    """
    import re
    from dataclasses import asdict

    from jetkeep.cli.render import document, say
    from jetkeep.errors import UsageError

    for digest in holds:
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise UsageError(f"'{digest}' is no SHA-256", hint="`evidence verify` prints it: 64 hex digits")
    proof = _proved(repo, keys, holds, pages=True)
    if as_json:
        body = {"sound": proof.sound, "head": _head(proof)}
        found = [asdict(one) for one in proof.findings]
        document("jetkeep.evidence-verify/1", {**body, "documents": len(proof.entries), "findings": found})
        return 0 if proof.sound else 30
    for one in proof.findings:
        if one.severity == "damage" or not quiet:
            say(f"{'DAMAGE' if one.severity == 'damage' else 'notice'} {one.kind}: {one.what}")
    whole = [one.facts for one in proof.entries if one.facts]
    failed = sum(one.verdict != "SUCCESSFUL" for one in whole)
    say(f"{'sound' if proof.sound else 'DAMAGED'}: {len(proof.entries)} documents, {failed} of them of failed drills")
    if head := _head(proof):
        say(f"newest: {head['key']}, SHA-256 {head['sha256']}")
        if not quiet:
            say("note it elsewhere: `--holds` then tells when the newest are gone")
    return 0 if proof.sound else 30


@command.command("keygen")
@click.argument("file", type=click.Path(path_type=Path))
@output_options
def keygen(file: Path, as_json: bool, quiet: bool) -> int:
    """Make an Ed25519 key: FILE signs (keep it from who may alter the repository), FILE.pub checks (give it to auditors)."""
    from jetkeep.cli.render import document, say
    from jetkeep.evidence.signing import make_keys

    key = make_keys(file)
    if as_json:
        document("jetkeep.evidence-key/1", {"file": str(file), "public_file": f"{file}.pub", "key_id": key.id})
    elif not quiet:
        say(f"{file} signs: give it to `drill --signing-key`, and to nobody who may alter the repository")
        say(f"{file}.pub checks: give it to auditors, with its id {key.id}")
    return 0


def _proved(
    repo: str | None, keys: tuple[Path, ...] | list[Path], holds: tuple[str, ...] | list[str], *, pages: bool
) -> Proof:
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_repository
    from jetkeep.evidence import prove
    from jetkeep.evidence.signing import read_public_key

    trusted = [read_public_key(one) for one in keys]

    async def operation() -> Proof:
        return await prove(await open_repository(repo), trusted, [one.lower() for one in holds], pages=pages)

    return run(operation())


def _read(repo: str | None, number: str, as_html: bool) -> tuple[Kept, bytes | None]:
    """A document, and its page if that was asked for."""
    from jetkeep.cli.running import run
    from jetkeep.cli.settings import open_repository
    from jetkeep.errors import NoObjectError, UsageError
    from jetkeep.evidence import newest, read, read_page

    async def operation() -> tuple[Kept, bytes | None]:
        repository = await open_repository(repo)
        try:
            kept = await newest(repository) if number == "latest" else await read(repository, int(number))
            page = await read_page(repository, kept) if kept and as_html else None
        except (NoObjectError, ValueError):
            kept = None
        if kept is None:
            raise UsageError(
                f"there is no evidence {number}",
                code="usage.no-evidence",
                hint="`jetkeep evidence list` lists it; `jetkeep drill` makes some",
            )
        return kept, page

    return run(operation())


def _head(proof: Proof) -> dict[str, str] | None:
    newest: Entry | None = proof.entries[-1] if proof.entries else None
    return {"key": newest.key, "sha256": newest.sha256} if newest else None


def _show(kept: Kept) -> None:
    from jetkeep.cli.render import age, say, seconds, table

    one = kept.body
    say(
        f"{one['verdict']}: drill {one['number']} ({one['drill_id']}), ended {one['finished_at'][:19].replace('T', ' ')} UTC"
    )
    say(
        f"backup {one['backup']['label']} of source {one['backup']['source']}, into nats-server {one['server']['version']}"
    )
    say(f"triggered by {one['triggered_by']}, on {one['host']}")
    for name, words in (("rto", seconds), ("rpo", age)):
        facts = one[name]
        target = "" if facts["met"] is None else f", target {words(facts['target_seconds'])}"
        say(f"{name.upper()} {words(facts['seconds'])}{target}")
    rows = []
    for stream in one["streams"]:
        expected, found = stream["expected"], stream["found"] or {}
        counts = [f"{found.get(key, 0)} of {expected[key]}" for key in ("messages", "consumers")]
        rows.append([stream["stream"], *counts, stream["verdict"]])
    if rows:
        table(("stream", "messages", "consumers", "verdict"), rows, ("messages", "consumers"))
    for failure in one["failures"]:
        say(f"FAILED: {failure}")
    if one["required_action"]:
        say(f"do: {one['required_action']}")
    signer = one["signer"]
    say(f"signature: {signer['algorithm']}, key {signer['key_id']}" if signer else "signature: none")
    say(f"next drill due {one['next_due'][:10]}; {kept.key}, SHA-256 {kept.sha256}")
