"""Whether what reading a stream gave can be all of it. Pure."""

from __future__ import annotations

from jetkeep.errors import BadDataError
from jetkeep.model import JsonDict


def account_for(stream: str, before: JsonDict, read: int, after: JsonDict | None) -> list[str]:
    """Explain a difference between the messages that the state promised and those that were read.

    Args:
        stream: its name, for the words.
        before: the state at the moment of reading.
        read: how many live messages were read.
        after: the state once all was read, None when the stream is gone by then or was created anew.

    Returns:
        Notes for people; empty when the numbers agree.

    Raises:
        BadDataError: more is missing than users and limits can have removed meanwhile, or there is more than there
            can be. This is what finds the archive that holds no message.
    """
    promised = int(before.get("messages", 0))
    if read == promised:
        return []
    if read > promised or after is None:
        raise _short(
            stream,
            promised,
            read,
            "the stream is not there any more to explain it" if read < promised else "",
        )
    published = int(after.get("last_seq", 0)) - int(before.get("last_seq", 0))
    removed = promised + published - int(after.get("messages", 0))
    if promised - read > removed:
        raise _short(stream, promised, read, f"at most {max(removed, 0)} can have been removed meanwhile")
    return [f"{promised - read} of {promised} messages were removed by users or limits while the stream was read"]


def _short(stream: str, promised: int, read: int, why: str) -> BadDataError:
    return BadDataError(
        f"the server said that {stream} holds {promised} messages and gave {read}" + (f"; {why}" if why else ""),
        code="data.count",
        means="this stream was not backed up in this run; earlier backups of it are untouched",
        hint="run the backup again; if it repeats, look at the server's log and at `nats stream info`",
    )
