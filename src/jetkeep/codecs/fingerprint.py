"""The fingerprint of a set of messages (docs/format.md, *Fingerprint*)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from xxhash import xxh3_128_digest, xxh3_128_intdigest

from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.kernels import _xxh3
from jetkeep.errors import BadDataError
from jetkeep.model import Message

_MODULUS = 1 << 128
_HEX = re.compile(r"[0-9a-f]{32}")


def message_hash(message: Message) -> int:
    """The 128-bit hash of one message; a fingerprint is the sum of these."""
    head = struct.pack("<QqII", message.seq, message.ts, len(message.subject), len(message.headers))
    return xxh3_128_intdigest(head + message.subject + message.headers + xxh3_128_digest(message.payload))


@dataclass(slots=True, eq=True)
class Fingerprint:
    """A running sum of hashes, and of how many messages; sums of parts add up to the sum of the whole, in any order."""

    value: int = 0
    count: int = 0

    @classmethod
    def of(cls, batch: MessageBatch) -> Fingerprint:
        """The fingerprint of one batch."""
        made = cls()
        made.update(batch)
        return made

    @classmethod
    def of_hex(cls, text: str, count: int) -> Fingerprint:
        """A fingerprint as it was written, of so many messages.

        Raises:
            BadDataError: the text is not 32 lower-case hex digits.
        """
        if not _HEX.fullmatch(text):
            raise BadDataError(
                f"{text[:40]!r} is not a fingerprint of 32 lower-case hex digits",
                code="data.fingerprint",
                means="the document that holds it cannot be used",
                hint="run `jetkeep verify`",
            )
        return cls(int(text, 16), count)

    def update(self, batch: MessageBatch) -> None:
        """Add the messages of a batch; runs without the GIL where kernels are compiled."""
        added = _xxh3.fingerprint(
            batch.seq,
            batch.ts,
            batch.subject_offsets,
            batch.subjects,
            batch.header_offsets,
            batch.headers,
            batch.payload_offsets,
            batch.payloads,
        )
        assert added >= 0, "a batch's offsets lie inside its columns"
        self.value = (self.value + added) % _MODULUS
        self.count += batch.count

    def __add__(self, other: Fingerprint) -> Fingerprint:
        return Fingerprint((self.value + other.value) % _MODULUS, self.count + other.count)

    def __sub__(self, other: Fingerprint) -> Fingerprint:
        """The fingerprint without the messages of `other`, all of which must be in this one."""
        return Fingerprint((self.value - other.value) % _MODULUS, self.count - other.count)

    def hex(self) -> str:
        """The sum as 32 lower-case hex digits; the count is not in it."""
        return f"{self.value:032x}"
