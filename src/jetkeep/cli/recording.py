"""Keep a record of a run in the repositories that it worked on, whatever became of it (docs/format.md, *Runs*)."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from jetkeep.errors import AccessDeniedError, JetkeepError

if TYPE_CHECKING:
    from jetkeep.repository.documents import RunRecord
    from jetkeep.repository.repository import Repository

#: No run waits longer for its record than that, in seconds.
_PATIENCE_S = 8.0


class Recording:
    """A run that is to be recorded: `facts` are set while it goes on.

    Attributes:
        facts: the record.
        quiet: nothing is said of a record that could not be kept.
    """

    def __init__(self, facts: RunRecord, quiet: bool) -> None:
        self.facts, self.quiet = facts, quiet
        self._where: list[Repository] = []

    def works_on(self, *repositories: Repository) -> None:
        """Where the record is kept; nowhere else once that was called."""
        self._where += repositories

    def ended(self, exit_status: int, *, partial: bool = False) -> None:
        """How it ended: with this status, and as `partial` where some of what was asked for was done."""
        self.facts.exit_status = exit_status
        self.facts.outcome = "partial" if partial else "failure" if exit_status else "success"

    def failed(self, failure: JetkeepError) -> None:
        """It ended with this error."""
        self.ended(failure.exit_status)
        self.facts.error = failure.code

    async def keep(self, names: Sequence[str | None]) -> None:
        """Write the record, and tell whom the configuration names.

        Where no repository was opened, the record goes into those of these names that are there.
        """
        from jetkeep.cli.progress import notices
        from jetkeep.cli.settings import configuration
        from jetkeep.notify import tell
        from jetkeep.repository.leases import rfc3339

        self.facts.finished_at = rfc3339(time.time_ns())
        config = configuration()
        before = await asyncio.gather(*(self._into(one, bool(config.notifications)) for one in self._where or names))
        if config.heartbeat or config.notifications:
            known = next((one for one in before if one), None)
            for one in await tell(config, self.facts, known):
                notices(self.quiet)(f"{one.name} was not told of this run: {one.why}")

    async def _into(self, where: Repository | str | None, look_back: bool) -> str | None:
        """Write it there; with `look_back` the outcome of the run of this kind before."""
        from jetkeep.cli.progress import notices
        from jetkeep.cli.settings import open_repository
        from jetkeep.repository import runs

        before = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                opened = await open_repository(where, read=False) if where is None or isinstance(where, str) else where
                if look_back:
                    earlier = [one.outcome for one in await runs.runs(opened) if one.kind == self.facts.kind]
                    before = earlier[-1] if earlier else None
                await runs.record(opened, self.facts)
        except AccessDeniedError:
            pass  # who may only read has said so by its credentials
        except (JetkeepError, TimeoutError) as failure:
            # Where nothing could be opened, the run itself has said why.
            if self._where:
                what = failure.what if isinstance(failure, JetkeepError) else "the store did not answer"
                notices(self.quiet)(f"no record of this run could be kept: {what}")
        return before


@asynccontextmanager
async def recorded(
    kind: str, names: Sequence[str | None], *, source: str = "", quiet: bool = False, dry_run: bool = False
) -> AsyncIterator[Recording]:
    """Record the run that is the block: with what it set, or with the error that ended it.

    Args:
        kind: the command.
        names: the repositories that it is about (None: the configured one, or JETKEEP_REPO), for a run that fails before
            it could open one.
        source: of a backup, its source.
        quiet: say nothing of a record that could not be kept.
        dry_run: keep none.
    """
    from jetkeep import __version__
    from jetkeep.cli.metrics import publish
    from jetkeep.repository.documents import RunRecord
    from jetkeep.repository.leases import rfc3339

    began = rfc3339(time.time_ns())
    facts = RunRecord(
        kind=kind,
        outcome="success",
        started_at=began,
        finished_at=began,
        host=platform.node(),
        tool=f"jetkeep {__version__}",
        source=source,
    )
    recording = Recording(facts, quiet)
    try:
        yield recording
    except BaseException as failure:
        error = _error_of(failure)
        if error:
            recording.failed(error)
        else:
            recording.ended(130 if isinstance(failure, asyncio.CancelledError) else 1)
            facts.error = "interrupted" if isinstance(failure, asyncio.CancelledError) else "bug"
        if not dry_run and not _of_usage(error):
            with contextlib.suppress(asyncio.CancelledError):
                await recording.keep(names)
                await publish(quiet)
        raise
    if not dry_run:
        await recording.keep(names)
        await publish(quiet)


def _of_usage(error: JetkeepError | None) -> bool:
    """A command line that was refused is no run."""
    return error is not None and error.exit_status == 2


def _error_of(failure: BaseException) -> JetkeepError | None:
    if isinstance(failure, JetkeepError):
        return failure
    if isinstance(failure, BaseExceptionGroup):
        return next((found for one in failure.exceptions if (found := _error_of(one))), None)
    return None
