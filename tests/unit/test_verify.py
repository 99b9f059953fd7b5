"""What verify finds, one kind after the other, and what it does not call damage."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jetkeep.model import Event, StreamAdvanced, StreamBegan, StreamEnded
from jetkeep.repository import encoding
from jetkeep.repository.documents import Backup, Manifest, ManifestRef, Pin, StreamEntry
from jetkeep.repository.leases import rfc3339
from jetkeep.repository.repository import Repository
from jetkeep.verify import VerifyReport, verify
from tests.repositories import TIMELINE, Stream, new_repository, orders, put_run, some_streams, take


def silent(_: Event) -> None: ...


async def checked(repository: Repository, label: str | None = None) -> VerifyReport:
    return await verify(repository, emit=silent, label=label)


async def kinds(root: Path) -> list[tuple[str, tuple[str, ...]]]:
    report = await checked(await new_repository(root))
    return [(one.kind, one.backups) for one in report.findings if one.severity == "damage"]


async def test_a_good_repository_is_sound_and_each_segment_is_read_once(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    for label in ("one", "two"):
        await take(repository, label, some_streams())
    events: list[Event] = []
    report = await verify(repository, emit=events.append)
    assert report.findings == []
    assert (report.sound, report.backups, report.segments, report.segments_skipped) == (True, 2, 4, 0)
    assert report.messages == 2 * (12 + 7 + 4)
    assert isinstance(events[0], StreamBegan)
    assert isinstance(events[-1], StreamEnded)
    done = [one.messages for one in events if isinstance(one, StreamAdvanced)]
    assert done == sorted(done)
    assert done[-1] == events[0].messages == 12 + 9 + 4


async def test_a_sample_reads_a_part_and_says_so(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take(repository, "one", {"A": Stream([orders(at, at + 4, "x") for at in range(1, 100, 5)], dead=[7])})
    report = await verify(repository, emit=silent, sample=0.21, chance=random.Random(1))
    assert (report.segments, report.segments_skipped, report.sound) == (5, 15, True)


async def test_one_backup_is_checked_without_the_others(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    for label in ("one", "two"):
        await take(repository, label, {"A": Stream([orders(1, 5, label)])})
    entry = (await repository.read_backup("two")).streams[0]
    assert entry.manifest
    (tmp_path / entry.manifest.key).unlink()
    assert (await checked(repository, "one")).sound
    assert not (await checked(repository, "two")).sound
    assert await kinds(tmp_path) == [("missing", ("two",))]


async def test_damage_of_a_shared_segment_names_every_backup_that_it_touches(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    for label in ("one", "two", "three"):
        await take(repository, label, {"A": Stream([orders(1, 5, "" if label != "three" else label)])})
    (segment,) = [path for path in tmp_path.rglob("*.parquet") if orders_of(path) == 1]
    segment.write_bytes(segment.read_bytes()[:-1])
    assert await kinds(tmp_path) == [("truncated", ("one", "two"))]


def orders_of(path: Path) -> int:
    """1 where the segment's payloads have no salt."""
    return 0 if b"threeorder" in path.read_bytes() else 1


