"""Sealed repositories: who reads what, and what is found when somebody with the bucket changes anything."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetkeep.errors import AccessDeniedError, BadDataError, JetkeepError, UsageError
from jetkeep.replicate import copy_backups
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import Backup, KeyDocument
from jetkeep.repository.keys import PASSPHRASE, Credentials, Keyring, load_keys
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from jetkeep.repository.sealing import CHUNK, TAG, RunKey, open_object, read_header, seal_object
from jetkeep.repository.vault import SealFor
from jetkeep.verify import verify
from tests.repositories import BEGAN, TIMELINE, files, new_repository, orders, read_back, some_streams, take
from tests.restoring import quiet

RUN = RunKey(b"r" * 32, b"wrapped")
REPOSITORY = "a" * 32


def opened(data: bytes, bound: str = "sources/x/1-2", repository: str = REPOSITORY) -> bytes:
    return open_object(data, lambda wrapped: RUN.secret, repository, bound, "the object")


def sealed(data: bytes, bound: str = "sources/x/1-2") -> bytes:
    return bytes(seal_object(data, RUN, REPOSITORY, bound))


def person() -> tuple[str, Credentials]:
    """A recipient, and who reads what is sealed for it."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity.to_public()), Credentials((str(identity),))


async def new_sealed(root: Path, *recipients: str, passphrase: str | None = None) -> Repository:
    return await Repository.create(LocalStore(root), now_ns=time.time_ns, seal_for=SealFor(recipients, passphrase))


async def reading(root: Path, credentials: Credentials) -> Repository:
    return await Repository.open(LocalStore(root), credentials=credentials)


