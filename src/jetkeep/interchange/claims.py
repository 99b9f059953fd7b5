"""What a backup directory claims to hold, against what was found in it. Pure."""

from __future__ import annotations

from jetkeep.assembly.manifest import bounds
from jetkeep.assembly.segments import Assembled
from jetkeep.assembly.snapshot import Taken
from jetkeep.errors import BadDataError
from jetkeep.interchange.directory import META_FILE, StreamDirectory
from jetkeep.model import JsonDict


def check_claims(found: StreamDirectory, taken: Taken, stored: Assembled, *, accept_loss: bool) -> list[str]:
    """Compare counts and ranges of what was stored with backup.json and with the archive's own state.

    Returns:
        Notes for people; empty when all agrees.

    Raises:
        BadDataError: messages are missing (unless `accept_loss`), or what is there contradicts the claims.
    """
    _same_backup(found, taken)
    notes = _messages(found, stored, accept_loss=accept_loss)
    first, last = bounds(found.state, stored.messages)
    if stored.segments and not (first <= stored.segments[0].first_seq and stored.segments[-1].last_seq <= last):
        raise BadDataError(
            f"{found.path / found.data_file} holds messages {stored.segments[0].first_seq} to "
            f"{stored.segments[-1].last_seq}, and {META_FILE} says {first} to {last}",
            code="import.range",
            means="nothing was imported from it: the two files do not belong together",
            hint="look for another copy of this backup",
        )
    claimed = found.state.get("consumer_count", 0)
    if len(taken.consumers) != claimed:
        notes.append(
            f"the stream had {claimed} consumers when the backup was taken, and the backup holds {len(taken.consumers)}"
        )
    return notes


def _same_backup(found: StreamDirectory, taken: Taken) -> None:
    """An archive that no tool has edited repeats the state that is in backup.json."""
    if taken.state is None or found.provenance:
        return
    for key in ("messages", "first_seq", "last_seq"):
        ours, theirs = found.state.get(key, 0), taken.state.get(key, 0)
        if ours != theirs:
            raise BadDataError(
                f"{META_FILE} in {found.path} says {key} {ours}, and the archive beside it {theirs}",
                code="import.mixed",
                means="nothing was imported from it: the two files come from different backups",
                hint="look for another copy of this backup",
            )


def _messages(found: StreamDirectory, stored: Assembled, *, accept_loss: bool) -> list[str]:
    claimed, held = found.state.get("messages", 0), stored.messages
    # Tools that edit an archive in one pass leave its counts at 0.
    if held == claimed or (found.provenance and claimed == 0):
        return []
    words = f"{found.path / found.data_file} holds {held} messages, and {META_FILE} says {claimed}"
    if held > claimed:
        raise BadDataError(
            words,
            code="import.count",
            means="nothing was imported from it: the two files do not belong together",
            hint="look for another copy of this backup",
        )
    if not accept_loss:
        raise BadDataError(
            words,
            code="import.count",
            means=f"{claimed - held} messages are not in this backup; nothing was imported from it",
            hint="take the backup again; if users or limits removed messages while it was taken, import it with "
            "`--accept-loss`",
        )
    return [f"{claimed - held} of the {claimed} messages that {META_FILE} claims are not in the backup; accepted"]


def server_version(config: JsonDict) -> str:
    """The version of the server that wrote the configuration, where it says so; else empty."""
    metadata = config.get("metadata")
    version = metadata.get("_nats.ver") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""
