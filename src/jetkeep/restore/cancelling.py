"""Work that a cancelled task still brings to its end: a request whose outcome must be known, a clean-up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` even when this task is cancelled meanwhile; the cancellation goes on afterwards.

    The work must bound its own time.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as asked:
            cancelled = asked
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at: nobody else will
        raise cancelled
    return task.result()
