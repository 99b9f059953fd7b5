"""The claims of docs/explanation/security.md, each by its name there."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pyrage
import pytest

from jetkeep.errors import AccessDeniedError, BadDataError, JetkeepError
from jetkeep.model import Message
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import Backup, ManifestRef
from jetkeep.repository.keys import Credentials, load_keys
from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.repository.sealing import MAGIC, RunKey, authenticate, read_header
from jetkeep.repository.vault import SealFor
from jetkeep.verify import verify
from tests.backing_up import run
from tests.repositories import BEGAN, Stream, files, new_repository, orders, read_back, some_streams, take
from tests.restoring import quiet
from tests.unit.test_sealing import new_sealed, person, reading

PAGE = Path(__file__).parents[2] / "docs/explanation/security.md"


def test_every_claim_of_the_page_has_a_test_of_its_name() -> None:
    claims = re.findall(r"`\[([a-z-]+)\]`", PAGE.read_text())
    tests = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert len(claims) == len(set(claims)) > 10
    assert set(claims) == tests - {"every-claim-of-the-page-has-a-test-of-its-name"}


async def two_backups(root: Path) -> Credentials:
    """A sealed repository with two backups of the same streams; who reads it."""
    recipient, credentials = person()
    repository = await new_sealed(root, recipient)
    for at, label in enumerate(("one", "two")):
        await take(repository, label, some_streams(), started=BEGAN + timedelta(hours=at))
    return credentials


async def found(root: Path, credentials: Credentials) -> bool:
    """Whoever has the identity is told, by an error or by `verify`, and never reads what was not stored."""
    try:
        reader = await reading(root, credentials)
        for label in ("one", "two"):
            backup = await reader.read_backup(label)
            for name, stream in some_streams().items():
                assert await read_back(reader, backup, name) == stream.live()
        return not (await verify(reader, emit=quiet)).sound
    except JetkeepError:
        return True


def rewrite(root: Path, label: str, change: Callable[[Backup], Backup]) -> None:
    """What somebody can do to a backup's document without any key: everything, the digest included."""
    path = root / layout.backup_key(label)
    path.write_bytes(encoding.seal(change(encoding.unseal(path.read_bytes(), "it", Backup))))


async def test_sealed_content(tmp_path: Path) -> None:
    word = "QfXr7Kw2"
    rows = [Message(1, 5, f"a.{word}".encode(), f"NATS/1.0\r\nK: {word}\r\n\r\n".encode(), word.encode() * 9)]
    recipient, credentials = person()
    repository = await new_sealed(tmp_path, recipient)
    backup = await take(repository, "one", {"ORDERS": Stream([rows])})
    await repository.put_files("nats", "one", f"user: {word}".encode())
    reader = await reading(tmp_path, credentials)
    manifest = await reader.read_manifest(backup, backup.streams[0])
    assert manifest.fingerprint
    for key, data in files(tmp_path).items():
        for secret in (word, "durable_name", manifest.fingerprint, manifest.segments[0].fingerprint):
            assert secret.encode() not in data, key
        if key.startswith(layout.SOURCES):
            assert data.startswith(MAGIC)
            body = data[read_header(data, key)[1] :]
            assert b"PAR1" not in body
            assert b"\x28\xb5\x2f\xfd" not in body[:4]  # nor a frame of zstd


async def test_visible(tmp_path: Path) -> None:
    recipient, _ = person()
    await take(await new_sealed(tmp_path, recipient), "one", some_streams(), tags=["nightly"])
    told = json.loads((tmp_path / layout.backup_key("one")).read_bytes())["body"]
    assert told["tags"] == ["nightly"]
    entry = {one["name"]: one for one in told["streams"]}["ORDERS"]
    assert (entry["messages"], entry["last_seq"], entry["consumers"]) == (12, 12, 1)
    segment = next(key for key in files(tmp_path) if layout.kind_of(key) == "segment" and "ORDERS" in key)
    assert f"{1:020d}-{6:020d}" in segment or f"{7:020d}-{12:020d}" in segment
    keys = json.loads((tmp_path / layout.keys_key(1)).read_bytes())["body"]
    assert keys["wrapped"][0]["recipient"] == recipient


async def test_altered_objects(tmp_path: Path) -> None:
    credentials = await two_backups(tmp_path)
    chance = random.Random(7)
    assert not await found(tmp_path, credentials)
    for key, data in files(tmp_path).items():
        at = chance.randrange(len(data))
        half = len(data) // 2
        for changed in (
            data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
            data[:at],
            data + b"\0",
            data[half:] + data[:half],
            data + data,
        ):
            (tmp_path / key).write_bytes(changed)
            assert await found(tmp_path, credentials), key
        (tmp_path / key).write_bytes(data)
    assert not await found(tmp_path, credentials)


