"""Drills on real servers: what they compare, what they must find, what they keep, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jetkeep import evidence
from jetkeep.capture.run import BackupOptions, back_up
from jetkeep.catalog import choose_streams, find_backup
from jetkeep.drill import DrillOptions, DrillReport, choose_at_random, drill
from jetkeep.errors import ServerError, UsageError
from jetkeep.repository import layout
from jetkeep.repository.documents import ConsumerDoc, Manifest
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from tests.conftest import StartServer
from tests.publisher import Publisher
from tests.restoring import HOUR, SECOND, connected, consumer, fetch, keep, quiet

BLOCK = b"NATS/1.0\r\nA: 1\r\na: 2\r\nA: 1\r\n\r\n"


async def kept_shop(start_server: StartServer, folder: Path, version: str | None = None) -> None:
    """A backup of an ordinary stream, one in memory, a work queue with pending messages, an interest stream, an empty one."""
    server = await start_server(version)
    kinds: dict[str, dict[str, Any]] = {
        "A": {"max_age": HOUR},
        "E": {},
        "I": {"retention": "interest"},
        "M": {"storage": "memory"},
    }
    async with connected(server) as js:
        for name, more in {**kinds, "W": {"retention": "workqueue"}}.items():
            await js.create_stream(
                {"name": name, "subjects": [f"{name}.>"], "storage": "file", "retention": "limits", **more}
            )
        await consumer(js, "I", "c", ack_wait=600 * SECOND)
        async with Publisher(server.url) as publisher:
            await publisher.store_all((f"{name}.x", b"%d" % at, BLOCK) for name in "AIMW" for at in range(60))
        await consumer(js, "W", "c", ack_wait=600 * SECOND)
        for name in "IW":
            await fetch(js, name, "c", 10, acks=[0, 1, 5])
        await keep(js, folder)


async def rehearse(
    folder: Path, options: DrillOptions, streams: tuple[str, ...] = (), *, forge: dict[str, Any] | None = None
) -> tuple[DrillReport, Repository]:
    repository = await Repository.open(LocalStore(folder))
    backup = await find_backup(repository, None)
    chosen = await choose_streams(repository, backup, streams)
    if forge:
        object.__setattr__(chosen[0], "manifest", msgspec.structs.replace(chosen[0].manifest, **forge))
    return await drill(repository, backup, chosen, options, emit=quiet), repository


@pytest.mark.parametrize("version", ["2.10.26", "2.12.8", "2.15.1"])
async def test_everything_is_compared_on_the_chosen_version(
    start_server: StartServer, tmp_path: Path, version: str
) -> None:
    await kept_shop(start_server, tmp_path)
    report, repository = await rehearse(tmp_path, DrillOptions(version=version, sample=10, seed=1))
    assert (report.verdict, report.failures, report.status) == ("SUCCESSFUL", [], 0)
    assert report.server_version == version
    sampled = {one.manifest.stream: one.sample["compared"] for one in report.streams}
    assert sampled == {"A": 10, "E": 0, "I": 10, "M": 10, "W": 10}
    stored = await evidence.newest(repository)
    assert stored is not None
    assert stored.key == report.key
    assert report.document == stored.body


async def test_evidence_says_what_was_expected_and_what_was_found(start_server: StartServer, tmp_path: Path) -> None:
    await kept_shop(start_server, tmp_path)
    report, repository = await rehearse(tmp_path, DrillOptions(sample=5, triggered_by="a test"))
    document = report.document
    backup = await find_backup(repository, None)
    assert document["verdict"] == "SUCCESSFUL"
    assert document["triggered_by"] == "a test"
    assert document["backup"]["label"] == backup.label
    commit = (tmp_path / layout.backup_key(backup.label)).read_bytes()
    assert document["backup"]["sha256"] == hashlib.sha256(commit).hexdigest()
    assert document["backup"]["manifests"] == [
        {"stream": one.name, "sha256": one.manifest.sha256} for one in backup.streams if one.manifest is not None
    ]
    streams = {one["stream"]: one for one in document["streams"]}
    for one in streams.values():
        assert one["expected"] == one["found"]
    (queue,) = streams["W"]["consumers"]
    assert queue["expected"] == queue["found"]
    assert (queue["found"]["delivered"]["stream_seq"], queue["found"]["pending"]) == (10, 7)
    assert streams["A"]["changed_for_the_drill"] == ["max_age"]
    assert document["rpo"]["seconds"] > 0
    recovery = ("start server", "plan", "fetch", "send", "settle", "compare messages", "open")
    assert document["rto"]["seconds"] == pytest.approx(
        sum(document["rto"]["phases"][one] for one in recovery), abs=0.01
    )
    assert "loopback" in document["server"]["segregation"]
    assert document["next_due"] > document["finished_at"]
    assert document["required_action"] == ""


async def test_the_backup_s_own_release_is_the_default(start_server: StartServer, tmp_path: Path) -> None:
    await kept_shop(start_server, tmp_path, "2.11.11")
    report, _ = await rehearse(tmp_path, DrillOptions())
    assert (report.verdict, report.server_version) == ("SUCCESSFUL", "2.11.11")


async def test_every_kind_of_configuration_is_rehearsed_alone(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    kinds: dict[str, dict[str, Any]] = {
        "MIRROR": {"mirror": {"name": "PLAIN"}, "mirror_direct": True},
        "ELSEWHERE": {"mirror": {"name": "X", "external": {"api": "$JS.other.API", "deliver": "d"}}},
        "SOURCED": {"sources": [{"name": "PLAIN"}]},
        "REFUSING": {"discard": "new", "discard_new_per_subject": True, "max_msgs_per_subject": 100},
        "DENYING": {"deny_delete": True, "deny_purge": True},
        "REPUBLISHED": {"republish": {"src": "REPUBLISHED.>", "dest": "out.>"}},
        "TTL": {"allow_msg_ttl": True, "subject_delete_marker_ttl": 60 * SECOND, "allow_rollup_hdrs": True},
        "COUNTER": {"allow_msg_counter": True},
        "SCHEDULED": {"allow_msg_schedules": True, "allow_rollup_hdrs": True},
        "MEMORY": {"storage": "memory", "allow_msg_ttl": True},
        "CHANGED": {"subject_transform": {"src": "CHANGED.>", "dest": "other.>"}},
        "LIMITED": {"max_msgs": 500, "max_age": HOUR, "max_msg_size": 1000, "max_consumers": 1,
                    "consumer_limits": {"inactive_threshold": 60 * SECOND, "max_ack_pending": 100}},
    }  # fmt: skip
    async with connected(server) as js:
        for name, more in {"PLAIN": {}, **kinds}.items():
            own = {} if "mirror" in more or "sources" in more else {"subjects": [f"{name}.>"]}
            await js.create_stream({"name": name, "storage": "file", "retention": "limits", **own, **more})
            if own and name != "COUNTER":
                async with Publisher(server.url) as publisher:
                    await publisher.store_all((f"{name}.{at % 5}", b"%d" % at, b"") for at in range(20))
        await js.update_stream((await js.stream_info("DENYING"))["config"] | {"sealed": True})
        await keep(js, tmp_path)
    for version in ("2.10.26", "2.15.1"):
        report, _ = await rehearse(tmp_path, DrillOptions(version=version, sample=3))
        assert report.failures == []
        assert len(report.streams) == len(kinds) + 1


async def test_consumers_whose_last_delivery_is_past_are_a_named_deviation(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server("2.12.8")
    async with connected(server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file", "retention": "limits"})
        async with Publisher(server.url) as publisher:
            await publisher.store_all(("s", b"", b"") for _ in range(20))
        await consumer(js, "S", "once", ack_wait=SECOND // 2, max_deliver=1)
        await fetch(js, "S", "once", 10, acks=[0])
        await keep(js, tmp_path)
    time.sleep(1)
    for version in ("2.10.26", "2.11.11", "2.12.8", "2.14.6", "2.15.1"):
        report, _ = await rehearse(tmp_path, DrillOptions(version=version, sample=0))
        assert report.failures == []
        assert "9 pending messages may be given up" in " ".join(report.streams[0].deviations)


async def test_subjects_that_no_client_can_show_are_counted_as_left_out(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server()
    async with connected(server) as js:
        for name, retention in (("S", "limits"), ("W", "workqueue")):
            await js.create_stream(
                {
                    "name": name,
                    "subjects": [f"{name}.*"],
                    "storage": "file",
                    "retention": retention,
                    "allow_direct": True,
                }
            )
        async with Publisher(server.url) as publisher:
            for prefix in (b"S.", b"W."):
                await publisher.store_all((prefix + (b"\xff" if at > 3 else b"x"), b"", b"") for at in range(10))
        await keep(js, tmp_path)
    report, _ = await rehearse(tmp_path, DrillOptions(sample=10))
    assert report.verdict == "SUCCESSFUL"
    assert [one.sample for one in report.streams] == [{"compared": 4, "left_out": 6}] * 2


async def test_a_forged_fingerprint_fails_the_drill_and_leaves_evidence(
    start_server: StartServer, tmp_path: Path
) -> None:
    await kept_shop(start_server, tmp_path)
    report, repository = await rehearse(tmp_path, DrillOptions(), forge={"fingerprint": "0" * 32})
    assert (report.verdict, report.status) == ("FAILED", 30)
    stored = await evidence.newest(repository)
    assert stored is not None
    assert stored.body["verdict"] == "FAILED"
    assert "drill" in stored.body["required_action"]
    assert [one["verdict"] for one in stored.body["streams"]] == ["FAILED"] + ["SUCCESSFUL"] * 4


async def test_a_forged_consumer_fails_the_drill_and_is_named(start_server: StartServer, tmp_path: Path) -> None:
    await kept_shop(start_server, tmp_path)
    repository = await Repository.open(LocalStore(tmp_path))
    manifest = await _manifest(repository, "W")
    (known,) = manifest.consumers
    # No server lets a consumer be on a queue beside another one of the same subjects.
    twice = [known, ConsumerDoc(**{key: getattr(known, key) for key in known.__struct_fields__} | {"name": "d"})]
    report, _ = await rehearse(tmp_path, DrillOptions(), ("W",), forge={"consumers": twice})
    assert report.verdict == "FAILED"
    assert report.status in (20, 31)
    assert report.document["streams"][0]["error"]["code"]


async def _manifest(repository: Repository, stream: str) -> Manifest:
    return (await choose_streams(repository, await find_backup(repository, None), (stream,)))[0].manifest


async def test_damaged_bytes_fail_the_drill_with_their_own_status(start_server: StartServer, tmp_path: Path) -> None:
    await kept_shop(start_server, tmp_path)
    segment = next(tmp_path.glob("sources/*/A/*/segments/*.parquet"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o644)
    segment.write_bytes(data)
    done = jetkeep("drill", "--repo", str(tmp_path), "--json")
    assert done.returncode == 30
    document = json.loads(done.stdout)
    assert document["verdict"] == "FAILED"
    assert any(document["evidence"] in str(one) for one in tmp_path.rglob("evidence/*.json"))


async def test_the_user_s_check_decides(start_server: StartServer, tmp_path: Path) -> None:
    await kept_shop(start_server, tmp_path)
    good, _ = await rehearse(tmp_path, DrillOptions(command="echo well"))
    assert (good.verdict, good.document["user_check"]["output"]) == ("SUCCESSFUL", "well\n")
    bad, repository = await rehearse(tmp_path, DrillOptions(command="echo no; exit 7"))
    assert (bad.verdict, bad.status) == ("FAILED", 31)
    assert bad.document["user_check"]["status"] == 7
    assert "your" not in bad.document["required_action"]
    slow, _ = await rehearse(tmp_path, DrillOptions(command="sleep 100", command_timeout_s=0.5))
    assert (slow.verdict, slow.status) == ("TIMED_OUT", 31)
    stored = await evidence.newest(repository)
    assert stored is not None
    assert stored.body["verdict"] == "TIMED_OUT"


async def test_the_user_s_check_sees_queues_and_consumers_as_they_were(
    start_server: StartServer, tmp_path: Path
) -> None:
    await kept_shop(start_server, tmp_path)
    look = (
        "import asyncio, nats, os\n"
        "async def main():\n"
        "    js = (await nats.connect(os.environ['NATS_URL'])).jetstream()\n"
        "    for name in ('I', 'W'):\n"
        "        one = await js.consumer_info(name, 'c')\n"
        "        print(name, (await js.stream_info(name)).state.messages, one.num_ack_pending, one.delivered.stream_seq)\n"
        "asyncio.run(main())\n"
    )
    (tmp_path / "look.py").write_text(look)
    command = f"{sys.executable} {tmp_path}/look.py"
    report, _ = await rehearse(tmp_path, DrillOptions(command=command))
    assert report.check is not None
    assert report.check.output == "I 57 7 10\nW 57 7 10\n"
    assert report.verdict == "SUCCESSFUL"


async def test_no_secret_is_in_the_evidence(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept_shop(start_server, tmp_path)
    monkeypatch.setenv("NATS_PASSWORD", "planted-password")
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "planted-key")
    seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
    command = (
        f"env; echo url=$NATS_URL; echo planted-password planted-key {seed}; "
        'echo --password planted-by-flag; echo \'"token": "planted-in-json"\'; exit 1'
    )
    report, _ = await rehearse(tmp_path, DrillOptions(command=command))
    assert report.check is not None
    output = report.check.output
    password = output.partition("url=nats://drill:")[2].partition("@")[0]
    assert len(password) == 32
    assert "NATS_PASSWORD" not in output
    assert "S3_SECRET" not in output
    written = "".join(one.read_text() for one in tmp_path.glob("evidence/*.json"))
    assert "url=nats://" in written
    for secret in (password, "planted", seed):
        assert secret not in written


async def test_the_restored_data_is_not_open_to_others_on_the_machine(
    start_server: StartServer, tmp_path: Path
) -> None:
    await kept_shop(start_server, tmp_path)
    knock = "import asyncio, nats, os; u = os.environ['NATS_URL']; asyncio.run(nats.connect('nats://' + u.split('@')[1], allow_reconnect=False))"
    report, _ = await rehearse(tmp_path, DrillOptions(command=f'{sys.executable} -c "{knock}"'))
    assert report.check is not None
    assert report.check.status
    assert "Authorization" in report.check.output


async def test_chance_chooses_the_same_backup_and_sample_for_the_same_seed(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server()
    async with connected(server) as js:
        await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file", "retention": "limits"})
        for _ in range(4):
            async with Publisher(server.url) as publisher:
                await publisher.store("s")
            await keep(js, tmp_path)
    repository = await Repository.open(LocalStore(tmp_path))
    picked = [(await choose_at_random(repository, seed=seed)).label for seed in range(30)]
    assert picked == [(await choose_at_random(repository, ("S*",), "nats", seed=seed)).label for seed in range(30)]
    assert len(set(picked)) == 4
    with pytest.raises(UsageError):
        await choose_at_random(repository, ("OTHER",), seed=1)
    done = jetkeep("drill", "--random", "--seed", "5", "--repo", str(tmp_path), "--json")
    document = json.loads(done.stdout)
    assert (document["backup"]["label"], document["sample"]["seed"]) == (picked[5], 5)


async def test_an_empty_account_is_drilled(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server()
    async with connected(server) as js:
        await keep(js, tmp_path)
    done = jetkeep("drill", "--repo", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "SUCCESSFUL: 0 streams" in done.stdout


async def test_a_partial_backup_s_drill_names_what_is_missing_and_is_partial(
    start_server: StartServer, tmp_path: Path
) -> None:
    deny = {"publish": {"deny": ["$JS.API.STREAM.SNAPSHOT.B"]}}
    users = [{"user": "all", "password": "p"}, {"user": "some", "password": "p", "permissions": deny}]
    server = await start_server(None, {"authorization": {"users": users}})
    async with connected(server, user="all", password="p") as js:
        for name in "AB":
            await js.create_stream({"name": name, "subjects": [name], "storage": "file", "retention": "limits"})
    repository = await Repository.open_or_create(LocalStore(tmp_path), now_ns=time.time_ns)
    async with connected(server, user="some", password="p") as js:
        await back_up(js, repository, BackupOptions(label="half"), emit=quiet, now_ns=time.time_ns)
    done = jetkeep("drill", "--backup", "half", "--repo", str(tmp_path))
    assert done.returncode == 3
    assert "not in this drill: B: the server does not permit" in done.stdout
    assert jetkeep("drill", "A", "--backup", "half", "--repo", str(tmp_path)).returncode == 0


async def test_evidence_that_cannot_be_kept_is_an_error_after_the_result(
    start_server: StartServer, tmp_path: Path
) -> None:
    await kept_shop(start_server, tmp_path)
    (tmp_path / "evidence").write_bytes(b"")  # a file where the folder should be
    done = jetkeep("drill", "A", "--repo", str(tmp_path))
    assert done.returncode in (12, 13)
    assert "SUCCESSFUL" in done.stdout
    assert "error:" in done.stderr


async def test_without_room_nothing_is_started(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept_shop(start_server, tmp_path)
    monkeypatch.setattr("jetkeep.drill.run.ROOM_FACTOR", 1e12)
    with pytest.raises(ServerError) as refused:
        await rehearse(tmp_path, DrillOptions())
    assert refused.value.code == "sandbox.room"
    assert not list(tmp_path.glob("evidence/*"))


async def test_a_killed_drill_leaves_no_process_and_no_directory(start_server: StartServer, tmp_path: Path) -> None:
    await kept_shop(start_server, tmp_path / "repository")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    mark = tmp_path / "mark"
    command = f"sleep 987 & echo $$ $! > {mark}; wait"
    process = subprocess.Popen(
        [sys.executable, "-m", "jetkeep", "drill", "--repo", str(tmp_path / "repository"), "--run", command],
        env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _until(lambda: mark.exists() and len(mark.read_text().split()) == 2)
    pids = [int(one) for one in mark.read_text().split()]
    assert len(list(temporary.glob("jetkeep-*"))) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    _until(lambda: not list(temporary.iterdir()) and not any(Path(f"/proc/{pid}").exists() for pid in pids))


def _until(true: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_an_interrupted_drill_ends_with_its_status_and_leaves_nothing(
    start_server: StartServer, tmp_path: Path
) -> None:
    await kept_shop(start_server, tmp_path / "repository")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-m", "jetkeep", "drill", "--repo", str(tmp_path / "repository"), "--run", f"touch {mark}; sleep 987"],
        env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    _until(mark.exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert list(temporary.iterdir()) == []


def jetkeep(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "jetkeep", *arguments], capture_output=True, text=True, check=False)


def test_two_ways_to_choose_are_refused(tmp_path: Path) -> None:
    done = jetkeep("drill", "--random", "--backup", "x", "--repo", str(tmp_path))
    assert done.returncode == 2
