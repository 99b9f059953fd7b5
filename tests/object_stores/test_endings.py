"""Commands that used an object store end with their own status, every time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter

import pytest

from jetkeep.repository.address import store_at
from tests.object_stores.seaweed import Bucket
from tests.repositories import new_repository, some_streams, take

PROCESSES, TURNS = 6, 12


async def prepare(url: str) -> None:
    await take(await new_repository(store_at(url)), "one", some_streams())


@pytest.mark.slow
def test_no_process_is_aborted_when_it_ends(bucket: Bucket) -> None:
    """The client's threads outlive the last request; taking the interpreter down under them aborted four in a hundred."""
    asyncio.run(prepare(bucket.url))
    found: Counter[int] = Counter()
    command = [sys.executable, "-m", "jetkeep", "info", "--repo", bucket.url]
    for _ in range(TURNS):
        running = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(PROCESSES)
        ]
        found.update(process.wait(60) for process in running)
    assert found == {0: PROCESSES * TURNS}