async def test_what_cannot_be_read_is_found_and_the_rest_is_read(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take(repository, "one", {"A": Stream([orders(1, 5)]), "B": Stream([orders(1, 5)])})
    first = min(tmp_path.rglob("*.parquet"))
    first.unlink()
    first.symlink_to(first)  # a loop: reading it fails, also for root
    report = await checked(repository)
    assert {(one.kind, one.backups) for one in report.findings} == {("unreadable", ("one",)), ("unreadable", ())}
    assert report.segments == 2


async def test_what_no_backup_names_is_a_notice(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take(repository, "one", {"A": Stream([orders(1, 5)])})
    await put_run(repository, "nats", "A", TIMELINE, orders(6, 9))
    (tmp_path / "sources" / "notes.txt").write_text("mine")
    report = await checked(repository)
    assert [(one.kind, one.severity) for one in report.findings] == [("unnamed", "notice")]
    assert report.findings[0].what.startswith("1 objects")
    assert report.sound


def rewrite(root: Path, change: Callable[[Manifest], None], entry: Callable[[StreamEntry], None] | None = None) -> None:
    """Write backup `one` anew with a manifest that a careless writer could have made: every digest is right."""
    path = root / "backups" / "one.json"
    backup = encoding.unseal(path.read_bytes(), "one", Backup)
    stream = backup.streams[0]
    assert stream.manifest
    manifest = encoding.decode_manifest((root / stream.manifest.key).read_bytes(), "m")
    change(manifest)
    data = encoding.encode_manifest(manifest)
    digest = hashlib.sha256(data).hexdigest()
    key = stream.manifest.key.rpartition("/")[0] + f"/one-{digest[:16]}.json.zst"
    (root / key).write_bytes(data)
    stream.manifest = ManifestRef(key=key, sha256=digest, bytes=len(data))
    for name in ("messages", "first_seq", "last_seq", "bytes", "fingerprint", "timeline"):
        setattr(stream, name, getattr(manifest, name))
    stream.stored_bytes = sum(one.bytes for one in manifest.segments)
    if entry:
        entry(stream)
    path.write_bytes(encoding.seal(backup))


def swap_segments(manifest: Manifest) -> None:
    manifest.segments.reverse()


def one_segment_less(manifest: Manifest) -> None:
    del manifest.segments[1]


def other_fingerprint(manifest: Manifest) -> None:
    manifest.fingerprint = "1" * 32


def one_more(manifest: Manifest) -> None:
    manifest.messages += 1


def bad_set(manifest: Manifest) -> None:
    manifest.deleted = "A"


def another_timeline(manifest: Manifest) -> None:
    manifest.timeline += "-r2"


def outside(manifest: Manifest) -> None:
    manifest.segments[0].key = "../../secret"


def both_fingerprints(manifest: Manifest) -> None:
    total = (int(manifest.fingerprint, 16) + 1) % 2**128
    manifest.fingerprint = f"{total:032x}"
    manifest.segments[0].fingerprint = f"{(int(manifest.segments[0].fingerprint, 16) + 1) % 2**128:032x}"


def other_time(manifest: Manifest) -> None:
    manifest.segments[0].first_ts_ns -= 1


def fewer_rows(manifest: Manifest) -> None:
    """The segment says that it has one row less, and the sums follow; the row is called deleted."""
    manifest.segments[0].count -= 1
    manifest.messages -= 1
    manifest.deleted = "BgA"  # {6}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (swap_segments, "order"),
        (one_segment_less, "count"),
        (other_fingerprint, "fingerprint"),
        (one_more, "coverage"),
        (bad_set, "sequence-set"),
        (another_timeline, "timeline"),
        (outside, "timeline"),
        (both_fingerprints, "fingerprint"),
        (other_time, "mismatch"),
        (fewer_rows, "count"),
    ],
)
async def test_what_a_careless_writer_made_is_found_although_every_digest_is_right(
    tmp_path: Path, change: Callable[[Manifest], None], kind: str
) -> None:
    await take(await new_repository(tmp_path), "one", {"ORDERS": some_streams()["ORDERS"]})
    rewrite(tmp_path, lambda manifest: None)
    assert await kinds(tmp_path) == []
    rewrite(tmp_path, change)
    assert await kinds(tmp_path) == [(kind, ("one",))]


@pytest.mark.parametrize("name", ["messages", "bytes", "stored_bytes", "consumers", "gaps"])
async def test_an_entry_that_says_something_else_than_its_manifest_is_found(tmp_path: Path, name: str) -> None:
    await take(await new_repository(tmp_path), "one", {"ORDERS": some_streams()["ORDERS"]})
    rewrite(tmp_path, lambda manifest: None, lambda entry: setattr(entry, name, 7))
    assert await kinds(tmp_path) == [("mismatch", ("one",))]


async def test_live_rows_are_proven_where_a_segment_holds_dead_ones_too(tmp_path: Path) -> None:
    await take(await new_repository(tmp_path), "one", {"A": some_streams()["dead rows"]})
    assert await kinds(tmp_path) == []

    def others_are_dead(manifest: Manifest) -> None:
        manifest.deleted = "BQE"  # {5, 6} in place of {4, 5}: all counts agree

    rewrite(tmp_path, others_are_dead)
    assert await kinds(tmp_path) == [("fingerprint", ("one",))]


async def test_two_descriptions_of_one_segment_are_a_conflict(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    for label in ("one", "two"):
        await take(repository, label, {"ORDERS": some_streams()["ORDERS"]})
    rewrite(tmp_path, other_time)
    found = await kinds(tmp_path)
    assert "conflict" in [kind for kind, _ in found]


async def test_pins_and_evidence_are_checked(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path)
    await take(repository, "one", {"A": Stream([orders(1, 5)])})
    for key, data in (
        ("pins/one.json", encoding.seal(Pin(label="two", pinned_at=rfc3339(0), reason=""))),
        ("pins/three.json", b"x"),
        ("evidence/one-1.json", b"{}\n"),
        ("evidence/one-2.json", encoding.seal({"format": 1, "anything": "goes"})),
        ("pins/readme.txt", b"mine"),
    ):
        await repository.store.create(key, data)
    report = await checked(repository)
    assert [(one.kind, one.key) for one in report.findings] == [
        ("damaged", "evidence/one-1.json"),
        ("mismatch", "pins/one.json"),
        ("damaged", "pins/three.json"),
    ]


async def test_a_backup_of_another_repository_or_label_is_found(tmp_path: Path) -> None:
    repository = await new_repository(tmp_path / "r")
    backup = await take(repository, "one", {"A": Stream([orders(1, 5)])})
    (tmp_path / "r" / "backups" / "two.json").write_bytes(encoding.seal(backup))
    strange = msgspec.structs.replace(backup, label="three", repository="0" * 32)
    (tmp_path / "r" / "backups" / "three.json").write_bytes(encoding.seal(strange))
    assert await kinds(tmp_path / "r") == [("mismatch", ("three",)), ("mismatch", ("two",))]
