"""Records of runs: what was done here lately, for who sees nothing but the repository (docs/format.md, *Runs*).

Never the truth about a backup: a record may be missing, and no restore looks at one.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from jetkeep.errors import BadDataError, NoObjectError
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import RunRecord, moment_of
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import create_surely, delete_all

#: Older records are let go by `expire`.
KEPT = timedelta(days=30)
_MAX_RECORD = 64 * 1024


class Ran(NamedTuple):
    """A run as its record's name tells it."""

    key: str
    finished: datetime
    kind: str
    outcome: str


async def record(repository: Repository, run: RunRecord) -> None:
    """Keep the record of a run; durable on return.

    Raises:
        StoreError: it could not be kept, which costs nothing but itself.
    """
    key = layout.run_key(moment_of(run.finished_at), run.kind, run.outcome, secrets.token_hex(8))
    await create_surely(repository.store, key, encoding.seal(run), durable=True)


async def runs(repository: Repository) -> list[Ran]:
    """All runs that are recorded, in the order in which they ended; one listing.

    Raises:
        StoreError: they cannot be listed.
    """
    found = [
        Ran(info.key, *told) async for info in repository.store.list(layout.RUNS) if (told := layout.run_of(info.key))
    ]
    return sorted(found, key=lambda one: (one.finished, one.key))


async def read(repository: Repository, run: Ran) -> RunRecord | None:
    """What a record says; None where it is damaged or was let go meanwhile.

    Raises:
        StoreError: the store does not answer.
    """
    with contextlib.suppress(BadDataError, NoObjectError):
        return encoding.unseal(await repository.store.read(run.key, _MAX_RECORD), run.key, RunRecord)
    return None


async def forget_old(repository: Repository, now_ns: int, check: Callable[[], None]) -> None:
    """Let go of records, and of claims of schedules, that are older than KEPT; those that the store keeps stay for now. `check` is a lease's.

    Raises:
        StoreError: the store does not answer.
    """
    before = datetime.fromtimestamp(now_ns / 1e9, UTC) - KEPT
    old = [one.key for one in await runs(repository) if one.finished < before]
    listed = [info.key async for info in repository.store.list(layout.CLAIMS)]
    old += [key for key in listed if (claim := layout.claim_of(key)) and claim[0] < before]
    await delete_all(repository.store, old, check)
