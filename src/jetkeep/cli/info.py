"""`jetkeep info`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from jetkeep.cli.options import identity_options, output_options, repository_options

if TYPE_CHECKING:
    from jetkeep.cli.lagging import OtherState
    from jetkeep.repository.documents import Backup, Manifest, Pin
    from jetkeep.repository.repository import Damage, Repository
    from jetkeep.repository.sets import RestorePoint


@click.command("info")
@click.argument("label", required=False)
@repository_options
@identity_options
@click.option("--stream", metavar="NAME", help="Only backups that have this stream.")
@output_options
def command(label: str | None, repo: str | None, stream: str | None, as_json: bool, quiet: bool) -> int:
    """Show the repository's backups, or one of them with its streams, gaps and notes.

    \b
    Examples:
      jetkeep info --repo /backups
      jetkeep info 20261123-131500 --repo /backups
      jetkeep info latest --repo /backups --json
    """
    from jetkeep.cli.running import run

    status = run(_show(repo, label, stream, as_json))
    del quiet
    return status


async def _show(repo: str | None, label: str | None, stream: str | None, as_json: bool) -> int:
    from jetkeep.cli.lagging import other_states, point_elsewhere
    from jetkeep.cli.settings import open_repository
    from jetkeep.errors import NoRepositoryError
    from jetkeep.repository.pins import pins as repository_pins
    from jetkeep.repository.sets import restore_points

    try:
        repository = await open_repository(repo)
    except NoRepositoryError as absent:
        raise absent if repo else await point_elsewhere(absent) from None
    pins = await repository_pins(repository)
    if label is not None:
        return await _of_label(repository, label, stream, pins, as_json)
    backups, damage = await repository.backups()
    sets = [point for point in restore_points(backups) if point.parts]
    if stream:
        backups = [one for one in backups if one.stream(stream)]
        sets = [point for point in sets if any(one.stream(stream) for one in point.backups)]
    others = [] if repo or stream else await other_states(backups)
    show = _all_json if as_json else _all
    show(repository, backups, sets, damage, pins, others)
    return 30 if damage else 0


async def _of_label(repository: Repository, label: str, stream: str | None, pins: dict[str, Pin], as_json: bool) -> int:
    from jetkeep.catalog import choose_streams, find_point
    from jetkeep.cli.render import document, say
    from jetkeep.cli.sets import say_lost, set_document

    point = await find_point(repository, label, lacking=True)
    shown = []
    for backup in point.backups:
        if stream and point.parts and not backup.stream(stream):
            continue
        chosen = await choose_streams(repository, backup, [stream] if stream else []) if repository.readable else []
        shown.append((backup, {one.entry.name: one.manifest for one in chosen}))
    if not (repository.readable or as_json):
        say("encrypted, and no identity was given: notes and the reasons of gaps are not shown (--identity)")
    if not point.parts:
        _one_json(*shown[0], pins) if as_json else _one(*shown[0], pins)
        return 0
    if as_json:
        parts = [_one_fields(backup, manifests, pins) for backup, manifests in shown]
        document("jetkeep.info-set/1", {**set_document(point), "backups": parts})
        return 0
    say(f"set {point.label}: {point.status}, {len(point.backups)} of {len(point.parts)} parts")
    say_lost(point)
    for backup, manifests in shown:
        say()
        _one(backup, manifests, pins)
    return 0


def _all(
    repository: Repository,
    backups: list[Backup],
    sets: list[RestorePoint],
    damage: list[Damage],
    pins: dict[str, Pin],
    others: list[OtherState],
) -> None:
    from jetkeep.cli.render import age, say, size, table

    kind = "encrypted" if repository.sealed else "not encrypted"
    say(f"repository {repository.id[:12]} at {repository.url} (format 1, {kind})")
    if not backups:
        say("no backup yet: `jetkeep backup`")
    else:
        rows = []
        for backup in backups:
            whole = [entry for entry in backup.streams if entry.status == "complete"]
            marks = [*(["pinned"] if backup.label in pins else []), *backup.tags, *_marks(backup)]
            rows.append(
                [
                    backup.label,
                    backup.source,
                    backup.status,
                    f"{len(whole)}/{len(backup.streams)}",
                    f"{sum(entry.messages for entry in whole):,}",
                    size(sum(entry.bytes for entry in whole)),
                    size(sum(entry.stored_bytes for entry in whole)),
                    str(sum(entry.gaps for entry in whole)),
                    age(time.time() - _epoch(backup.started_at)),
                    " ".join(marks),
                ]
            )
        columns = ("backup", "source", "status", "streams", "messages", "bytes", "stored", "gaps", "age", "marks")
        say()
        table(columns, rows, columns[3:9])
        _sets(sets)
    for one in damage:
        say(f"DAMAGED: {one.error.what}")
    for other in others:
        say(f"{other.name} ({other.url}): {other.words()}")


def _marks(backup: Backup) -> list[str]:
    of_set = [f"part {backup.set.part} of set {backup.set.label}"] if backup.set else []
    return [*of_set, *(["files"] if backup.files and backup.files.archive else [])]


def _sets(sets: list[RestorePoint]) -> None:
    from jetkeep.cli.render import say
    from jetkeep.cli.sets import say_lost

    if sets:
        say()
    for point in sets:
        say(f"set {point.label}: {point.status}, {len(point.backups)} of {len(point.parts)} parts")
        say_lost(point)


def _one(backup: Backup, manifests: dict[str, Manifest], pins: dict[str, Pin]) -> None:
    from jetkeep.cli.render import say, size, table

    say(f"backup {backup.label} of {backup.source}: {backup.status}" + (", pinned" if backup.label in pins else ""))
    say(f"taken {backup.started_at} to {backup.finished_at} from {backup.server.name} ({backup.server.version})")
    say()
    rows = []
    for entry in backup.streams:
        if entry.status == "complete":
            numbers = [f"{entry.messages:,}", size(entry.bytes), size(entry.stored_bytes)]
            ends = [str(entry.first_seq), str(entry.last_seq), str(entry.consumers), str(entry.gaps)]
            rows.append([entry.name, *numbers, *ends])
        else:
            rows.append([entry.name, "failed", "", "", "", "", "", ""])
    columns = ("stream", "messages", "bytes", "stored", "first", "last", "consumers", "gaps")
    table(columns, rows, columns[1:])
    if backup.files:
        said = f"{backup.files.count} stored" if backup.files.archive else "FAILED"
        say(f"files: {said}" + (f": {backup.files.error.what}" if backup.files.error else ""))
    for entry in backup.streams:
        if entry.error:
            say(f"{entry.name}: FAILED: {entry.error.what}  [{entry.error.code}]")
        if manifest := manifests.get(entry.name):
            for gap in manifest.gaps:
                say(f"{entry.name}: GAP: {gap.reason}")
            for note in manifest.notes:
                say(f"{entry.name}: {note}")


def _all_json(
    repository: Repository,
    backups: list[Backup],
    sets: list[RestorePoint],
    damage: list[Damage],
    pins: dict[str, Pin],
    others: list[OtherState],
) -> None:
    from jetkeep.cli.render import document
    from jetkeep.cli.sets import set_document

    document(
        "jetkeep.info/1",
        {
            "repository": repository.id,
            "url": repository.url,
            "format": 1,
            "encrypted": repository.sealed,
            "backups": [_summary(backup, pins) for backup in backups],
            "sets": [set_document(point) for point in sets],
            "others": [one.to_dict() for one in others],
            "damaged": [{"key": one.key, "error": one.error.to_dict()} for one in damage],
        },
    )


def _one_json(backup: Backup, manifests: dict[str, Manifest], pins: dict[str, Pin]) -> None:
    from jetkeep.cli.render import document

    document("jetkeep.info-backup/1", _one_fields(backup, manifests, pins))


def _one_fields(backup: Backup, manifests: dict[str, Manifest], pins: dict[str, Pin]) -> dict[str, Any]:
    from jetkeep.repository.documents import as_dict

    streams: list[dict[str, Any]] = []
    for entry in backup.streams:
        item = as_dict(entry)
        if manifest := manifests.get(entry.name):
            item |= {"method": manifest.method, "reason": manifest.reason, "notes": manifest.notes}
            item["gap_reasons"] = [gap.reason for gap in manifest.gaps]
        streams.append(item)
    return {**_summary(backup, pins), "server": as_dict(backup.server), "streams": streams}


def _summary(backup: Backup, pins: dict[str, Pin]) -> dict[str, Any]:
    from jetkeep.repository.documents import as_dict

    whole = [entry for entry in backup.streams if entry.status == "complete"]
    return {
        "label": backup.label,
        "source": backup.source,
        "status": backup.status,
        "started_at": backup.started_at,
        "finished_at": backup.finished_at,
        "streams_complete": len(whole),
        "streams_failed": len(backup.streams) - len(whole),
        "messages": sum(entry.messages for entry in whole),
        "bytes": sum(entry.bytes for entry in whole),
        "stored_bytes": sum(entry.stored_bytes for entry in whole),
        "gaps": sum(entry.gaps for entry in whole),
        "tags": backup.tags,
        "pinned": backup.label in pins,
        "set": as_dict(backup.set) if backup.set else None,
        "files": as_dict(backup.files) if backup.files else None,
    }


def _epoch(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