# Objects.


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_was_sealed_is_opened_again(size: int) -> None:
    data = random.Random(size).randbytes(size)
    found = sealed(data)
    assert opened(found) == data
    assert sealed(data) == found
    header, begin = read_header(found, "the object")
    assert len(found) == begin + size + TAG * max(1, -(-size // CHUNK))
    assert header.size == size


def test_other_bytes_another_name_or_another_run_seal_to_something_else() -> None:
    same = sealed(b"data")[-20:]
    assert sealed(b"datb")[-20:] != same
    assert sealed(b"data", "sources/x/1-3")[-20:] != same
    assert seal_object(b"data", RunKey(b"s" * 32, b"wrapped"), REPOSITORY, "sources/x/1-2")[-20:] != same


@pytest.mark.parametrize(("bound", "repository"), [("sources/x/1-3", REPOSITORY), ("sources/x/1-2", "b" * 32)])
def test_an_object_under_another_name_or_in_another_repository_is_not_opened(bound: str, repository: str) -> None:
    with pytest.raises(BadDataError):
        opened(sealed(b"data"), bound, repository)


def test_chunks_cannot_be_left_out_swapped_repeated_or_put_at_the_end() -> None:
    data = random.Random(1).randbytes(3 * CHUNK)
    found = sealed(data)
    _, begin = read_header(found, "the object")
    head, size = found[:begin], CHUNK + TAG
    one, two, three = (found[begin + at * size : begin + (at + 1) * size] for at in range(3))
    for chunks in (
        [one, two],
        [two, one, three],
        [one, one, three],
        [one, three],
        [one, two, three, three],
        [],
        [three],
        [one, two, two],
    ):
        with pytest.raises(BadDataError):
            opened(head + b"".join(chunks))


@given(st.data())
def test_every_flipped_bit_and_every_cut_is_found(data: st.DataObject) -> None:
    plain = data.draw(st.binary(max_size=300))
    found = bytearray(sealed(plain))
    at = data.draw(st.integers(0, len(found) - 1))
    if data.draw(st.booleans()):
        found[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del found[at:]
    with pytest.raises(JetkeepError):
        opened(bytes(found))


@given(st.binary(max_size=200))
def test_nothing_else_is_taken_for_a_sealed_object(data: bytes) -> None:
    with pytest.raises(BadDataError):
        opened(data)


@pytest.mark.parametrize("label", ["20261123-131500", "release-1234567890123456", "release-0123456789abcdef-2"])
@pytest.mark.parametrize("digest", ["0" * 16, "1234567890123456", "0123456789abcdef"])
@pytest.mark.parametrize("copy", [1, 2, 9999])
def test_an_object_is_bound_to_its_name_without_what_depends_on_its_bytes(label: str, digest: str, copy: int) -> None:
    prefix = layout.timeline_prefix("nats", "A", TIMELINE)
    for key, bound in (
        (layout.segment_key(prefix, 1, 2, digest, copy), f"{prefix}segments/{1:020d}-{2:020d}"),
        (layout.manifest_key(prefix, label, digest, copy), f"{prefix}manifests/{label}"),
        (layout.files_key("nats", label, digest, copy), f"sources/nats/=files/{label}"),
    ):
        assert layout.bound_name(key) == layout.bound_name(key + layout.SEALED) == bound
        assert layout.kind_of(key + layout.SEALED) == layout.kind_of(key)


# Repositories.


async def test_a_writer_cannot_read_what_it_stored_and_a_reader_can(tmp_path: Path) -> None:
    recipient, credentials = person()
    await new_sealed(tmp_path, recipient)
    writer = await new_repository(tmp_path)
    streams = some_streams()
    backup = await take(writer, "one", streams)
    later = await new_repository(tmp_path)
    assert later.sealed
    assert not later.readable
    for name in streams:
        with pytest.raises(AccessDeniedError) as refused:
            await read_back(later, backup, name)
        assert refused.value.code == "key.none"
        assert await read_back(await reading(tmp_path, credentials), backup, name) == streams[name].live()


async def test_nothing_of_a_message_a_subject_or_a_configuration_is_readable_in_the_store(tmp_path: Path) -> None:
    recipient, credentials = person()
    repository = await new_sealed(tmp_path, recipient)
    streams = {"NAME": some_streams()["ORDERS"]}
    backup = await take(repository, "one", streams)
    reader = await reading(tmp_path, credentials)
    manifest = await reader.read_manifest(backup, backup.streams[0])
    secrets = [b"orders.", b"durable_name", manifest.fingerprint.encode(), b"PAR1"]
    for key, data in files(tmp_path).items():
        for secret in secrets:
            assert secret not in data, key
    assert all(key.endswith(layout.SEALED) for key in files(tmp_path) if key.startswith(layout.SOURCES))


async def test_every_recipient_and_the_passphrase_open_it_and_nobody_else(tmp_path: Path) -> None:
    (one, first), (two, second), (_, stranger) = person(), person(), person()
    repository = await new_sealed(tmp_path, one, two, passphrase="correct horse")
    backup = await take(repository, "b", some_streams())
    for who in (first, second, Credentials(passphrase="correct horse")):
        assert await read_back(await reading(tmp_path, who), backup, "ORDERS")
    for who in (stranger, Credentials(passphrase="wrong")):
        with pytest.raises(AccessDeniedError) as refused:
            await reading(tmp_path, who)
        assert (refused.value.code, refused.value.exit_status) == ("key.wrong", 12)
        assert one in refused.value.hint
    with pytest.raises(UsageError) as none:
        await reading(tmp_path, Credentials(("AGE-SECRET-KEY-nonsense",)))
    assert "nonsense" not in str(none.value)


async def test_without_an_identity_every_stored_byte_is_compared_with_its_digest(tmp_path: Path) -> None:
    recipient, _ = person()
    repository = await new_sealed(tmp_path, recipient)
    await take(repository, "one", some_streams())
    report = await verify(await new_repository(tmp_path), emit=quiet)
    assert (report.sound, report.digests_only, report.segments, report.findings) == (True, True, 4, [])
    for key in [one for one in files(tmp_path) if one.startswith(layout.SOURCES)]:
        data = (tmp_path / key).read_bytes()
        (tmp_path / key).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert not (await verify(await new_repository(tmp_path), emit=quiet)).sound, key
        (tmp_path / key).write_bytes(data)


async def test_with_an_identity_everything_is_looked_into(tmp_path: Path) -> None:
    recipient, credentials = person()
    await take(await new_sealed(tmp_path, recipient), "one", some_streams())
    report = await verify(await reading(tmp_path, credentials), emit=quiet)
    assert (report.sound, report.digests_only) == (True, False)


async def test_a_changed_backup_document_is_found_by_who_has_an_identity(tmp_path: Path) -> None:
    recipient, credentials = person()
    await take(await new_sealed(tmp_path, recipient), "one", some_streams())
    path = tmp_path / layout.backup_key("one")
    whole = encoding.unseal(path.read_bytes(), "one", Backup)
    for changed in (
        msgspec.structs.replace(whole, streams=whole.streams[1:]),
        msgspec.structs.replace(whole, tags=["release"]),
        msgspec.structs.replace(whole, sealed=msgspec.UNSET),
    ):
        path.write_bytes(encoding.seal(changed))
        with pytest.raises(BadDataError):
            await (await reading(tmp_path, credentials)).read_backup("one")


async def test_objects_of_one_backup_do_not_pass_for_those_of_another(tmp_path: Path) -> None:
    recipient, credentials = person()
    repository = await new_sealed(tmp_path, recipient)
    for at, label in enumerate(("one", "two")):
        await take(repository, label, {"A": some_streams()["ORDERS"]}, started=BEGAN + timedelta(hours=at))
    manifests = sorted(tmp_path.rglob("*.json.zst.sealed"))
    one, two = (path.read_bytes() for path in manifests)
    manifests[0].write_bytes(two)
    manifests[1].write_bytes(one)
    report = await verify(await reading(tmp_path, credentials), emit=quiet)
    assert {one.kind for one in report.findings if one.severity == "damage"} & {"damaged", "truncated"}


# Keys.


async def changed_keys(root: Path, credentials: Credentials, *recipients: str, rotate: bool = False) -> Keyring:
    keyring = await load_keys(LocalStore(root))
    keyring.unlock(credentials)
    return await keyring.rewrap(recipients, None, rotate=rotate, now_ns=time.time_ns)


async def test_recipients_come_and_go_and_earlier_backups_stay_readable(tmp_path: Path) -> None:
    (one, first), (two, second) = person(), person()
    backup = await take(await new_sealed(tmp_path, one), "b", some_streams())
    await changed_keys(tmp_path, first, one, two)
    assert await read_back(await reading(tmp_path, second), backup, "ORDERS")
    await changed_keys(tmp_path, second, two)
    with pytest.raises(AccessDeniedError):
        await reading(tmp_path, first)
    assert await read_back(await reading(tmp_path, second), backup, "ORDERS")
    assert len(list((tmp_path / "keys").iterdir())) == 1


async def test_after_a_rotation_the_old_key_opens_no_later_backup(tmp_path: Path) -> None:
    one, first = person()
    repository = await new_sealed(tmp_path, one)
    before = await take(repository, "before", some_streams())
    old = await load_keys(LocalStore(tmp_path))
    old.unlock(first)
    await changed_keys(tmp_path, first, one, rotate=True)
    after = await take(await new_repository(tmp_path), "after", some_streams(), started=BEGAN + timedelta(days=1))
    reader = await reading(tmp_path, first)
    for backup in (before, after):
        assert await read_back(reader, backup, "ORDERS")
    assert after.sealed
    header, _ = read_header(
        (tmp_path / str(after.streams[0].manifest and after.streams[0].manifest.key)).read_bytes(), "x"
    )
    with pytest.raises(AccessDeniedError) as refused:
        old.unwrap(__import__("base64").b64decode(header.key))
    assert refused.value.code == "key.other-repository"


async def test_a_key_document_that_somebody_added_for_himself_is_named(tmp_path: Path) -> None:
    (one, first), (thief, thiefs) = person(), person()
    backup = await take(await new_sealed(tmp_path, one), "b", some_streams())
    await new_sealed(tmp_path / "his", thief)
    forged = encoding.unseal((tmp_path / "his" / layout.keys_key(1)).read_bytes(), "it", KeyDocument)
    forged.generation = 2
    (tmp_path / layout.keys_key(2)).write_bytes(encoding.seal(forged))
    with pytest.raises(AccessDeniedError) as refused:
        await reading(tmp_path, first)
    assert refused.value.code == "key.replaced"
    assert layout.keys_key(2) in refused.value.hint
    with pytest.raises(AccessDeniedError):
        await read_back(await reading(tmp_path, thiefs), backup, "ORDERS")
    (tmp_path / layout.keys_key(2)).unlink()
    assert await read_back(await reading(tmp_path, first), backup, "ORDERS")


async def test_keys_that_are_replaced_while_they_are_looked_for_are_found(tmp_path: Path) -> None:
    one, first = person()
    await new_sealed(tmp_path, one)

    class Rotated(LocalStore):
        async def read(self, key: str, max_bytes: int) -> bytes:
            if key == layout.keys_key(1):
                await changed_keys(tmp_path, first, one, rotate=True)
            return await super().read(key, max_bytes)

    assert (await load_keys(Rotated(tmp_path))).document.generation == 2


async def test_the_last_recipient_cannot_be_removed(tmp_path: Path) -> None:
    one, first = person()
    await new_sealed(tmp_path, one)
    with pytest.raises(UsageError):
        await changed_keys(tmp_path, first)
    assert await reading(tmp_path, first)


async def test_of_two_changes_of_the_keys_at_once_one_is_refused(tmp_path: Path) -> None:
    one, first = person()
    await new_sealed(tmp_path, one)
    keyrings = [await load_keys(LocalStore(tmp_path)) for _ in range(2)]
    for keyring in keyrings:
        keyring.unlock(first)
    await keyrings[0].rewrap([one], None, rotate=True, now_ns=time.time_ns)
    with pytest.raises(UsageError) as refused:
        await keyrings[1].rewrap([one], None, rotate=True, now_ns=time.time_ns)
    assert refused.value.code == "usage.keys-changed"
    assert (await reading(tmp_path, first)).readable


async def test_lost_keys_and_keys_that_are_not_pinned_are_refused(tmp_path: Path) -> None:
    one, first = person()
    repository = await new_sealed(tmp_path, one)
    keyring = await load_keys(repository.store)
    other = await Repository.open(LocalStore(tmp_path), pinned=one)
    with pytest.raises(AccessDeniedError) as refused:
        await take(other, "b", some_streams())
    assert refused.value.code == "key.not-pinned"
    await take(await Repository.open(LocalStore(tmp_path), pinned=keyring.recipient), "b", some_streams())
    for path in (tmp_path / "keys").iterdir():
        path.unlink()
    with pytest.raises(AccessDeniedError) as lost:
        await reading(tmp_path, first)
    assert (lost.value.code, lost.value.exit_status) == ("key.missing", 12)


async def test_keys_that_ask_to_seal_for_somebody_else_are_refused_to_who_has_an_identity(tmp_path: Path) -> None:
    one, first = person()
    thief, _ = person()
    keyring = await load_keys((await new_sealed(tmp_path, one)).store)
    forged = msgspec.structs.replace(keyring.document, generation=2, recipient=thief)
    (tmp_path / layout.keys_key(2)).write_bytes(encoding.seal(forged))
    with pytest.raises(AccessDeniedError) as refused:
        await reading(tmp_path, first)
    assert (refused.value.code, refused.value.exit_status) == ("key.swapped", 12)


async def test_a_repository_that_is_to_be_encrypted_and_says_that_it_is_not_is_refused(tmp_path: Path) -> None:
    one, first = person()
    repository = await new_sealed(tmp_path, one)
    backup = await take(repository, "b", some_streams())
    recipient = (await load_keys(repository.store)).recipient
    bare = msgspec.structs.replace(repository.document, features=[], sealing=msgspec.UNSET)
    (tmp_path / layout.REPOSITORY).write_bytes(encoding.seal(bare))
    store = LocalStore(tmp_path)
    with pytest.raises(AccessDeniedError) as pinned:
        await Repository.open(store, pinned=recipient)
    with pytest.raises(AccessDeniedError) as wanted:
        await Repository.open_or_create(store, now_ns=time.time_ns, seal_for=SealFor((one,)))
    assert pinned.value.code == wanted.value.code == "key.not-sealed"
    with pytest.raises(BadDataError):
        await (await reading(tmp_path, first)).read_backup(backup.label)


async def test_an_init_that_was_killed_between_keys_and_document_is_made_again_for_the_same_recipients(
    tmp_path: Path,
) -> None:
    (one, first), (two, _) = person(), person()
    await new_sealed(tmp_path, one)
    (tmp_path / layout.REPOSITORY).unlink()
    with pytest.raises(UsageError):
        await new_sealed(tmp_path, two)
    backup = await take(await new_sealed(tmp_path, one), "b", some_streams())
    assert await read_back(await reading(tmp_path, first), backup, "ORDERS")


@pytest.mark.slow
async def test_a_passphrase_stays_when_recipients_change_and_must_be_given_to_rotate(tmp_path: Path) -> None:
    (one, first), (two, _) = person(), person()
    await new_sealed(tmp_path, one, passphrase="correct horse")
    await changed_keys(tmp_path, first, one, two, PASSPHRASE)
    keyring = await load_keys(LocalStore(tmp_path))
    keyring.unlock(Credentials(passphrase="correct horse"))
    for wrong in (None, "battery"):
        with pytest.raises(UsageError):
            await keyring.rewrap([one, PASSPHRASE], wrong, rotate=True, now_ns=time.time_ns)
    await keyring.rewrap([one, PASSPHRASE], "correct horse", rotate=True, now_ns=time.time_ns)
    assert (await reading(tmp_path, Credentials(passphrase="correct horse"))).readable


async def test_a_secret_key_that_is_given_as_a_recipient_is_not_repeated(tmp_path: Path) -> None:
    secret = person()[1].identities[0]
    with pytest.raises(UsageError) as refused:
        await new_sealed(tmp_path, secret)
    assert secret not in refused.value.what


async def test_where_key_documents_cannot_be_deleted_it_is_said(tmp_path: Path) -> None:
    one, first = person()
    await new_sealed(tmp_path, one)

    class AddOnly(LocalStore):
        async def delete(self, key: str) -> None:
            raise AccessDeniedError("no")

    keyring = await load_keys(AddOnly(tmp_path))
    keyring.unlock(first)
    changed = await keyring.rewrap([one], None, rotate=True, now_ns=time.time_ns)
    assert changed.left == [layout.keys_key(1)]
    assert (await load_keys(LocalStore(tmp_path))).document.generation == 2


async def test_a_label_that_is_taken_at_the_commit_needs_no_identity_either(tmp_path: Path) -> None:
    recipient, credentials = person()
    repository = await new_sealed(tmp_path, recipient)
    label = BEGAN.strftime("%Y%m%d-%H%M%S")
    await take(repository, label, {"A": some_streams()["ORDERS"]})
    stream = some_streams()["ORDERS"]
    committed = await take(await new_repository(tmp_path), label, {"A": stream}, relabel=True)
    assert committed.label != label
    assert await read_back(await reading(tmp_path, credentials), committed, "A") == stream.live()


async def test_a_copy_seals_what_was_not_sealed(tmp_path: Path) -> None:
    recipient, credentials = person()
    source = await new_repository(tmp_path / "a")
    backup = await take(source, "one", {"A": some_streams()["ORDERS"]})
    target = await new_sealed(tmp_path / "b", recipient)
    report = await copy_backups(source, target, emit=quiet, now_ns=time.time_ns)
    assert report.copied == ["one"]
    there = await reading(tmp_path / "b", credentials)
    assert await read_back(there, await there.read_backup("one"), "A") == await read_back(source, backup, "A")
    assert not any(b"orders." in data for data in files(tmp_path / "b").values())
    back = await new_repository(tmp_path / "c")
    refused = await copy_backups(await new_repository(tmp_path / "b"), back, emit=quiet, now_ns=time.time_ns)
    assert refused.failed["one"].code == "key.none"
    await copy_backups(there, back, emit=quiet, now_ns=time.time_ns)
    assert await read_back(back, await back.read_backup("one"), "A") == orders(1, 12)


def test_the_format_page_s_sealed_object() -> None:
    run = RunKey(bytes(range(32)), b"wrapped")
    found = seal_object(b"hello", run, "0" * 32, "sources/nats/A/t/segments/1-1")
    page = (Path(__file__).parents[2] / "docs/format.md").read_text()
    assert found.hex() in page.replace("\n", "")
