"""Laws that hold for every set of backups and every policy."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from jetkeep.retention import Candidate, Policy, decide

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
_AGES = st.integers(-3, 30) | st.integers(-3, 24 * 800)  # hours

CANDIDATES = st.lists(
    st.builds(
        lambda number, hours, minutes, **more: Candidate(
            f"b{number}", started=NOW - timedelta(hours=hours, minutes=minutes), **more
        ),
        number=st.integers(0, 10**6),
        hours=_AGES,
        minutes=st.integers(0, 59),
        source=st.sampled_from(["prod", "staging"]),
        complete=st.booleans() | st.just(True),
        selection=st.sampled_from(["", "", "ORDERS"]),
        tags=st.frozensets(st.sampled_from("ab"), max_size=1),
        pinned=st.sampled_from([None, None, None, None, "", "why"]),
    ),
    max_size=25,
    unique_by=lambda one: one.label,
)
_COUNT = st.integers(0, 6)
POLICIES = st.builds(
    Policy,
    last=_COUNT,
    hourly=_COUNT,
    daily=_COUNT,
    weekly=_COUNT,
    monthly=_COUNT,
    yearly=_COUNT,
    within=st.sampled_from(["", "", "5h", "1d", "1m", "1y2m"]),
    tags=st.sampled_from([(), (), ("a",), ("a", "b")]),
).filter(lambda policy: not policy.empty)


def kept(candidates: list[Candidate], policy: Policy) -> set[Candidate]:
    return {one.candidate for one in decide(candidates, policy, NOW) if one.keep}


def group(one: Candidate) -> tuple[str, str]:
    return one.source, one.selection


def whole(candidates: list[Candidate]) -> list[Candidate]:
    """Complete ones of the past, newest first."""
    past = [one for one in candidates if one.complete and one.started <= NOW + timedelta(hours=1)]
    return sorted(past, key=lambda one: (one.started, one.label), reverse=True)


@given(CANDIDATES, POLICIES)
def test_every_backup_is_decided_once_newest_first_with_a_reason_either_way(
    candidates: list[Candidate], policy: Policy
) -> None:
    decisions = decide(candidates, policy, NOW)
    assert sorted(one.candidate.label for one in decisions) == sorted(one.label for one in candidates)
    assert [one.candidate.started for one in decisions] == sorted((one.started for one in candidates), reverse=True)
    assert all(bool(one.reasons) != bool(one.why_not) for one in decisions)


@given(CANDIDATES, POLICIES)
def test_pins_and_the_newest_whole_backup_of_each_kind_always_stay(candidates: list[Candidate], policy: Policy) -> None:
    stay = kept(candidates, policy)
    assert {one for one in candidates if one.pinned is not None} <= stay
    for kind in {group(one) for one in candidates}:
        assert set(whole([one for one in candidates if group(one) == kind])[:1]) <= stay


@given(CANDIDATES, POLICIES, st.randoms(use_true_random=False))
def test_the_order_in_which_backups_are_listed_does_not_matter(
    candidates: list[Candidate], policy: Policy, chance: random.Random
) -> None:
    shuffled = list(candidates)
    chance.shuffle(shuffled)
    assert decide(shuffled, policy, NOW) == decide(candidates, policy, NOW)


@given(CANDIDATES, POLICIES)
def test_to_expire_twice_is_to_expire_once(candidates: list[Candidate], policy: Policy) -> None:
    stay = kept(candidates, policy)
    assert kept(list(stay), policy) == stay


@given(CANDIDATES, CANDIDATES, POLICIES)
def test_backups_of_another_source_or_selection_change_nothing(
    candidates: list[Candidate], others: list[Candidate], policy: Policy
) -> None:
    more = [replace(one, label=f"x{one.label}", source="elsewhere") for one in others]
    assert kept([*candidates, *more], policy) - set(more) == kept(candidates, policy)


@given(CANDIDATES, POLICIES, st.integers(1, 9999))
def test_an_older_backup_changes_nothing_for_newer_ones(
    candidates: list[Candidate], policy: Policy, hours: int
) -> None:
    oldest = min((one.started for one in candidates), default=NOW)
    older = Candidate("older", "prod", oldest - timedelta(hours=hours))
    assert kept([*candidates, older], policy) - {older} == kept(candidates, policy)


@given(CANDIDATES, POLICIES, st.integers(0, 59))
def test_a_newer_backup_brings_nothing_back_that_was_let_go(
    candidates: list[Candidate], policy: Policy, minutes: int
) -> None:
    past = [one for one in candidates if one.started <= NOW]
    newer = Candidate("z newer", "prod", NOW + timedelta(minutes=minutes))
    assert kept([*past, newer], policy) <= kept(past, policy) | {newer}
    assert newer in kept([*past, newer], policy)


@given(CANDIDATES, POLICIES, st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly"]))
def test_a_rule_that_keeps_more_keeps_also_what_it_kept(candidates: list[Candidate], policy: Policy, rule: str) -> None:
    more: dict[str, Any] = {rule: getattr(policy, rule) + 1}
    larger = replace(policy, **more)
    assert kept(candidates, policy) <= kept(candidates, larger)


@given(CANDIDATES, POLICIES)
def test_every_rule_keeps_as_much_alone_as_with_others(candidates: list[Candidate], policy: Policy) -> None:
    stay = kept(candidates, policy)
    for one in fields(policy):
        rule: dict[str, Any] = {one.name: getattr(policy, one.name)}
        if not (alone := Policy(**rule)).empty:
            assert kept(candidates, alone) <= stay


@given(CANDIDATES, st.integers(1, 6))
def test_last_keeps_exactly_so_many(candidates: list[Candidate], count: int) -> None:
    plain = [replace(one, pinned=None, source="prod", selection="") for one in candidates]
    assume(all(one.complete for one in plain))
    past = whole(plain)
    assert {one for one in kept(plain, Policy(last=count)) if one in past} == set(past[:count])


@given(CANDIDATES, st.integers(1, 6), st.sampled_from([("daily", "%Y-%m-%d"), ("monthly", "%Y-%m"), ("yearly", "%Y")]))
def test_a_rule_of_periods_keeps_the_newest_of_each(
    candidates: list[Candidate], count: int, rule: tuple[str, str]
) -> None:
    plain = [replace(one, pinned=None, source="prod", selection="", complete=True) for one in candidates]
    newest: dict[str, Candidate] = {}
    for one in whole(plain):
        newest.setdefault(one.started.strftime(rule[1]), one)
    expected = set(list(newest.values())[:count])
    policy: dict[str, Any] = {rule[0]: count}
    stay = kept(plain, Policy(**policy))
    assert {one for one in stay if one in whole(plain)} == expected