async def test_swapped_objects(tmp_path: Path) -> None:
    credentials = await two_backups(tmp_path)
    others = tmp_path / "others"
    await two_backups(others)
    data = {key: one for key, one in files(tmp_path).items() if key.startswith((layout.SOURCES, layout.BACKUPS))}
    foreign = [one for key, one in files(others).items() if layout.kind_of(key)]
    root = tmp_path
    for key, whole in data.items():
        for other in {*data.values(), *foreign} - {whole}:
            (root / key).write_bytes(other)
            assert await found(root, credentials), key
        (root / key).write_bytes(whole)

    # He puts digests right, too, where no key is needed for it: a manifest in place of another.
    for changed in (
        lambda one, two: msgspec.structs.replace(one, streams=two.streams),
        lambda one, two: msgspec.structs.replace(two, label="one"),
        lambda one, two: msgspec.structs.replace(one, streams=two.streams, sealed=two.sealed),
    ):
        two = encoding.unseal(data[layout.backup_key("two")], "two", Backup)
        rewrite(root, "one", lambda one, changed=changed, two=two: changed(one, two))  # type: ignore[misc]
        assert await found(root, credentials)
        (root / layout.backup_key("one")).write_bytes(data[layout.backup_key("one")])

    # He gives an altered object the name and the digest that fit.
    one = encoding.unseal(data[layout.backup_key("one")], "one", Backup)
    ref = one.streams[0].manifest
    assert ref
    other = bytes(reversed(data[ref.key]))
    digest = hashlib.sha256(other).hexdigest()
    moved = ManifestRef(key=ref.key.replace(ref.sha256[:16], digest[:16]), sha256=digest, bytes=ref.bytes)
    (root / moved.key).write_bytes(other)
    one.streams[0].manifest = moved
    rewrite(root, "one", lambda _: one)
    assert await found(root, credentials)


async def test_edited_backups(tmp_path: Path) -> None:
    credentials = await two_backups(tmp_path)
    recipient = (await load_keys(LocalStore(tmp_path))).recipient
    whole = (tmp_path / layout.backup_key("one")).read_bytes()
    edits: list[Callable[[Backup], Backup]] = [
        lambda one: msgspec.structs.replace(one, streams=one.streams[1:]),
        lambda one: msgspec.structs.replace(one, tags=["release"]),
        lambda one: msgspec.structs.replace(one, finished_at="2030-01-01T00:00:00Z"),
        lambda one: msgspec.structs.replace(one, sealed=msgspec.UNSET, features=[]),
    ]
    for edit in edits:
        rewrite(tmp_path, "one", edit)
        assert await found(tmp_path, credentials)
        (tmp_path / layout.backup_key("one")).write_bytes(whole)

    # He vouches for it himself, with a run's key of his own: then the manifests are not of that run.
    def vouched(one: Backup) -> Backup:
        own = RunKey.new(lambda secret: pyrage.encrypt(secret, [pyrage.x25519.Recipient.from_str(recipient)]))
        assert one.sealed
        one.streams, one.sealed.code = one.streams[1:], ""
        one.sealed.key = base64.b64encode(own.wrapped).decode()
        one.sealed.code = authenticate(own.secret, msgspec.json.encode(one))
        return one

    rewrite(tmp_path, "one", vouched)
    reader = await reading(tmp_path, credentials)
    backup = await reader.read_backup("one")
    with pytest.raises(BadDataError, match="another run"):
        await reader.read_manifest(backup, backup.streams[0])


async def test_swapped_keys(tmp_path: Path) -> None:
    credentials = await two_backups(tmp_path / "a")
    await two_backups(tmp_path / "b")
    mine, theirs = ((tmp_path / name / layout.keys_key(1)) for name in "ab")
    whole = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(AccessDeniedError):
        await reading(tmp_path / "a", credentials)
    mine.write_bytes(whole)
    keyring = await load_keys(LocalStore(tmp_path / "a"))
    forged = msgspec.structs.replace(keyring.document, recipient=person()[0], generation=2)
    (tmp_path / "a" / layout.keys_key(2)).write_bytes(encoding.seal(forged))
    with pytest.raises(AccessDeniedError) as told:
        await reading(tmp_path / "a", credentials)
    assert told.value.code == "key.swapped"


