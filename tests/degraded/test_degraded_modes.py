"""What still works, what is lost, what to do when a part of the site is gone (docs/explanation/degraded-modes.md)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jetkeep.cli import lagging
from jetkeep.sandbox import Sandbox
from tests.backing_up import run
from tests.degraded.site import Site, asked, jetkeep
from tests.mounts import small_disk
from tests.object_stores.seaweed import Seaweed
from tests.versions import NEWEST
from tests.wrong_clock import wrong_clock

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "degraded-modes.md"


def test_the_page_has_a_section_for_each_of_these() -> None:
    modes = ["The store is down", "NATS is down", "The volume is full", "The volume is lost", "Velero is down"]
    modes += ["No credentials", "The clock is wrong", "A key is lost"]
    assert re.findall(r"^## (.*)", PAGE.read_text(), re.MULTILINE)[: len(modes)] == modes


# The store is down.


@pytest.fixture
def mortal_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seaweed]:
    """A store of this test alone, with the site's second repository in it, that may be killed."""
    with Seaweed() as own:
        own.create_bucket("mortal")
        for name, value in own.environment().items():
            monkeypatch.setenv(name, value)
        site.bucket = site.bucket._replace(name="mortal", server=own)
        site.configure()
        site.backup("two")
        yield own


@pytest.mark.slow
def test_while_the_store_is_down_backups_go_on_and_it_is_brought_what_it_missed(
    site: Site, mortal_store: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal_store.kill()
    told = site.backup("three")
    assert "repository offsite (optional) does NOT have this backup" in told
    assert "[store.unreachable]" in told
    site.lose("ORDERS")
    jetkeep("restore", "-q")
    assert site.messages("ORDERS") == 300
    assert "offsite (s3://mortal" in (told := jetkeep("info"))
    assert "not known" in told
    mortal_store.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", mortal_store.endpoint)
    assert "repository offsite was brought what it missed: three" in site.backup("four")
    assert {"two", "three", "four"} <= set(site.labels("offsite"))


def test_a_restore_does_not_wait_for_a_store_that_takes_connections_and_never_answers(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lagging, "_ASKING_S", 0.3)
    site.lose("ORDERS")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "whether offsite has a newer backup is not known" in jetkeep("restore")
    assert site.messages("ORDERS") == 300


# NATS is down.


def test_while_nats_is_down_everything_that_is_stored_can_be_used(site: Site, tmp_path: Path) -> None:
    site.nats.kill()
    for command in ("backup", "restore"):
        told = jetkeep(command, check=20)
        assert "[nats.unreachable]" in told
        assert "nothing was read or changed" in told
    assert "FAILED  connect" in jetkeep("check", check=20)
    assert asked("verify")["sound"]
    assert asked("drill")["verdict"] == "SUCCESSFUL"
    jetkeep("expire", "-q")
    jetkeep("copy", "-q")
    assert jetkeep("cat", "ORDERS", "--limit", "2").count("ORDERS.") == 2
    jetkeep("export", "ORDERS", str(tmp_path / "out"), "-q")
    assert site.labels("local") == site.labels("offsite") == ["one"]


# The volume is full.


def test_on_a_full_volume_the_bucket_takes_the_backup_and_expire_makes_room(site: Site, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "4m") as volume:
        site.volume = volume
        shutil.move(tmp_path / "volume" / "repository", site.local)
        (volume.parent / "jetkeep.toml").unlink()
        site.configure()
        site.backup("two")
        with (volume / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        site.publish("ORDERS", 50)
        site.publish("NEW", 5)
        told = site.backup("three", check=3)
        assert "repository local (required) does NOT have this backup" in told
        assert "[store.full]" in told
        assert site.labels("local") == ["one", "two"]
        assert site.labels("offsite") == ["one", "two", "three"]
        assert "FAILED  room: 0 bytes free" in jetkeep("check", "-q", check=13)

        # The newest backup is in the bucket alone: nobody gets an older one without being told.
        assert "AHEAD: has 1 newer backup that local lacks: three" in jetkeep("info")
        site.lose("ORDERS")
        told = jetkeep("restore", check=40)
        assert "offsite has a newer backup than local: three" in told
        assert "[restore.newer-elsewhere]" in told
        assert "nothing was restored; local has none" in jetkeep("restore", "NEW", check=40)
        jetkeep("restore", "--backup", "two", "--dry-run")
        jetkeep("restore", "ORDERS", "-q", "--repo", "offsite")
        assert site.messages("ORDERS") == 350

        jetkeep("expire", "--keep-last", "1", "--repo", "local")
        (volume / "ballast").unlink()  # in a cluster: the volume was made larger
        jetkeep("copy", "-q", "--from", "offsite", "--to", "local")
        assert set(site.labels("local")) == {"one", "two", "three"}
        assert asked("verify")["sound"]


# The volume is lost.


def test_when_the_volume_is_lost_the_bucket_restores_and_fills_a_new_one(site: Site) -> None:
    site.backup("two")
    shutil.rmtree(site.volume)
    site.lose("ORDERS")
    told = jetkeep("info", check=10)
    assert "[repository.absent]" in told
    assert "offsite has 2 backups, the newest is two" in told
    assert "AHEAD: has 2 newer backups" in jetkeep("check", "-q")
    jetkeep("drill", "-q", "--repo", "offsite")
    assert "offsite is: there is no repository" in jetkeep("restore")
    assert site.messages("ORDERS") == 300
    site.backup("three")
    jetkeep("copy", "-q", "--from", "offsite", "--to", "local")
    assert set(site.labels("local")) == {"one", "two", "three"}
    assert asked("verify")["sound"]


def test_leases_and_records_alone_are_no_reason_to_refuse_a_volume(site: Site) -> None:
    shutil.rmtree(site.local)
    for name in ("leases/backup-00.json", "runs/20261124T040631.000000Z-backup-partial-00.json"):
        (site.local / name).parent.mkdir(parents=True)
        (site.local / name).write_bytes(b"")
    site.backup("two")
    assert site.labels("local") == ["two"]


# Velero is down.


def test_what_velero_brought_back_by_half_is_found_and_made_whole_from_the_bucket(site: Site) -> None:
    """Nothing of jetkeep asks Velero for anything; what it can do is to leave a volume with a part of its files."""
    segments = sorted(site.local.rglob("segments/*"))
    segments[0].unlink()
    manifest = next(site.local.rglob("manifests/*"))
    manifest.write_bytes(manifest.read_bytes()[:100])
    assert f"{site.bucket.url} has it: --repair brings it back" in jetkeep("verify", check=30)
    jetkeep("verify", "--repair", "-q")
    assert asked("verify")["sound"]
    site.lose("ORDERS")
    jetkeep("restore", "-q")
    assert site.messages("ORDERS") == 300


# No credentials.


def test_without_credentials_for_the_bucket_the_volume_still_gets_its_backups(site: Site) -> None:
    site.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "REPLACE-ME")
    told = site.backup("two")
    assert "[store.credentials]" in told
    assert site.labels("local") == ["one", "two"]
    told = jetkeep("info", "--repo", "offsite", check=12)
    assert "it does not know these credentials" in told


def test_without_credentials_for_nats_nothing_is_lost_and_all_that_is_stored_can_be_used(site: Site) -> None:
    told = jetkeep("backup", "--creds", "/etc/nats-creds/default/nats.creds", check=2)
    assert "there is no file /etc/nats-creds/default/nats.creds" in told
    users = {"authorization": {"users": [{"user": "backup", "password": "right"}]}}
    with closing(Sandbox(NEWEST, users)) as guarded:
        asyncio.run(guarded.start())
        told = jetkeep("backup", "--server", guarded.url, "--user", "backup", "--password", "wrong", check=20)
    assert "[nats.denied]" in told
    assert asked("verify")["sound"]


# The clock is wrong.


@pytest.mark.parametrize("hours", [3, -3])
def test_with_a_wrong_clock_the_volume_gets_its_backup_the_bucket_refuses_and_nothing_expires(
    site: Site, tmp_path: Path, hours: int
) -> None:
    for name, value in wrong_clock(tmp_path, hours * 3600).items():
        site.monkeypatch.setenv(name, value)
    done = run("backup", "--label", "two", repo="", url=site.nats.url)
    assert "seconds ahead of the store's" in done.stderr if hours > 0 else "seconds behind the store's" in done.stderr
    assert "[store.clock]" in done.stdout
    assert "WARNING clock: this machine's is" in run("check", "-q", repo="", url=site.nats.url, check=None).stdout
    done = run("expire", "--keep-last", "1", "--repo", "local", repo="", check=13)
    assert "nothing was expired" in done.stderr
    for name in ("LD_PRELOAD", "CLOCK_SHIFT_S"):
        site.monkeypatch.delenv(name)
    assert site.labels("local") == (["one", "two"] if hours > 0 else ["two", "one"])
    if hours > 0:
        assert "two is from the future" in jetkeep("check", "-q")
    assert asked("verify")["sound"]


# The key is lost.


def test_when_an_identity_is_lost_backups_go_on_and_the_other_identity_reads(site: Site, tmp_path: Path) -> None:
    recipients = [jetkeep("key", "new", str(tmp_path / name)).strip() for name in ("daily", "offline", "stranger")]
    sealed = str(tmp_path / "sealed")
    jetkeep("init", "-q", "--repo", sealed, "--encrypt-to", recipients[0], "--encrypt-to", recipients[1])
    site.monkeypatch.delenv("JETKEEP_CONFIG")
    site.monkeypatch.setenv("JETKEEP_REPO", sealed)
    jetkeep("backup", "-q")
    jetkeep("info")
    jetkeep("expire", "--keep-last", "1")
    assert "digests were compared, nothing was looked into" in jetkeep("verify")
    assert "ok      keys: sealed for 2" in jetkeep("check")
    site.lose("ORDERS")
    assert "[key.none]" in jetkeep("restore", check=12)
    assert "[key.wrong]" in jetkeep("restore", "--identity", str(tmp_path / "stranger"), check=12)
    jetkeep("restore", "-q", "--identity", str(tmp_path / "offline"))
    assert site.messages("ORDERS") == 300
    # Whoever has one identity makes another, and takes the lost one away.
    new = jetkeep("key", "new", str(tmp_path / "new")).strip()
    jetkeep("key", "add", new, "--identity", str(tmp_path / "offline"))
    jetkeep("key", "remove", recipients[0], "--identity", str(tmp_path / "new"))
    assert "[key.wrong]" in jetkeep("drill", "--identity", str(tmp_path / "daily"), check=12)
    jetkeep("drill", "-q", "--identity", str(tmp_path / "new"))


def test_when_the_stored_keys_are_gone_every_command_says_so_until_they_are_put_back(
    site: Site, tmp_path: Path
) -> None:
    recipient = jetkeep("key", "new", str(tmp_path / "identity")).strip()
    sealed = tmp_path / "sealed"
    jetkeep("init", "-q", "--repo", str(sealed), "--encrypt-to", recipient)
    site.monkeypatch.delenv("JETKEEP_CONFIG")
    site.monkeypatch.setenv("JETKEEP_REPO", str(sealed))
    jetkeep("backup", "-q")
    shutil.move(sealed / "keys", tmp_path / "kept")
    assert "[key.missing]" in jetkeep("backup", check=12)
    assert "FAILED  keys: the keys of" in jetkeep("check", "-q", check=12)
    told = jetkeep("verify", check=30)
    assert re.search(r"the keys of \S+ are missing", told)
    shutil.move(tmp_path / "kept", sealed / "keys")
    jetkeep("verify", "-q", "--identity", str(tmp_path / "identity"))
    jetkeep("drill", "-q", "--identity", str(tmp_path / "identity"))
