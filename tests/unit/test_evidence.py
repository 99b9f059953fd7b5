"""Evidence: canonical bytes, keys, the chain, and every way in which somebody could bend it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import stat
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from jetkeep import evidence
from jetkeep.errors import AlreadyThereError, BadDataError, OutcomeUnknownError, UsageError
from jetkeep.evidence import canonical
from jetkeep.evidence.page import LISTED, render
from jetkeep.evidence.signing import Signer, make_keys, read_public_key, read_signer
from jetkeep.repository import encoding
from jetkeep.repository.local import LocalStore
from jetkeep.repository.repository import Repository
from tests.evidence import drilled, kept, new_signer
from tests.repositories import Stream, orders

# Canonical JSON


_KEYS = st.text('abcXYZ_09 "\\', max_size=6)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_what_was_read_is_written_as_the_same_bytes(document: dict[str, Any]) -> None:
    data = canonical.encode(document)
    assert canonical.encode(canonical.decode(data, "x")) == data
    assert canonical.encode(dict(reversed(document.items()))) == data
    plain = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert plain.encode() == data


def test_the_bytes_are_those_of_rfc_8785() -> None:
    document = {
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/\u2028\u007f",
        "literals": [None, True, False],
        "numbers": [4.50, 2e-3, 1.0, 0, -0.0, -5, 2**53 - 1],
    }
    assert (
        canonical.encode(document)
        == (
            '{"literals":[null,true,false],"numbers":[4.5,0.002,1,0,0,-5,9007199254740991],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/\u2028\u007f"}'
        ).encode()
    )


def test_numbers_that_a_double_cannot_hold_stand_as_text() -> None:
    assert canonical.encode({"a": 2**53, "b": -(2**64), "c": 0.12349}) == (
        b'{"a":"9007199254740992","b":"-18446744073709551616","c":0.123}'
    )
    assert canonical.encode({"a": "x\ud800"}) == b'{"a":"x?"}'
    with pytest.raises(ValueError, match="JSON"):
        canonical.encode({"a": float("nan")})


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}', '{"b":1,"a":2}', '{"a":1.0}', '{"a":0.10}', '{"a":1e3}', '{"a":"\\u0041"}', '{"a":"\\/"}', '{"a":1,"a":1}',
        '{"a":9007199254740992}', '{"a":0.1234}', '{"a":NaN}', '{"a":-0}', '{"a":1}\n', "[]", "1", "", '{"a":', '{"ä":1}', "[" * 100_000,
    ],
)  # fmt: skip
def test_any_other_way_to_write_a_document_is_refused(text: str) -> None:
    with pytest.raises(BadDataError):
        canonical.decode(text.encode(), "x")


# Keys


def test_keys_are_files_of_openssl_s_form_and_only_the_owner_reads_the_private_one(tmp_path: Path) -> None:
    made = make_keys(tmp_path / "k")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    signer, public = read_signer(str(tmp_path / "k")), read_public_key(tmp_path / "k.pub")
    assert made.id == signer.public.id == public.id
    assert public.fits(b"x", signer.sign(b"x"))
    assert not public.fits(b"y", signer.sign(b"x"))
    assert not public.fits(b"x", "no base64")
    assert read_signer((tmp_path / "k").read_text()).public.id == made.id


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    for taken in ("a", "b.pub"):
        (tmp_path / taken).write_text("mine")
    for name in ("a", "b", "absent/c"):
        with pytest.raises(UsageError):
            make_keys(tmp_path / name)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"a": "mine", "b.pub": "mine"}


def test_what_is_no_signing_key_is_refused_by_name(tmp_path: Path) -> None:
    make_keys(tmp_path / "k")
    key = ed25519.Ed25519PrivateKey.generate()
    other = rsa.generate_private_key(65537, 2048)
    files = {
        "rsa": other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "locked": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
        "text": b"hello",
        "empty": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name in (*files, "k.pub", "absent", "."):
        with pytest.raises(UsageError) as refused:
            read_signer(str(tmp_path / name))
        assert refused.value.code == "usage.signing-key"
    for name in (*files, "k", "absent"):
        with pytest.raises(UsageError):
            read_public_key(tmp_path / name)


# The chain


async def test_each_document_names_the_digest_of_the_one_before_failures_too(tmp_path: Path) -> None:
    repository, _, facts = await drilled(tmp_path)
    for verdict in ("SUCCESSFUL", "FAILED", "SUCCESSFUL"):
        await kept(repository, facts, verdict=verdict)
    stored = [json.loads((tmp_path / f"evidence/0000000{at}.json").read_bytes())["body"] for at in (1, 2, 3)]
    assert [one["number"] for one in stored] == [1, 2, 3]
    assert stored[0]["previous"] is None
    for at in (1, 2):
        data = (tmp_path / f"evidence/0000000{at}.json").read_bytes()
        previous = {"key": f"evidence/0000000{at}.json", "sha256": hashlib.sha256(data).hexdigest()}
        assert stored[at]["previous"] == previous
    newest = await evidence.newest(repository)
    assert newest is not None
    assert (newest.key, newest.body) == ("evidence/00000003.json", stored[2])
    assert (await evidence.prove(repository)).sound


async def test_drills_that_end_together_follow_each_other(tmp_path: Path) -> None:
    repository, _, facts = await drilled(tmp_path)
    place = await evidence.next_place(repository)
    several = await asyncio.gather(
        *(evidence.keep(repository, {**facts, "drill_id": f"{at:012x}"}, place, None) for at in range(12))
    )
    for stored, page in several:
        await evidence.keep_page(repository, stored, page)
    assert sorted(one.number for one, _ in several) == list(range(1, 13))
    proof = await evidence.prove(repository)
    assert proof.sound
    assert len({one.facts.drill_id for one in proof.entries if one.facts}) == 12


class _Blind(LocalStore):
    """Its listing shows no evidence yet, and the first answer to a `create` is lost."""

    answers_lost = 1

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        await super().create(key, data, durable=durable)
        if self.answers_lost:
            self.answers_lost -= 1
            raise OutcomeUnknownError("lost")

    async def list(self, prefix: str) -> Any:
        if not prefix.startswith("evidence"):
            async for one in super().list(prefix):
                yield one


async def test_a_lost_answer_or_a_listing_that_lags_keeps_one_document_in_its_place(tmp_path: Path) -> None:
    repository, _, facts = await drilled(tmp_path)
    for _ in range(2):
        await kept(repository, facts)
    blind = await Repository.open(_Blind(tmp_path))
    stored, page = await evidence.keep(blind, {**facts, "drill_id": "another"}, await evidence.next_place(blind), None)
    await evidence.keep_page(blind, stored, page)
    assert stored.number == 3
    proof = await evidence.prove(repository)
    assert (proof.sound, len(proof.entries)) == (True, 3)


async def test_a_page_is_stored_once_and_whatever_is_there_is_not_replaced(tmp_path: Path) -> None:
    repository, _, facts = await drilled(tmp_path)
    stored, page = await evidence.keep(repository, facts, evidence.Place(), None)
    for _ in range(2):
        await evidence.keep_page(repository, stored, page)
    stored, page = await evidence.keep(repository, {**facts, "drill_id": "another"}, evidence.Place(), None)
    (tmp_path / "evidence/00000002.html").write_text("mine")
    with pytest.raises(AlreadyThereError):
        await evidence.keep_page(repository, stored, page)
    assert (tmp_path / "evidence/00000002.html").read_text() == "mine"


# What verify finds


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], signer: Signer | None = None) -> None:
    """Alter a document as somebody would who knows the format, with a key of his own or none."""
    body = json.loads(path.read_bytes())["body"]
    change(body)
    if signer:
        body.pop("signature", None)
        body["signer"] = signer.public.to_dict()
        body["signature"] = signer.sign(canonical.encode(body))
    path.unlink()
    path.write_bytes(encoding.envelope(canonical.encode(body)))


async def found(repository: Repository, *trusted: Signer, holds: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    proof = await evidence.prove(repository, [one.public for one in trusted], holds)
    return [(one.kind, one.key) for one in proof.findings if one.severity == "damage"]


async def three(tmp_path: Path, signer: Signer | None) -> tuple[Repository, list[evidence.Kept]]:
    repository, _, facts = await drilled(tmp_path / "r")
    return repository, [
        await kept(repository, facts, signer, verdict=verdict) for verdict in ("SUCCESSFUL", "FAILED", "SUCCESSFUL")
    ]


def document(tmp_path: Path, number: int, kind: str = "json") -> Path:
    return tmp_path / "r" / "evidence" / f"{number:08d}.{kind}"


async def test_whole_evidence_is_sound_with_the_right_key(tmp_path: Path) -> None:
    signer = new_signer(tmp_path)
    repository, stored = await three(tmp_path, signer)
    proof = await evidence.prove(repository, [signer.public], [one.sha256 for one in stored])
    assert (proof.sound, proof.findings) == (True, [])


async def test_a_removed_failure_is_named(tmp_path: Path) -> None:
    signer = new_signer(tmp_path)
    repository, stored = await three(tmp_path, signer)
    document(tmp_path, 2).unlink()
    document(tmp_path, 2, "html").unlink()
    assert await found(repository, signer) == [("missing", "evidence/00000002.json")]
    (finding,) = (await evidence.prove(repository, [signer.public])).findings
    assert stored[1].sha256 in finding.what


async def test_a_chain_without_its_beginning_is_found(tmp_path: Path) -> None:
    repository, _ = await three(tmp_path, None)
    document(tmp_path, 1).unlink()
    document(tmp_path, 2).unlink()
    assert await found(repository) == [("missing", "evidence/00000001.json")]


async def test_a_foreign_document_of_a_huge_number_is_one_finding_and_has_a_successor(tmp_path: Path) -> None:
    repository, _ = await three(tmp_path, None)
    document(tmp_path, 99_999_999).write_bytes(b"{}")
    expected = [("missing", "evidence/00000004.json"), ("damaged", "evidence/99999999.json")]
    assert await found(repository) == expected
    _, _, facts = await drilled(tmp_path / "same")
    assert (await kept(repository, {**facts, "repository": repository.id})).number == 100_000_000
    assert await found(repository) == expected


async def test_that_the_newest_are_gone_shows_against_a_digest_noted_elsewhere(tmp_path: Path) -> None:
    repository, stored = await three(tmp_path, None)
    document(tmp_path, 3).unlink()
    assert await found(repository) == []
    assert await found(repository, holds=(stored[1].sha256, stored[2].sha256)) == [("absent", "evidence/")]


async def test_any_altered_byte_is_found(tmp_path: Path) -> None:
    signer = new_signer(tmp_path)
    repository, _ = await three(tmp_path, signer)
    path = document(tmp_path, 2)
    data = path.read_bytes()
    path.unlink()
    chance = random.Random(1)
    for at in {0, len(data) - 1, *chance.sample(range(len(data)), 60)}:
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        kinds = await found(repository, signer)
        assert ("damaged", "evidence/00000002.json") in kinds, at
    path.write_bytes(data[: len(data) // 2])
    assert ("damaged", "evidence/00000002.json") in await found(repository, signer)


async def test_an_altered_fact_is_found_by_signature_and_chain(tmp_path: Path) -> None:
    signer = new_signer(tmp_path)
    repository, _ = await three(tmp_path, signer)
    rewrite(document(tmp_path, 2), lambda body: body.update(verdict="SUCCESSFUL"))
    key = "evidence/00000002.json"
    assert await found(repository, signer) == [("altered", key), ("signature", key)]


async def test_who_signs_again_with_a_key_of_his_own_is_found_even_at_the_end(tmp_path: Path) -> None:
    signer, other = new_signer(tmp_path), new_signer(tmp_path, "other.key")
    repository, _ = await three(tmp_path, signer)
    rewrite(document(tmp_path, 3), lambda body: body.update(verdict="SUCCESSFUL"), other)
    assert await found(repository, signer) == [("other-key", "evidence/00000003.json")]
    assert await found(repository, signer, other) == []
    rewrite(document(tmp_path, 2), lambda body: body.update(verdict="SUCCESSFUL"), other)
    key = "evidence/00000002.json"
    assert await found(repository, signer) == [
        ("altered", key),
        ("other-key", key),
        ("other-key", "evidence/00000003.json"),
    ]


async def test_a_signature_that_was_taken_off_is_found(tmp_path: Path) -> None:
    signer = new_signer(tmp_path)
    repository, _ = await three(tmp_path, signer)
    rewrite(document(tmp_path, 3), lambda body: body.pop("signature"))
    assert await found(repository) == [("signature", "evidence/00000003.json")]
    rewrite(document(tmp_path, 3), lambda body: body.update(signer=None))
    assert await found(repository, signer) == [("unsigned", "evidence/00000003.json")]


async def test_without_a_key_signatures_are_checked_and_said_to_be_nobody_s(tmp_path: Path) -> None:
    signer = new_signer(tmp_path)
    repository, _ = await three(tmp_path, signer)
    proof = await evidence.prove(repository)
    assert proof.sound
    (finding,) = proof.findings
    assert (finding.kind, finding.severity) == ("no-key", "notice")
    assert signer.public.id in finding.what


async def test_unsigned_evidence_is_told_and_fails_where_a_key_is_asked_for(tmp_path: Path) -> None:
    repository, stored = await three(tmp_path, None)
    assert [one.kind for one in (await evidence.prove(repository)).findings] == ["unsigned"] * 3
    assert [kind for kind, _ in await found(repository, new_signer(tmp_path))] == ["unsigned"] * 3
    assert stored[0].body["signer"] is None


async def test_an_altered_page_is_found_and_a_missing_one_is_told(tmp_path: Path) -> None:
    repository, _ = await three(tmp_path, None)
    page = document(tmp_path, 2, "html")
    data = page.read_bytes()
    page.unlink()
    page.write_bytes(data.replace(b"FAILED", b"PASSED"))
    assert await found(repository) == [("page", "evidence/00000002.html")]
    with pytest.raises(BadDataError):
        await evidence.read_page(repository, await evidence.read(repository, 2))
    page.unlink()
    assert await found(repository) == []
    assert "no-page" in [one.kind for one in (await evidence.prove(repository)).findings]
    with pytest.raises(BadDataError):
        await evidence.read_page(repository, await evidence.read(repository, 2))


async def test_a_document_at_another_place_or_of_another_repository_is_found(tmp_path: Path) -> None:
    repository, _ = await three(tmp_path, None)
    document(tmp_path, 4).write_bytes(document(tmp_path, 2).read_bytes())
    assert await found(repository) == [("mismatch", "evidence/00000004.json")]
    elsewhere, _, facts = await drilled(tmp_path / "other")
    await kept(elsewhere, facts)
    document(tmp_path, 4).unlink()
    document(tmp_path, 1).unlink()
    document(tmp_path, 1).write_bytes((tmp_path / "other/evidence/00000001.json").read_bytes())
    assert ("mismatch", "evidence/00000001.json") in await found(repository)


async def test_a_document_that_follows_another_than_the_one_before_is_found(tmp_path: Path) -> None:
    repository, _ = await three(tmp_path, None)
    rewrite(document(tmp_path, 3), lambda body: body.update(previous=None))
    assert await found(repository) == [("chain", "evidence/00000003.json")]


async def test_documents_of_a_newer_format_or_of_no_sense_are_found(tmp_path: Path) -> None:
    repository, _ = await three(tmp_path, None)
    rewrite(document(tmp_path, 3), lambda body: body.update(features=["later"]))
    assert await found(repository) == [("format", "evidence/00000003.json")]
    rewrite(document(tmp_path, 3), lambda body: body.update(features=[], number="three"))
    assert await found(repository) == [("damaged", "evidence/00000003.json")]
    document(tmp_path, 3).write_bytes(encoding.envelope(b"[" * 100_000))
    assert await found(repository) == [("damaged", "evidence/00000003.json")]


async def test_the_chain_goes_on_after_a_damaged_document(tmp_path: Path) -> None:
    repository, _ = await three(tmp_path, None)
    document(tmp_path, 3).unlink()
    document(tmp_path, 3).write_bytes(b"damaged")
    _, _, facts = await drilled(tmp_path / "same")
    assert (await kept(repository, {**facts, "repository": repository.id})).number == 4
    assert await found(repository) == [("damaged", "evidence/00000003.json")]


async def test_evidence_of_a_sealed_backup_confirms_no_guess_of_its_content(tmp_path: Path) -> None:
    _, report, facts = await drilled(tmp_path / "open")
    fingerprint = facts["streams"][0]["expected"]["fingerprint"]
    assert fingerprint in json.dumps(facts)
    wrong = f"fingerprint: {'1' * 32}, not {fingerprint}"
    _, _, facts = await drilled(tmp_path / "sealed", sealed=True, failure=wrong)
    text = json.dumps(facts)
    assert fingerprint not in text
    assert "1" * 32 not in text
    assert report.check is not None
    assert facts["user_check"]["output"] == facts["streams"][0]["expected"]["fingerprint"] == "[hidden]"


# The page


class _Looking(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def looked_at(page: bytes) -> _Looking:
    looking = _Looking()
    looking.feed(page.decode())
    return looking


HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\"' onmouseover='x",
    "&lt;b&gt;",
    "safe\u202eDELIAF",
    "a\u2066\u200b\x1b[31m",
]


async def page_of(tmp_path: Path, **changed: Any) -> tuple[bytes, dict[str, Any]]:
    repository, _, facts = await drilled(tmp_path)
    stored = await kept(repository, facts, **changed)
    return await evidence.read_page(repository, stored), stored.body


async def test_the_page_holds_the_facts(tmp_path: Path) -> None:
    page, body = await page_of(tmp_path, rto={"seconds": 1.05, "target_seconds": 900, "met": True, "phases": {"send": 1}, "counted": ["send"]})  # fmt: skip
    text = looked_at(page).text
    stream = body["streams"][0]
    wanted = [
        "SUCCESSFUL", body["drill_id"], "No. 1", "ORDERS", stream["expected"]["fingerprint"][:16], "15 min", "met", body["operator"],
        body["triggered_by"], body["repository"], body["backup"]["label"], body["backup"]["sha256"], body["next_due"][:10], "2.15.1",
        body["backup"]["manifests"][0]["sha256"], "loopback", "not signed", "Approved by", "evidence/00000001.json", "jetkeep evidence verify",
    ]  # fmt: skip
    for one in wanted:
        assert one in text, one
    assert ".".join(re.findall(r"met|missed", text)) == "met"


async def test_a_failed_drill_s_page_begins_with_what_is_to_be_done(tmp_path: Path) -> None:
    page, _ = await page_of(
        tmp_path, verdict="FAILED", failures=["ORDERS: messages: 5, not 6"], required_action="find out why"
    )
    text = looked_at(page).text
    assert text.index("find out why") < text.index("The test")
    assert "ORDERS: messages: 5, not 6" in text


async def test_the_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page, _ = await page_of(tmp_path)
    looking = looked_at(page)
    assert not looking.tags & {"script", "img", "link", "iframe", "object", "embed", "form", "a", "base", "svg"}
    assert not looking.attributes - {"lang", "charset", "name", "http-equiv", "content", "class", "rowspan", "colspan"}
    assert b"url(" not in page
    assert b"http:" not in page
    assert b"https:" not in page


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_hostile_names_and_output_are_text_on_the_page(tmp_path: Path, hostile: str) -> None:
    repository, _, facts = await drilled(tmp_path, {hostile: Stream([orders(1, 3)])})
    check = {"command": hostile, "status": 1, "seconds": 1, "output": hostile}
    plain = await kept(repository, facts)
    facts["streams"][0]["consumers"][0]["name"] = hostile
    facts["streams"][0]["gaps"] = [{"set": "AQA", "count": 1, "first": 1, "last": 1, "reason": hostile}]
    stored = await kept(
        repository, facts, user_check=check, triggered_by=hostile, failures=[hostile], host=hostile, required_action=hostile
    )  # fmt: skip
    for one in (plain, stored):
        looking = looked_at(await evidence.read_page(repository, one))
        assert not looking.tags & {"script", "img"}
        assert not looking.attributes - {"lang", "charset", "name", "http-equiv", "content", "class", "rowspan"}
        shown = "".join(f"\\u{{{ord(c):x}}}" if c in "\u202e\u2066\u200b\x1b" else c for c in hostile)
        assert shown in looking.text
        assert not set("\u202e\u2066\u200b\x1b") & set(looking.text)


async def test_a_stream_with_many_consumers_fills_no_hundred_pages(tmp_path: Path) -> None:
    repository, _, facts = await drilled(tmp_path)
    good = facts["streams"][0]["consumers"][0]
    many = [{**good, "name": f"c{at:04d}"} for at in range(1000)]
    many[-1] = {**good, "name": "lost", "found": None, "verdict": "FAILED"}
    facts["streams"][0]["consumers"] = many
    text = looked_at(await evidence.read_page(repository, await kept(repository, facts))).text
    assert f"{999 - LISTED} more consumers are as they were" in text
    assert "lost" in text


async def test_the_page_of_the_stored_document_is_the_same_again(tmp_path: Path) -> None:
    page, body = await page_of(tmp_path)
    assert render({key: one for key, one in body.items() if key not in ("page", "signature")}) == page


# With ordinary tools

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "evidence.md"


async def test_the_reference_s_commands_check_a_document_without_jetkeep(tmp_path: Path) -> None:
    signer = new_signer(tmp_path)
    repository, _, facts = await drilled(tmp_path / "r", {"größe \u20ac": Stream([orders(1, 3)])})
    await kept(repository, facts, signer)
    await kept(repository, facts, signer)
    block = re.search(r"```sh\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    assert block is not None
    for number in (1, 2):
        for kind in ("json", "html"):
            name = f"{number:08d}.{kind}"
            (tmp_path / name).write_bytes(document(tmp_path, number, kind).read_bytes())
    done = run_block(block[1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert signer.public.id in done.stdout
    stored = await evidence.read(repository, 2)
    assert stored.body["previous"]["sha256"] in done.stdout
    assert stored.body["page"]["sha256"] in done.stdout
    text = (tmp_path / "00000002.json").read_text()
    (tmp_path / "00000002.json").write_text(text.replace("SUCCESSFUL", "SUCCESSFUI"))
    assert run_block(block[1], tmp_path).returncode != 0


def run_block(block: str, folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        subprocess.run(["openssl", "version"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("no openssl on this machine")
    return subprocess.run(["bash", "-ec", block], cwd=folder, capture_output=True, text=True, check=False)