async def test_downgrade(tmp_path: Path) -> None:
    recipient, _ = person()
    repository = await new_sealed(tmp_path, recipient)
    pinned = (await load_keys(repository.store)).recipient
    bare = msgspec.structs.replace(repository.document, features=[], sealing=msgspec.UNSET)
    (tmp_path / layout.REPOSITORY).write_bytes(encoding.seal(bare))
    store = LocalStore(tmp_path)
    for how in ({"pinned": pinned}, {"seal_for": SealFor((recipient,))}):
        with pytest.raises(AccessDeniedError) as told:
            await Repository.open_or_create(store, now_ns=time.time_ns, **how)
        assert told.value.code == "key.not-sealed"


async def test_forged_backup(tmp_path: Path) -> None:
    credentials = await two_backups(tmp_path)
    invented = {"ORDERS": Stream([orders(1, 3, "invented ")])}
    await take(await new_repository(tmp_path), "forged", invented, started=BEGAN + timedelta(days=1))
    reader = await reading(tmp_path, credentials)
    assert await read_back(reader, await reader.read_backup("forged"), "ORDERS") == invented["ORDERS"].live()
    assert (await verify(reader, emit=quiet)).sound


async def test_pinned_recipient(tmp_path: Path) -> None:
    await two_backups(tmp_path)
    keyring = await load_keys(LocalStore(tmp_path))
    forged = msgspec.structs.replace(keyring.document, recipient=person()[0], generation=2)
    (tmp_path / layout.keys_key(2)).write_bytes(encoding.seal(forged))
    before = set(files(tmp_path))
    writer = await Repository.open(LocalStore(tmp_path), pinned=keyring.recipient)
    with pytest.raises(AccessDeniedError) as told:
        await take(writer, "three", some_streams())
    assert told.value.code == "key.not-pinned"
    assert set(files(tmp_path)) == before


async def test_writer_cannot_read(tmp_path: Path) -> None:
    recipient, _ = person()
    await new_sealed(tmp_path, recipient)
    writer = await new_repository(tmp_path)
    backup = await take(writer, "one", some_streams())
    for machine in (await new_repository(tmp_path), await Repository.open(LocalStore(tmp_path))):
        async with lease(machine.store, "backup", now_ns=time.time_ns):
            with pytest.raises(AccessDeniedError):
                await read_back(machine, backup, "ORDERS")
    ref = backup.streams[0].manifest
    assert ref
    keyring = await load_keys(LocalStore(tmp_path))
    with pytest.raises(AccessDeniedError):
        keyring.unwrap(read_header((tmp_path / ref.key).read_bytes(), ref.key)[0].key.encode())


async def test_rotation(tmp_path: Path) -> None:
    (one, leaver), (two, stays) = person(), person()
    repository = await new_sealed(tmp_path, one, two)
    before = await take(repository, "before", some_streams())
    kept = await load_keys(LocalStore(tmp_path))  # what the leaver kept
    kept.unlock(leaver)
    keyring = await load_keys(LocalStore(tmp_path))
    keyring.unlock(stays)
    await keyring.rewrap([two], None, rotate=True, now_ns=time.time_ns)
    after = await take(await new_repository(tmp_path), "after", some_streams(), started=BEGAN + timedelta(days=1))
    leavers = await Repository.open(LocalStore(tmp_path))
    assert leavers.vault
    leavers.vault._keyring = kept
    assert await read_back(leavers, before, "ORDERS")
    with pytest.raises(AccessDeniedError):
        await read_back(leavers, after, "ORDERS")
    for backup in (before, after):
        assert await read_back(await reading(tmp_path, stays), backup, "ORDERS")


async def test_lost_identity(tmp_path: Path) -> None:
    credentials = await two_backups(tmp_path)
    with pytest.raises(AccessDeniedError) as wrong:
        await reading(tmp_path, person()[1])
    assert wrong.value.code == "key.wrong"
    (tmp_path / layout.keys_key(1)).unlink()
    with pytest.raises(AccessDeniedError) as missing:
        await reading(tmp_path, credentials)
    assert missing.value.code == "key.missing"


def test_no_secrets_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETKEEP_DEBUG", "1")
    secret = person()[1].identities[0]
    recipient = person()[0]
    run("init", "--encrypt-to", recipient, repo=tmp_path / "r")
    monkeypatch.setenv("JETKEEP_IDENTITY", secret)
    monkeypatch.setenv("JETKEEP_PASSPHRASE", "correct horse")
    for words in (("cat", "A"), ("info",), ("info", "--json"), ("verify",), ("key", "rotate"), ("drill",)):
        done = run(*words, repo=tmp_path / "r", check=None)
        assert done.returncode == 12, words
        assert secret not in done.stdout + done.stderr
        assert "correct horse" not in done.stdout + done.stderr
    told = run("init", "--encrypt-to", secret, repo=tmp_path / "other", check=2)
    assert secret not in told.stderr
    assert not any(secret.encode() in data for data in files(tmp_path).values())
