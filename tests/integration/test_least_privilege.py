"""Users who have exactly what deploy/policies grants: each does its part on real servers, and no other."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jetkeep.sandbox import Sandbox
from jetkeep.sandbox.binaries import binary_for
from tests.backing_up import run, told
from tests.conftest import StartServer
from tests.object_stores.roles import POLICIES, USERS, grant, grant_roles, statements
from tests.object_stores.seaweed import Seaweed
from tests.publisher import Publisher
from tests.restoring import connected, consumer

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "permissions.md"
NATS = POLICIES / "nats"


# NATS.


def subjects(name: str) -> list[str]:
    """What a file lets its user publish to."""
    text = (NATS / name).read_text()
    assert 'subscribe: ["_INBOX.>"]' in text
    return re.findall(r'^  "(\S+)"$', text.partition("publish: [")[2].partition("]")[0], re.MULTILINE)


def on_the_page(part: str) -> list[str]:
    section = PAGE.read_text().partition(f"## {part}\n")[2].partition("\n## ")[0]
    return re.findall(r"(\$(?:JS|SYS)\S+)", section.partition("```text")[2].partition("```")[0])


def test_the_files_are_what_the_page_says_and_no_more() -> None:
    assert subjects("backup.conf") == on_the_page("Backup")
    assert subjects("restore.conf") == on_the_page("Backup") + on_the_page("Restore")


@pytest.mark.parametrize("version", ["2.10.26", "2.15.1"])
def test_a_server_takes_the_files_as_they_are(tmp_path: Path, version: str) -> None:
    users = "\n".join(
        f'{{ user: {name}, password: p, permissions: {{ include "{NATS.name}/{name}.conf" }} }}'
        for name in ("backup", "restore", "check", "drill")
    )
    (tmp_path / NATS.name).symlink_to(NATS)
    (tmp_path / "server.conf").write_text(f"authorization {{ users = [\n{users}\n] }}\n")
    binary, _ = binary_for(version)
    done = subprocess.run([binary, "-t", "-c", tmp_path / "server.conf"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def guarded(start_server: StartServer, version: str) -> Sandbox:
    users: list[dict[str, Any]] = [{"user": "all", "password": "p"}]
    for name in ("backup", "restore"):
        permissions = {"publish": subjects(f"{name}.conf"), "subscribe": ["_INBOX.>"]}
        users.append({"user": name, "password": "p", "permissions": permissions})
    server = await start_server(version, {"authorization": {"users": users}})
    async with connected(server, user="all", password="p") as js:
        for name, storage, retention in (
            ("A", "file", "limits"),
            ("M", "memory", "limits"),
            ("W", "file", "workqueue"),
        ):
            await js.create_stream(
                {
                    "name": name,
                    "subjects": [f"{name}.>"],
                    "storage": storage,
                    "retention": retention,
                    "allow_direct": True,
                }
            )
        await consumer(js, "A", "c")
    async with Publisher(server.url, "all", "p") as publisher:
        for name in "AMW":
            await publisher.store_all((f"{name}.x", b"x" * 50_000, b"") for _ in range(60))
    return server


@pytest.mark.parametrize("version", ["2.10.26", "2.12.8", "2.15.1"])
def test_backup_check_and_restore_work_with_these_permissions_alone(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    server = asyncio.run(guarded(start_server, version))
    monkeypatch.setenv("NATS_PASSWORD", "p")
    monkeypatch.setenv("NATS_USER", "backup")
    checked = told(run("check", "--json", repo=tmp_path, url=server.url))
    assert {one["name"] for one in checked["probes"] if one["level"] != "OK"} == {"repository"}
    run("backup", repo=tmp_path, url=server.url)
    asyncio.run(lost(server))
    refused = run("restore", "A", "--json", repo=tmp_path, url=server.url, check=None)
    assert refused.returncode == 20
    assert "STREAM.RESTORE" in refused.stdout
    monkeypatch.setenv("NATS_USER", "restore")
    checked = told(run("check", "--restore", "--json", repo=tmp_path, url=server.url))
    assert [one for one in checked["probes"] if one["level"] != "OK"] == []
    restored = told(run("restore", "--storage", "file", "--json", repo=tmp_path, url=server.url))
    assert {one["stream"]: (one["status"], one["messages"]) for one in restored["streams"]} == dict.fromkeys(
        "AMW", ("restored", 60)
    )


async def lost(server: Sandbox) -> None:
    async with connected(server, user="all", password="p") as js:
        for name in "AMW":
            await js.delete_stream(name)


# S3.


@pytest.fixture
def role(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`role("writer")`: from here on jetkeep is this role's user."""

    def be(name: str) -> None:
        for variable, value in seaweed.environment(USERS.get(name, name)).items():
            monkeypatch.setenv(variable, value)

    return be


