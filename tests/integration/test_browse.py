"""Messages are read from a backup by sequence, time and subject, without reading what cannot hold them."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetkeep.assembly import segments
from jetkeep.browse import Wanted, browse, subject_pattern
from jetkeep.catalog import Chosen, choose_streams
from jetkeep.codecs.archive import ArchiveEncoder
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.s2 import S2Encoder
from jetkeep.errors import BadDataError, UsageError
from jetkeep.interchange.importing import ImportOptions, import_directory
from jetkeep.model import Message
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository

TS = 1_795_439_700_000_000_000
SECOND = 10**9


def stored(count: int = 600) -> list[Message]:
    """Messages of every other sequence, a second apart, on a few subjects."""
    random.seed(7)
    subjects = [b"a", b"a.b", b"a.b.c", b"a.c.c", b"b.\xff", b"b"]
    return [
        Message(2 * at, TS + at * SECOND, random.choice(subjects), b"", b"%d" % at * 40) for at in range(1, count + 1)
    ]


async def repository_of(messages: list[Message], folder: Path) -> tuple[Repository, Chosen]:
    """A repository with these messages, in many small segments."""
    state = {"messages": len(messages), "bytes": 1, "first_seq": 2, "last_seq": messages[-1].seq, "consumer_count": 0}
    encoder = ArchiveEncoder()
    parts = [encoder.begin(state, [])]
    parts += [encoder.messages(MessageBatch.of(messages[at : at + 50])) for at in range(0, len(messages), 50)]
    source = folder / "S"
    source.mkdir()
    (source / "backup.json").write_text(json.dumps({"config": {"name": "S", "storage": "file"}, "state": state}))
    frames = S2Encoder()
    with (source / "stream.arc.s2").open("wb") as file:
        file.writelines(frames.encode(part) for part in [*parts, encoder.end()])
    repository = await Repository.open_or_create(LocalStore(folder / "repo"), now_ns=time.time_ns)
    report = await import_directory(source, repository, ImportOptions(), emit=lambda _: None, now_ns=time.time_ns)
    return repository, (await choose_streams(repository, report.backup))[0]


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 4000)
    monkeypatch.setattr("jetkeep.codecs.archive.BATCH_ROWS", 50)


async def found(repository: Repository, chosen: Chosen, wanted: Wanted) -> list[Message]:
    return [message async for message in browse(repository, chosen.manifest, wanted)]


async def test_what_is_given_is_what_a_plain_filter_gives(tmp_path: Path) -> None:
    everything = stored()
    repository, chosen = await repository_of(everything, tmp_path)
    assert await found(repository, chosen, Wanted()) == everything
    for wanted in (
        Wanted(first=100, last=101),
        Wanted(first=7, last=7),
        Wanted(first=1199),
        Wanted(first=5000),
        Wanted(since_ns=TS + 100 * SECOND),
        Wanted(until_ns=TS + 100 * SECOND),
        Wanted(since_ns=TS + 100 * SECOND, until_ns=TS + 101 * SECOND),
        Wanted(subjects=("a",)),
        Wanted(subjects=("a.*", "b")),
        Wanted(subjects=("a.>",)),
        Wanted(subjects=(">",), first=300, last=400, since_ns=TS + 160 * SECOND),
        Wanted(last_per_subject=True),
        Wanted(last_per_subject=True, last=500),
        Wanted(last_per_subject=True, subjects=("a.*.c",), until_ns=TS + 400 * SECOND),
    ):
        assert await found(repository, chosen, wanted) == plainly(everything, wanted), wanted


def plainly(messages: list[Message], wanted: Wanted) -> list[Message]:
    kept = [
        one
        for one in messages
        if wanted.first <= one.seq <= wanted.last
        and (wanted.since_ns is None or one.ts >= wanted.since_ns)
        and (wanted.until_ns is None or one.ts < wanted.until_ns)
        and (not wanted.subjects or any(matches(subject, one.subject) for subject in wanted.subjects))
    ]
    if wanted.last_per_subject:
        kept = sorted({one.subject: one for one in kept}.values())
    return kept


def matches(pattern: str, subject: bytes) -> bool:
    """NATS's rule, token by token."""
    tokens, parts = pattern.encode().split(b"."), subject.split(b".")
    for at, token in enumerate(tokens):
        if token == b">":
            return len(parts) > at
        if at >= len(parts) or token not in (b"*", parts[at]):
            return False
    return len(tokens) == len(parts)


