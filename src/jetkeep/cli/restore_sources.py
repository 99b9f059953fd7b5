"""`jetkeep restore --all-sources`: each part of a set back into the account that the configuration names for it."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jetkeep.errors import JetkeepError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetkeep.config import ConnectionSettings
    from jetkeep.jetstream import JetStream
    from jetkeep.repository.documents import Manifest
    from jetkeep.repository.repository import Repository
    from jetkeep.repository.sets import RestorePoint
    from jetkeep.restore.decisions import Plan, RestoreOptions
    from jetkeep.restore.report import RestoreReport


@dataclass(slots=True)
class Account:
    """What goes to one source, and what became of it."""

    source: str
    settings: ConnectionSettings
    manifests: list[Manifest]
    plan: Plan | None = None
    report: RestoreReport | None = None
    error: JetkeepError | None = None

    @property
    def status(self) -> int:
        """Its exit status alone."""
        from jetkeep.cli.restore import status_of

        if self.error:
            return self.error.exit_status
        if self.report:
            return status_of(self.report)
        return 40 if self.plan and self.plan.refusals else 0


async def restore_all(
    repository: Repository,
    point: RestorePoint,
    exclude: Sequence[str],
    options: RestoreOptions,
    *,
    dry_run: bool,
    quiet: bool,
) -> list[Account]:
    """Plan all accounts, then restore each; nothing is changed anywhere while one of the plans has a refusal.

    Raises:
        UsageError: the configuration lacks a source of the set.
        ServerError: an account cannot be reached, and nothing was changed.
        CannotRestoreError: a plan has refusals, and nothing was changed.
    """
    from jetkeep.catalog import reading
    from jetkeep.cli.progress import progress
    from jetkeep.jetstream import connect
    from jetkeep.restore.run import plan_restore, restore

    tables = _settings_of(point)
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(reading(repository, *point.backups, now_ns=time.time_ns))
        accounts = [await _account(repository, point, one, tables[one], exclude) for one in tables]
        connections: list[JetStream] = []
        with progress(quiet) as emit:
            for one in accounts:
                connections.append(await stack.enter_async_context(connect(one.settings)))
                planning = plan_restore(
                    repository, connections[-1], one.manifests, options, now_ns=time.time_ns, emit=emit
                )
                one.plan = (await planning)[0]
            if dry_run:
                return accounts
            for one in accounts:
                assert one.plan
                one.plan.check()
            for one, js in zip(accounts, connections, strict=True):
                try:
                    one.report = await restore(repository, js, one.manifests, options, emit=emit, held=held)
                except JetkeepError as failure:
                    one.error = failure  # the other accounts are not worse off for it
    return accounts


def _settings_of(point: RestorePoint) -> dict[str, ConnectionSettings]:
    from jetkeep.cli.settings import configuration
    from jetkeep.config.sources import source_settings

    tables = configuration().sources
    if missing := [one for one in point.sources if one not in tables]:
        raise UsageError(
            f"the configuration does not say where {missing[0]} is, and {point.label} has streams of it",
            code="usage.all-sources",
            means="nothing was restored",
            hint=f"write a [sources.{missing[0]}] table, or restore one account by its flags and --source",
        )
    return {one: source_settings(tables[one]) for one in point.sources}


async def _account(
    repository: Repository, point: RestorePoint, source: str, settings: ConnectionSettings, exclude: Sequence[str]
) -> Account:
    from jetkeep.catalog import choose_streams

    own = point.of(source)
    chosen = await choose_streams(repository, own, (), exclude) if own else []
    return Account(source, settings, [one.manifest for one in chosen])


def print_all(accounts: list[Account], label: str) -> None:
    """For people."""
    from jetkeep.cli.render import say
    from jetkeep.cli.restore import print_plan, print_report

    for one in accounts:
        say(f"{one.source}, to {one.settings.where}:")
        if one.error:
            say(f"FAILED: {one.error.what}  [{one.error.code}]")
            if one.error.hint:
                say(f"  do: {one.error.hint}")
        elif one.report:
            print_report(one.report, label)
        elif one.plan:
            print_plan(one.plan, label)
        say()
    good = sum(not one.status for one in accounts)
    done = "can be restored" if all(one.report is None and not one.error for one in accounts) else "restored"
    say(f"{label}: {good} of {len(accounts)} accounts {done}")


def print_all_json(accounts: list[Account], label: str) -> None:
    """For scripts."""
    from jetkeep.cli.render import document

    def fields(one: Account) -> dict[str, Any]:
        told: dict[str, Any] = {"source": one.source, "server": one.settings.where}
        if one.error:
            return told | {"error": one.error.to_dict()}
        found = one.report or one.plan
        return told | (found.to_dict() if found else {})

    planned = all(one.report is None and not one.error for one in accounts)
    kind = "jetkeep.plan-set/1" if planned else "jetkeep.restore-set/1"
    document(kind, {"label": label, "accounts": [fields(one) for one in accounts]})
