"""How late one of several repositories may be."""

from __future__ import annotations

import asyncio

import pytest

from jetkeep.repository import patience
from jetkeep.repository.patience import Patience


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.4)
    monkeypatch.setattr(patience, "CALL_S", 0.1)
    monkeypatch.setattr(patience, "SLOW_LINE", 1000)


async def calls(one: Patience, count: int, takes_s: float, raw_bytes: int = 0) -> int:
    """How many of these calls, one after the other, came to their end."""
    for done in range(count):
        try:
            async with one.call(raw_bytes):
                await asyncio.sleep(takes_s)
        except TimeoutError:
            return done
    return count


async def test_a_call_without_an_end_is_given_up() -> None:
    assert await calls(Patience(), 1, 3600) == 0


async def test_being_a_little_late_each_time_adds_up() -> None:
    assert 1 < await calls(Patience(), 100, 0.2) < 12


async def test_a_fair_repository_is_waited_for_for_ever() -> None:
    assert await calls(Patience(), 30, 0.03) == 30
    assert await calls(Patience(), 3, 0.6, raw_bytes=1000) == 3


async def test_calls_beside_each_other_are_late_together_and_not_each() -> None:
    one = Patience()
    assert await asyncio.gather(*(calls(one, 1, 0.3) for _ in range(20))) == [1] * 20
    assert await calls(one, 1, 0.3) == 1