TOKEN = st.sampled_from(["a", "b", "*", "ab", "$O", "+", "ä", "["])


@given(st.lists(TOKEN, min_size=1, max_size=4), st.booleans(), st.lists(TOKEN, min_size=1, max_size=5))
def test_wildcards_match_as_in_nats(tokens: list[str], rest: bool, subject: list[str]) -> None:
    pattern = ".".join([*tokens, ">"] if rest else tokens)
    text = ".".join(subject).encode()
    assert bool(subject_pattern(pattern).fullmatch(text)) == matches(pattern, text)


@pytest.mark.parametrize("subject", ["", ".", "a.", ".a", "a..b", ">.a", "a b", "a\n"])
def test_what_is_no_subject_is_refused(subject: str) -> None:
    with pytest.raises(UsageError):
        subject_pattern(subject)


async def test_segments_that_cannot_hold_what_is_wanted_are_not_read(tmp_path: Path) -> None:
    everything = stored()
    repository, chosen = await repository_of(everything, tmp_path)
    refs = chosen.manifest.segments
    assert len(refs) > 5
    kept = refs[3]
    for one in refs:
        if one is not kept:
            (tmp_path / "repo" / one.key).unlink()
    for wanted in (
        Wanted(first=kept.first_seq, last=kept.last_seq),
        Wanted(since_ns=kept.first_ts_ns, until_ns=kept.last_ts_ns + 1),
        Wanted(since_ns=kept.first_ts_ns, until_ns=kept.last_ts_ns + 1, last_per_subject=True),
    ):
        assert await found(repository, chosen, wanted) == plainly(everything, wanted)
    with pytest.raises(BadDataError) as caught:
        await found(repository, chosen, Wanted(first=kept.last_seq))
    assert caught.value.code == "data.missing"


async def test_a_damaged_segment_gives_nothing_and_the_document_says_so(tmp_path: Path) -> None:
    everything = stored()
    _, chosen = await repository_of(everything, tmp_path)
    damaged = tmp_path / "repo" / chosen.manifest.segments[2].key
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.chmod(0o600)
    damaged.write_bytes(data)
    command = [sys.executable, "-m", "jetkeep", "cat", "S", "--repo", str(tmp_path / "repo")]
    done = subprocess.run([*command, "--json"], capture_output=True, check=False)
    assert done.returncode == 30
    document = json.loads(done.stdout)
    assert document["error"]["code"] == "data.damaged"
    assert document["count"] == len(document["messages"])
    assert [one["seq"] for one in document["messages"]] == [
        one.seq for one in everything if one.seq <= chosen.manifest.segments[1].last_seq
    ]
    assert re.search(rb"^error: .*damaged", done.stderr)
    assert subprocess.run([*command, "--raw"], capture_output=True, check=False).returncode == 30


async def test_payloads_are_printed_as_they_are_and_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    everything = stored()
    await repository_of(everything, tmp_path)
    command = f"{sys.executable} -m jetkeep cat S --repo {tmp_path / 'repo'}"
    whole = subprocess.run(f"{command} --raw", shell=True, capture_output=True, check=True).stdout
    assert whole == b"".join(one.payload for one in everything)
    limited = subprocess.run(f"{command} --limit 3", shell=True, capture_output=True, check=True).stdout
    assert limited.count(b"#") == 3
    shell = f"set -o pipefail; {command} | head -1"
    cut = subprocess.run(["bash", "-c", shell], capture_output=True, check=True)
    assert cut.stdout.startswith(b"#2 ")
    assert cut.stderr == b""


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("unshare"), reason="root needs `unshare` to be refused")
async def test_a_repository_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    everything = stored()
    await repository_of(everything, tmp_path)
    repo = tmp_path / "repo"
    command = f"exec {sys.executable} -m jetkeep cat S --seq 2 --raw --repo {repo}"
    if os.geteuid() == 0:
        # Permissions do not stop root; a read-only mount does.
        shell = [
            "unshare",
            "-m",
            "bash",
            "-c",
            f"mount --bind {repo} {repo} && mount -o remount,ro,bind {repo} && {command}",
        ]
    else:
        repo.chmod(0o500)
        shell = ["bash", "-c", command]
    done = subprocess.run(shell, capture_output=True, check=False)
    if b"unshare failed" in done.stderr or b"permission denied" in done.stderr:
        pytest.skip("this machine does not let a test mount anything")
    assert (done.returncode, done.stdout) == (0, everything[0].payload), done.stderr
