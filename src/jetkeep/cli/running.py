"""Run one operation to its end, or stop it cleanly when a signal says so."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from jetkeep.cli.allocator import settle_allocator
from jetkeep.errors import InterruptedRunError, JetkeepError

T = TypeVar("T")


def run(operation: Coroutine[Any, Any, T]) -> T:
    """Run `operation`; SIGINT and SIGTERM cancel it, so that it cleans up what is its own.

    Raises:
        InterruptedRunError: a signal stopped it.
        JetkeepError: what the operation raised; the first one when several tasks failed at once.
    """
    settle_allocator()
    return asyncio.run(_guarded(operation))


async def _guarded(operation: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(operation)
    caught: list[signal.Signals] = []

    def stop(name: signal.Signals) -> None:
        caught.append(name)
        task.cancel()

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop, name)
    try:
        return await task
    except asyncio.CancelledError:
        if not caught:
            raise
        raise InterruptedRunError(
            f"stopped by {caught[0].name}",
            means="finished backups are untouched; this run committed nothing after the signal",
            hint="run the command again",
        ) from None
    except BaseExceptionGroup as group:
        first = _first(group)
        if first is None:
            raise
        raise first from None
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)


def _first(group: BaseExceptionGroup[BaseException]) -> JetkeepError | None:
    for inner in group.exceptions:
        if isinstance(inner, JetkeepError):
            return inner
        if isinstance(inner, BaseExceptionGroup) and (found := _first(inner)):
            return found
    return None
