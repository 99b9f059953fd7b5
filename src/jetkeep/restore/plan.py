"""The plan of a restore: which streams, in which order, by which writer, what will differ, what would be lost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jetkeep.errors import UsageError
from jetkeep.model import JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.restore import checks
from jetkeep.restore.decisions import Loss, Plan, Refusal, RestoreOptions, Step
from jetkeep.restore.forecast import Forecast
from jetkeep.restore.order import in_order
from jetkeep.restore.prepare import Draft, draft, stored_forecast
from jetkeep.restore.sources import resume_sources
from jetkeep.restore.target import Target

__all__ = ["Plan", "RestoreOptions", "Step", "drafts", "make_plan"]


def drafts(manifests: Sequence[Manifest], target: Target, options: RestoreOptions, now_ns: int) -> list[Draft]:
    """The first half: one draft a stream. Messages of those with a `scan` are to be counted before `make_plan`.

    Raises:
        UsageError: one name was given for several streams.
    """
    if options.as_name and len(manifests) != 1:
        raise UsageError(
            f"--as {options.as_name} names one stream, and {len(manifests)} are to be restored",
            code="usage.as-many",
            hint="name the one stream to restore",
        )
    return [draft(one, target, options, now_ns) for one in manifests]


def make_plan(
    drafted: Sequence[Draft],
    forecasts: Mapping[str, Forecast],
    target: Target,
    options: RestoreOptions,
    *,
    now_ns: int,
    own_claims: frozenset[str] = frozenset(),
    ends: Mapping[str, int] | None = None,
) -> Plan:
    """The whole plan.

    Args:
        drafted: from `drafts`.
        forecasts: by stream name, for those whose messages were counted.
        target: the server.
        options: what was asked for.
        now_ns: the moment for which losses are forecast, ns since the epoch.
        own_claims: claims of unfinished restores of this repository whose run is dead: they are removed.
        ends: last sequences of the streams in the same backup.
    """
    existing = {
        name: one.config for name, one in target.streams.items() if one.claim not in own_claims or not one.claim
    }
    planned = {one.name: one for one in drafted}
    known_ends = {name: one.last_seq for name, one in target.streams.items() if not one.claim} | dict(ends or {})
    steps = []
    for name, after in in_order({name: one.config for name, one in planned.items()}):
        one = planned[name]
        forecast = forecasts.get(one.manifest.stream) or stored_forecast(one, now_ns)
        if name in existing and options.if_exists == "skip" and not target.streams[name].claim:
            steps.append(_skipped(one, forecast))
            continue
        others = existing | {key: other.config for key, other in planned.items() if key != name}
        steps.append(_step(one, forecast, others, after, target, options, known_ends, own_claims))
    notices = _too_many(steps, target)
    return Plan(target.version_text, now_ns, tuple(steps), options.accept_loss, notices)


def _step(
    one: Draft,
    forecast: Forecast,
    others: Mapping[str, JsonDict],
    after: tuple[str, ...],
    target: Target,
    options: RestoreOptions,
    ends: Mapping[str, int],
    own_claims: frozenset[str],
) -> Step:
    config, resumed = resume_sources(one.config, one.manifest.last_seq, forecast, ends)
    leftover = one.name in target.streams and target.streams[one.name].claim in own_claims
    refusals = checks.refusals(one, target, options, leftover)
    losses = checks.losses(one, forecast)
    if catcher := checks.catches_all(one, others):
        hint = f"{catcher} listens to every subject: restore to another account"
        refusals.append(Refusal("restore.overlap", f"stream {catcher} would store what is published here", hint))
    elif taken := checks.overlaps(one, others):
        names = ", ".join(f"{subject} (stream {other})" for subject, other in sorted(taken.items()))
        why = f"another stream has {names}: no server takes both, so this one is opened without"
        losses.append(Loss("overlap", len(taken), "subjects", why))
        config = checks.without_subjects(config, taken)
    followers = checks.downstream(one, target.streams)
    return Step(
        one.manifest,
        one.name,
        "restore",
        one.writer,
        one.reason,
        config,
        one.consumers,
        forecast,
        one.rules,
        after,
        leftover,
        tuple(checks.differences(one, forecast, target) + resumed + followers),
        tuple(losses),
        tuple(refusals),
    )


def _skipped(one: Draft, forecast: Forecast) -> Step:
    why = f"{one.name} exists at the target (--if-exists skip)"
    return Step(one.manifest, one.name, "skip", one.writer, why, one.config, one.consumers, forecast, one.rules)


def _too_many(steps: list[Step], target: Target) -> tuple[str, ...]:
    new = sum(1 for step in steps if step.action == "restore")
    limit = int(target.limits(1).get("max_streams", -1))
    have = int(target.account.get("streams", len(target.streams)))
    if not 0 <= limit < have + new or not new:
        return ()
    what = f"the account may have {limit} streams and has {have}; {new} more are to be restored"
    at = next(at for at, step in enumerate(steps) if step.action == "restore")
    refusal = Refusal("restore.account-limit", what, "raise the account's limit, or restore fewer streams")
    steps[at] = replace(steps[at], refusals=(*steps[at].refusals, refusal))
    return (what,)
