"""Which streams are whose when several machines back up one account. Pure; docs/format.md, *Sets*, has test vectors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jetkeep.errors import UsageError

#: What Kubernetes tells each pod of an Indexed Job.
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """The share `index` of `count`; shares are counted from 0, as Kubernetes counts an Indexed Job's pods."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, streams: Iterable[str]) -> list[str]:
        """Those of the streams that are this shard's."""
        return [name for name in streams if shard_of(name, self.count) == self.index]


def shard_of(stream: str, count: int) -> int:
    """The shard that a stream belongs to: SHA-256 of the name in UTF-8, as a big-endian integer, modulo `count`."""
    return int.from_bytes(hashlib.sha256(stream.encode()).digest(), "big") % count


def shard_from(shard: str | None, shards: int | None, environ: Mapping[str, str]) -> Shard | None:
    """What `--shard i/n`, or `--shards n` with the index of an Indexed Job's pod, says; None when neither is given.

    Raises:
        UsageError: both are given, no index is known, or it is not one of the shards.
    """
    if shard is not None and shards is not None:
        raise _bad("--shard has the number of shards already", "give --shard I/N, or --shards N alone")
    if shard is not None:
        found = _SHARD.fullmatch(shard)
        if not found:
            raise _bad(f"'{shard}' is no shard", "write I/N: --shard 0/4, 1/4, 2/4 and 3/4 are all of four")
        return _checked(int(found[1]), int(found[2]))
    if shards is None:
        return None
    index = environ.get(INDEX_VARIABLE, "")
    if not (index.isascii() and index.isdigit()):
        said = f"it is '{index}'" if index else "it is not set"
        raise _bad(f"--shards needs the shard's number in {INDEX_VARIABLE}, and {said}", "or give --shard I/N")
    return _checked(int(index), shards)


def _checked(index: int, count: int) -> Shard:
    if not index < count:
        all_of = (
            f"the shards of {count} are 0/{count} to {count - 1}/{count}" if count else "there is at least one shard"
        )
        raise _bad(f"there is no shard {index}/{count}", f"shards count from 0: {all_of}")
    return Shard(index, count)


def _bad(what: str, hint: str) -> UsageError:
    return UsageError(what, code="usage.shard", means="nothing was backed up", hint=hint)
