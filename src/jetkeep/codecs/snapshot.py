"""A server's snapshot in either form: S2 frames in, events out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from jetkeep.codecs.archive import ArchiveDecoder
from jetkeep.codecs.msgblock import TarDecoder
from jetkeep.codecs.s2 import S2Decoder
from jetkeep.codecs.snapshot_events import SnapshotEvent
from jetkeep.errors import BadDataError

MAGIC = b"NATSARC1"

#: The archive of servers from 2.15, or the tar of blocks of the servers before.
Form = Literal["archive", "tar"]


class SnapshotDecoder:
    """S2 frames of either snapshot form in, events out. `close` must be called: it finds what is missing.

    `form` is the form that is expected; None takes either, as a server may send what its version says. `messages` is
    how many live messages there must be, where that is known: see `TarDecoder`.
    """

    def __init__(self, stream: str, last_seq: int, *, form: Form | None = None, messages: int | None = None) -> None:
        self._s2 = S2Decoder()
        self._stream = stream
        self._last_seq = last_seq
        self._form = form
        self._messages = messages
        self._inner: ArchiveDecoder | TarDecoder | None = None
        self._head = b""

    @property
    def created(self) -> str | None:
        """When the stream was created (RFC 3339), once the bytes have told; archives never do."""
        return self._inner.created if isinstance(self._inner, TarDecoder) else None

    def feed(self, received: bytes | bytearray) -> Iterator[SnapshotEvent]:
        """Decode what was received; raises BadDataError at the first byte that is wrong."""
        for decoded in self._s2.feed(received):
            if self._inner is None:
                self._head += bytes(decoded)
                if len(self._head) < len(MAGIC):
                    continue
                self._inner = self._sniff()
                decoded, self._head = self._head, b""  # noqa: PLW2901 - what was held back comes first
            yield from self._inner.feed(decoded)

    def close(self) -> Iterator[SnapshotEvent]:
        """The end of the bytes: give the last events, or say what is missing."""
        self._s2.close()
        if self._inner is None:
            raise BadDataError(
                f"the snapshot of {self._stream} held {len(self._head)} bytes, which is no snapshot",
                code="data.snapshot-empty",
                means="nothing of this stream was stored in this run",
                hint="look at the server's log for the stream's name, and run the backup again",
            )
        yield from self._inner.close()

    def _sniff(self) -> ArchiveDecoder | TarDecoder:
        form: Form = "archive" if self._head.startswith(MAGIC) else "tar"
        if self._form not in (None, form):
            raise BadDataError(
                f"the snapshot of {self._stream} is of the form {form} under the name of the form {self._form}",
                code="data.snapshot-form",
                means="files of two backups may have been mixed; nothing of it was used",
                hint="look for another copy of this backup; "
                "stream.arc.s2 holds what servers from 2.15 send, stream.tar.s2 what those before send",
            )
        if form == "archive":
            return ArchiveDecoder()
        return TarDecoder(self._stream, self._last_seq, messages=self._messages)
