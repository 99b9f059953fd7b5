"""What opens a sealed repository: age identities from a file, a variable or a command; a passphrase from a variable."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from jetkeep.errors import UsageError

_SECRET = "AGE-SECRET-KEY-"  # noqa: S105 - how one begins
_COMMAND_S = 60


def read_identities(given: str | None, command: str | None, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The identities in a file (or in `given` itself, where a variable holds them), or that a command prints.

    Raises:
        UsageError: the file cannot be read, the command failed, or there is no identity in it. No message holds a secret.
    """
    if command:
        return _in(_printed(command, environ), "what --identity-command printed")
    if not given:
        return ()
    if given.lstrip().startswith(_SECRET):
        return _in(given, "JETKEEP_IDENTITY")
    try:
        return _in(Path(given).expanduser().read_text(encoding="utf-8"), given)
    except (OSError, UnicodeDecodeError) as failure:
        why = failure.strerror if isinstance(failure, OSError) else "it is no text"
        raise UsageError(f"cannot read the identity {given}: {why}", code="usage.identity") from None


def read_passphrase(environ: Mapping[str, str] = os.environ) -> str | None:
    """The passphrase in JETKEEP_PASSPHRASE."""
    return environ.get("JETKEEP_PASSPHRASE") or None


def new_identity(path: Path) -> str:
    """Write a new age identity to a new file, its owner's alone; its recipient. Durable on return.

    Raises:
        UsageError: the file is there, or cannot be written; nothing was overwritten.
    """
    import pyrage  # noqa: PLC0415 - only here

    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(f"# public key: {recipient}\n{identity}\n")
            opened.flush()
            os.fsync(file)
    except OSError as failure:
        hint = "give another name: keys are never overwritten" if isinstance(failure, FileExistsError) else ""
        raise UsageError(
            f"the identity {path} cannot be written: {failure.strerror}", code="usage.identity", hint=hint
        ) from None
    return recipient


def _printed(command: str, environ: Mapping[str, str]) -> str:
    try:
        words = shlex.split(command)
        done = subprocess.run(
            words, stdout=subprocess.PIPE, env=dict(environ), timeout=_COMMAND_S, check=False, text=True
        )
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as failure:
        raise UsageError(
            f"--identity-command could not be run: {type(failure).__name__}", code="usage.identity"
        ) from None
    if done.returncode:
        raise UsageError(f"--identity-command ended with status {done.returncode}", code="usage.identity")
    return done.stdout


def _in(text: str, where: str) -> tuple[str, ...]:
    if "-----BEGIN" in text:
        return (text,)
    found = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if not found:
        raise UsageError(
            f"there is no identity in {where}",
            code="usage.identity",
            hint="`jetkeep key new FILE` makes one (or age-keygen)",
        )
    return found