def levels(bucket: str) -> dict[str, tuple[str, str]]:
    """What `check --store` says: level and words by probe."""
    done = run("check", "--store", "--no-server", "--json", repo=bucket, check=None)
    return {one["name"]: (one["level"], one["what"]) for one in told(done)["probes"]}


def test_each_role_does_its_part_and_no_other(
    start_server: StartServer, seaweed: Seaweed, role: Callable[[str], None]
) -> None:
    nats, empty = asyncio.run(start_server()), asyncio.run(start_server())
    asyncio.run(some(nats))
    bucket = seaweed.create_bucket()
    repo = f"s3://{bucket}"
    grant_roles(seaweed, bucket)
    role("writer")
    for label in ("one", "two"):
        done = run("backup", "--label", label, repo=repo, url=nats.url)
        assert "may not delete" not in done.stderr
    assert told(run("expire", "--keep-last", "1", "--json", repo=repo, check=12))["error"]["code"] == "store.denied"
    role("reader")
    for words in (("info",), ("verify",), ("cat", "A", "--limit", "1"), ("restore",)):
        run(*words, repo=repo, url=empty.url)
    assert told(run("backup", "--json", repo=repo, url=nats.url, check=12))["error"]["code"] == "store.denied"
    assert told(run("expire", "--keep-last", "1", "--json", repo=repo, check=12))["error"]["code"] == "store.denied"
    role("expirer")
    done = run("expire", "--keep-last", "1", "--json", repo=repo)
    assert told(done)["repositories"][0]["expired"] == ["one"]
    assert told(run("backup", "--json", repo=repo, url=nats.url, check=12))["error"]["code"] == "store.denied"
    role("reader")
    run("verify", repo=repo)
    role("stranger")
    assert told(run("info", "--json", repo=repo, check=12))["error"]["code"] == "store.denied"


async def some(server: Sandbox) -> None:
    async with Publisher(server.url) as publisher:
        await publisher.create("A", storage="file", subjects=["A.>"])
        await publisher.store_all((f"A.{at}", b"x", b"") for at in range(20))


#: Without this action of the writer's policy: the probe that tells, its level, and words of it.
MISSING = {
    "s3:ListBucket": ("store: list", "CRITICAL", "refused to list"),
    "s3:GetObject": ("store: read", "CRITICAL", "refused to read"),
    "s3:PutObject": ("store: add", "CRITICAL", "refused to write"),
    "s3:DeleteObject": ("store: delete leases", "OK", "end by themselves"),
}


@pytest.mark.parametrize("action", MISSING)
def test_one_permission_less_is_named_by_check(
    start_server: StartServer, seaweed: Seaweed, role: Callable[[str], None], action: str
) -> None:
    bucket = seaweed.create_bucket()
    role("admin")
    run("init", repo=f"s3://{bucket}")
    left = [
        {**one, "Action": [name for name in one["Action"] if name != action]} for one in statements("writer", bucket)
    ]
    grant(seaweed, bucket, [one for one in left if one["Action"]])
    role("writer")
    nats = asyncio.run(start_server())
    done = run("check", "--store", "--json", repo=f"s3://{bucket}", url=nats.url, check=None)
    probes = {one["name"]: one for one in told(done)["probes"]}
    name, level, words = MISSING[action]
    assert (probes[name]["level"], words in probes[name]["what"]) == (level, True), probes[name]
    assert done.returncode == (0 if level == "OK" else 12)


def test_check_says_what_each_role_may_do_and_leaves_nothing(seaweed: Seaweed, role: Callable[[str], None]) -> None:
    bucket = seaweed.create_bucket()
    role("admin")
    run("init", repo=f"s3://{bucket}")
    grant_roles(seaweed, bucket)
    may = {}
    for name in USERS:
        role(name)
        found = levels(f"s3://{bucket}")
        may[name] = [
            found[f"store: {what}"][1].startswith("permitted") for what in ("read", "make backups", "delete backups")
        ]
    assert may == {"writer": [True, True, False], "reader": [True, False, False], "expirer": [True, False, True]}
    keys = re.findall("<Key>([^<]*)</Key>", seaweed.request("GET", f"/{bucket}?list-type=2").body.decode())
    assert keys == ["jetkeep.json"]
