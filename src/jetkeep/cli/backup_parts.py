"""`jetkeep backup` with sources of the configuration, shards and files."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jetkeep.errors import UsageError

if TYPE_CHECKING:
    from jetkeep.capture.run import BackupOptions
    from jetkeep.capture.sharding import Shard
    from jetkeep.capture.sources import PartReport, SetReport, Source
    from jetkeep.cli.recording import Recording
    from jetkeep.config.file import SourceTable
    from jetkeep.repository.fanout import FanOut


def chosen_shard(shard: str | None, shards: int | None, label: str | None) -> Shard | None:
    """The share of this machine; None takes all streams.

    Raises:
        UsageError: there is no such shard, or the set that it is part of has no name.
    """
    from jetkeep.capture.sharding import shard_from

    found = shard_from(shard, shards, os.environ)
    if found and not label:
        raise UsageError(
            "a shard needs the label of the set that it is part of",
            code="usage.shard",
            means="nothing was backed up",
            hint="give all shards of one run the same --label",
        )
    return found


def chosen_source(name: str | None, options: BackupOptions, connection: dict[str, Any]) -> list[Source]:
    """The one account of this command line: of the configuration when `--source` is there, else of flags and context."""
    from jetkeep.capture.sources import Source
    from jetkeep.cli.settings import configuration, server_settings

    table = configuration().sources.get(name or "")
    if name and table and not connection:
        return [_configured(name, table, options)]
    settings = server_settings(connection)
    return [Source(lambda: settings, replace(options, source=name or settings.context or "nats"))]


def chosen_sources(name: str | None, options: BackupOptions, connection: dict[str, Any]) -> list[Source]:
    """Every source of the configuration.

    Raises:
        UsageError: there is none, or a flag is given that is a source's own.
    """
    from jetkeep.cli.settings import configuration

    if name or connection or options.include or options.exclude:
        raise UsageError(
            "--all-sources takes servers and streams from the configuration",
            code="usage.all-sources",
            means="nothing was backed up",
            hint="leave streams, --exclude, --source and flags of the connection away, or back up one account by them",
        )
    tables = configuration().sources
    if not tables:
        raise UsageError(
            "the configuration has no sources",
            code="usage.all-sources",
            means="nothing was backed up",
            hint="write [sources.NAME] tables, and name the file by --config or JETKEEP_CONFIG",
        )
    return [_configured(one, table, options) for one, table in tables.items()]


def _configured(name: str, table: SourceTable, options: BackupOptions) -> Source:
    from jetkeep.capture.sources import Source
    from jetkeep.config.sources import source_settings

    own = replace(
        options,
        source=name,
        include=options.include or tuple(table.streams),
        exclude=options.exclude or tuple(table.exclude),
        files=(*table.include_files, *options.files),
    )
    return Source(lambda: source_settings(table), own)


async def refuse_unsealed(repo: str | None, force: bool) -> None:
    """Files hold keys: they go into a sealed repository, or somebody says that they shall not. Nothing is created.

    Raises:
        UsageError: a repository is not sealed, or would not be once it is created, and that was not forced.
    """
    from jetkeep.cli.settings import configuration, open_repository, recipients_of, store_of
    from jetkeep.errors import JetkeepError, NoRepositoryError
    from jetkeep.repository import refusals

    if force:
        return
    names: list[str | None] = [repo] if repo else [*configuration().repositories]
    for name in names or [None]:
        try:
            sealed = (await open_repository(name, read=False)).sealed
        except NoRepositoryError:
            sealed = bool(recipients_of(name))
        except JetkeepError:
            continue  # it will take no part, and say so
        if not sealed:
            raise refusals.files_unsealed(store_of(name).url)


async def back_up_parts(
    repo: str | None, sources: list[Source], label: str | None, shard: Shard | None, force_unsealed: bool, quiet: bool
) -> SetReport:
    """Take the sources' parts of a set, and bring other repositories what they missed."""
    from jetkeep.capture.sources import back_up_set
    from jetkeep.cli.backup import catch_up
    from jetkeep.cli.progress import progress
    from jetkeep.cli.settings import open_all

    async def into() -> FanOut:
        if any(one.options.files for one in sources):
            await refuse_unsealed(repo, force_unsealed)
        return await open_all(repo)

    with progress(quiet) as emit:
        report = await back_up_set(sources, label, shard, into, emit=emit, now_ns=time.time_ns)
    taken = [one.report for one in report.parts if one.report]
    if taken:
        await catch_up(taken[-1], quiet)
    return report


def note_set(recording: Recording, report: SetReport) -> None:
    """What the record of the run tells."""
    from jetkeep.cli.backup import note_backup

    recording.facts.label = report.label
    taken = [one.report for one in report.parts if one.report]
    for one in taken:
        note_backup(recording, one)
    if taken:
        recording.works_on(*taken[-1].into.opened)
    recording.ended(status_of(report), partial=bool(status_of(report)))


def status_of(report: SetReport) -> int:
    """0 when every part that was asked for is there and complete in every required repository, else 3."""
    missed = any(member.required for one in report.parts if one.report for member in one.report.into.missed)
    return 3 if missed or not all(one.good for one in report.parts) else 0


def print_set(report: SetReport) -> None:
    """For people."""
    from jetkeep.cli.backup import print_report
    from jetkeep.cli.render import say
    from jetkeep.cli.sets import say_lost

    for one in report.parts:
        if one.report:
            print_report(one.report)
        elif one.there:
            say(f"part {one.part} is there already: backup {one.there.label}; nothing was read again")
        elif one.error:
            say(f"part {one.part}: FAILED: {one.error.what}  [{one.error.code}]")
            if one.error.hint:
                say(f"  do: {one.error.hint}")
        say()
    if point := report.point:
        say(f"set {point.label}: {point.status}, {len(point.backups)} of {len(point.parts)} parts are there")
        say_lost(point)


def print_set_json(report: SetReport) -> None:
    """For scripts."""
    from jetkeep.cli.render import document
    from jetkeep.cli.sets import set_document

    point = set_document(report.point) if report.point else {"label": report.label, "status": "incomplete"}
    document("jetkeep.backup-set/1", {**point, "taken": [_part(one) for one in report.parts]})


def _part(one: PartReport) -> dict[str, Any]:
    from jetkeep.cli.backup import fields_of

    if one.report:
        return {"part": one.part, "status": one.report.backup.status, "backup": fields_of(one.report)}
    if one.there:
        return {"part": one.part, "status": "there", "label": one.there.label}
    return {"part": one.part, "status": "failed", "error": one.error.to_dict() if one.error else None}
