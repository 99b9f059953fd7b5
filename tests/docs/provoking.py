"""Provokes the errors of docs/how-to/troubleshoot.md: each function breaks something real and returns what is then said."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jetkeep.repository.leases import lease
from jetkeep.repository.local import LocalStore
from jetkeep.sandbox import Sandbox
from tests.backing_up import run
from tests.degraded.site import Site, jetkeep
from tests.mounts import make_read_only, small_disk
from tests.publisher import Publisher
from tests.versions import NEWEST
from tests.wrong_clock import wrong_clock

TLS = Path(__file__).parents[1] / "integration" / "tls"
Provoke = Callable[[Site], str]


def _elsewhere(config: dict[str, Any], *words: str) -> str:
    """A backup of another server with this configuration."""
    with closing(Sandbox(NEWEST, config)) as server:
        asyncio.run(server.start())
        return jetkeep("backup", "--server", server.url, *words, check=None)


def _unreachable(site: Site) -> str:
    site.nats.kill()
    return jetkeep("backup", check=20)


def _denied(site: Site) -> str:
    users = {"authorization": {"users": [{"user": "backup", "password": "right"}]}}
    return _elsewhere(users, "--user", "backup", "--password", "wrong")


def _tls(site: Site) -> str:
    files = {"cert_file": str(TLS / "server.pem"), "key_file": str(TLS / "server.key")}
    return _elsewhere({"tls": files})


def _no_jetstream(site: Site) -> str:
    return _elsewhere({"jetstream": None})


def _permission(site: Site) -> str:
    permissions = {"publish": {"deny": ["$JS.API.STREAM.LIST"]}}
    users = [{"user": "backup", "password": "p", "permissions": permissions}]
    return _elsewhere({"authorization": {"users": users}}, "--user", "backup", "--password", "p")


def _no_such_stream(site: Site) -> str:
    return jetkeep("backup", "ODERS", check=2)


def _label_taken(site: Site) -> str:
    return jetkeep("backup", "--label", "one", check=2)


def _files_unsealed(site: Site) -> str:
    return jetkeep("backup", "--include-files", str(site.local / "jetkeep.json"), check=2)


def _absent(site: Site) -> str:
    return jetkeep("info", "--repo", "/nonexistent/backups", check=10)


def _not_empty(site: Site) -> str:
    (site.volume / "other").mkdir()
    (site.volume / "other" / "letter.txt").write_text("not ours")
    return jetkeep("backup", "--repo", str(site.volume / "other"), check=2)


def _full(site: Site) -> str:
    with small_disk(site.volume / "small", "1m") as disk:
        site.publish("BIG", 40, size=100_000)
        (disk / "ballast").write_bytes(bytes(1_020_000))
        return jetkeep("backup", "--repo", str(disk / "repository"), check=13)


def _read_only(site: Site) -> str:
    with small_disk(site.volume / "small", "4m") as disk:
        jetkeep("backup", "-q", "--repo", str(disk / "repository"))
        make_read_only(disk)
        return jetkeep("backup", "--repo", str(disk / "repository"), check=12)


def _not_permitted(site: Site) -> str:
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and setpriv is None:
        pytest.skip("root may write everywhere, and there is no setpriv to forbid it")
    # What lets root pass by the modes of files is taken away.
    without = [str(setpriv), "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    folder = site.local / "leases"
    folder.chmod(0o500)
    command = [*without, sys.executable, "-m", "jetkeep", "backup", "--repo", str(site.local)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    folder.chmod(0o700)
    if "Operation not permitted" in done.stderr and "setpriv" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 12
    return done.stderr


def _locked(site: Site) -> str:
    async def hold() -> str:
        async with lease(LocalStore(site.local), "expire", now_ns=time.time_ns):
            told = asyncio.to_thread(run, "expire", "--keep-last", "1", "--repo", "local", repo="", check=11)
            return (await told).stderr

    return asyncio.run(hold())


def _damaged(site: Site) -> str:
    segment = next(site.local.rglob("segments/*"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    return jetkeep("export", "ORDERS", str(site.volume / "out"), "--repo", "local", check=30)


def _clock(site: Site) -> str:
    for name, value in wrong_clock(site.volume, 7200).items():
        site.monkeypatch.setenv(name, value)
    return run("expire", "--repo", "local", "--keep-last", "1", repo="", check=13).stderr


def _store_unreachable(site: Site) -> str:
    site.monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    return jetkeep("info", "--repo", "offsite", check=13)


def _store_credentials(site: Site) -> str:
    site.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "REPLACE-ME")
    return jetkeep("info", "--repo", "offsite", check=12)


def _no_credentials(site: Site) -> str:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        site.monkeypatch.delenv(name)
    site.monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    return jetkeep("info", "--repo", "offsite", check=12)


def _store_denied(site: Site) -> str:
    for name, value in site.bucket.server.environment("reader").items():
        site.monkeypatch.setenv(name, value)
    return jetkeep("backup", "--repo", "offsite", check=12)


def _no_bucket(site: Site) -> str:
    return jetkeep("info", "--repo", "s3://nobody-made-this/x", check=13)


def _plain_http(site: Site) -> str:
    site.monkeypatch.delenv("AWS_ALLOW_HTTP")
    return jetkeep("info", "--repo", "offsite", check=2)


def _exists(site: Site) -> str:
    return jetkeep("restore", "ORDERS", check=40)


def _newer_elsewhere(site: Site) -> str:
    jetkeep("backup", "-q", "--repo", "offsite", "--label", "two")
    return jetkeep("restore", check=40)


def _loss(site: Site) -> str:
    """Messages that are older than what the stream keeps by the time it is restored."""

    async def aged() -> None:
        async with Publisher(site.nats.url) as publisher:
            await publisher.create("SHORT", max_age=300_000_000, duplicate_window=100_000_000)
            await publisher.store_all((f"SHORT.{at}", b"soon gone", b"") for at in range(5))

    asyncio.run(aged())
    jetkeep("backup", "SHORT", "-q")
    site.lose("SHORT")
    time.sleep(0.4)
    return jetkeep("restore", "SHORT", "--dry-run", check=40)


def _incomplete(site: Site) -> str:
    jetkeep("backup", "-q", "--shard", "0/2", "--label", "night")
    return jetkeep("restore", "--backup", "night", check=2)


def _set_parts(site: Site) -> str:
    jetkeep("backup", "-q", "--shard", "0/2", "--label", "night")
    return jetkeep("backup", "-q", "--shard", "0/3", "--label", "night", check=2)


def _several_sources(site: Site) -> str:
    path = site.volume.parent / "jetkeep.toml"
    urls = "".join(f"\n[sources.{name}]\nserver = '{site.nats.url}'" for name in ("east", "west"))
    path.write_text(path.read_text() + urls)
    jetkeep("backup", "-q", "--all-sources", "--label", "night")
    return jetkeep("restore", "ORDERS", "--backup", "night", check=2)


def _sealed(site: Site) -> str:
    """A sealed repository with a backup; where it is."""
    recipient = jetkeep("key", "new", str(site.volume / "identity")).strip()
    where = str(site.volume / "sealed")
    jetkeep("init", "-q", "--repo", where, "--encrypt-to", recipient)
    jetkeep("backup", "-q", "--repo", where)
    return where


def _no_identity(site: Site) -> str:
    return jetkeep("restore", "--repo", _sealed(site), check=12)


def _wrong_identity(site: Site) -> str:
    where = _sealed(site)
    jetkeep("key", "new", str(site.volume / "other"))
    return jetkeep("restore", "--repo", where, "--identity", str(site.volume / "other"), check=12)


def _no_keys(site: Site) -> str:
    where = _sealed(site)
    shutil.rmtree(Path(where) / "keys")
    return jetkeep("backup", "--repo", where, check=12)


#: By the words of the page's first column, as far as the first `…`, and the code: several may have one.
PROVOKED: dict[str, Provoke] = {
    "nats.unreachable": _unreachable,
    "nats.denied": _denied,
    "nats.tls": _tls,
    "nats.no-jetstream": _no_jetstream,
    "nats.permission": _permission,
    "usage.secret": lambda _: jetkeep("backup", "--creds", "/etc/nats-creds/nats.creds", check=2),
    "usage.context": lambda _: jetkeep("backup", "--context", "prod", check=2),
    "usage.no-such-stream": _no_such_stream,
    "usage.label-taken": _label_taken,
    "usage.files-unsealed": _files_unsealed,
    "repository.absent": _absent,
    "usage.not-empty": _not_empty,
    "store.full": _full,
    "store.denied: Read-only file system": _read_only,
    "store.denied: Permission denied": _not_permitted,
    "store.denied": _store_denied,
    "repository.locked": _locked,
    "data.damaged": _damaged,
    "store.clock": _clock,
    "store.unreachable": _store_unreachable,
    "store.credentials": _store_credentials,
    "store.no-credentials": _no_credentials,
    "store.no-bucket": _no_bucket,
    "usage.plain-http": _plain_http,
    "restore.exists": _exists,
    "restore.newer-elsewhere": _newer_elsewhere,
    "restore.loss-max-age": _loss,
    "usage.set-incomplete": _incomplete,
    "usage.stream-of-several-sources": _several_sources,
    "usage.set-parts": _set_parts,
    "key.none": _no_identity,
    "key.wrong": _wrong_identity,
    "key.missing": _no_keys,
}
