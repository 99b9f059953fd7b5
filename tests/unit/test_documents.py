"""Documents as bytes: strict both ways, refused by name, and as docs/format.md describes them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerRecord, ConsumerState, Pending, Position
from jetkeep.repository import encoding
from jetkeep.repository.documents import (
    Backup,
    ConsumerDoc,
    Document,
    KeyDocument,
    LeaseDocument,
    Manifest,
    ManifestRef,
    Owner,
    Pin,
    RepositoryDocument,
    SealedBy,
    SegmentRef,
    Selection,
    ServerFacts,
    StreamEntry,
    Tool,
    difference,
)
from jetkeep.repository.sealing import Header

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
DIGEST = "0123456789abcdef" * 4
NOW = "2026-11-23T13:15:00.123456Z"
TIMELINE = "20261123T131500-123456789"

REPOSITORY = RepositoryDocument(id="ab" * 16, created_at=NOW, created_by="jetkeep 0.1.0")
SEGMENT = SegmentRef(
    key="sources/prod/S/t/segments/x.parquet", sha256=DIGEST, bytes=10, first_seq=1, last_seq=2**64 - 1, count=2,
    first_ts_ns=-1, last_ts_ns=5, raw_bytes=40, fingerprint="ab" * 16,
)  # fmt: skip
RECORD = ConsumerRecord(
    "c", {"durable_name": "c"}, ConsumerState(Position(9, 8), Position(2, 1), {3: Pending(4, 5), 8: Pending(9, 0)}, {3: 2}), NOW
)  # fmt: skip
MANIFEST = Manifest(
    source="prod", stream="größe", timeline=TIMELINE, label="monday", kind="full", method="snapshot", reason="why",
    captured_at_ns=1, server_version="2.15.1", config={"name": "größe", "unknown": {"deep": [1.5, None, True]}},
    created_at=NOW, state={"messages": 2}, messages=2, first_seq=1, last_seq=2**64 - 1, bytes=40, first_ts_ns=-1,
    last_ts_ns=5, fingerprint="ab" * 16, segments=[SEGMENT], deleted="AQA", gaps=[],
    consumers=[ConsumerDoc.of(RECORD)], notes=["note"],
)  # fmt: skip
ENTRY = StreamEntry(
    name="größe", status="complete", manifest=ManifestRef(key="k", sha256=DIGEST, bytes=5), kind="full",
    timeline=TIMELINE, messages=2, first_seq=1, last_seq=2**64 - 1, bytes=40, stored_bytes=10, consumers=1,
    fingerprint="ab" * 16,
)  # fmt: skip
BACKUP = Backup(
    repository="ab" * 16, label="monday", source="prod", started_at=NOW, finished_at=NOW, status="partial",
    tool=Tool(name="jetkeep", version="0.1.0"), server=ServerFacts(), host="here", tags=["a"],
    selection=Selection(include=[], exclude=["x*"], total=2),
    streams=[ENTRY, StreamEntry(name="T", status="failed")],
)  # fmt: skip
PIN = Pin(label="monday", pinned_at=NOW, reason="")
LEASE = LeaseDocument(
    purpose="read", nonce="00", owner=Owner(host="here", pid=1), acquired_at=NOW, expires_at=NOW, labels=["monday"]
)
DOCUMENTS = [REPOSITORY, BACKUP, PIN, LEASE]
IDS = [type(one).__name__ for one in DOCUMENTS]


def envelope(body: bytes | dict[str, Any]) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b'{"sha256":"%b","body":%b}\n' % (hashlib.sha256(raw).hexdigest().encode(), raw)


def changed(document: Document, **changes: Any) -> dict[str, Any]:
    """The body with other values; `...` takes a key away."""
    body: dict[str, Any] = {**msgspec.to_builtins(document), **changes}
    return {key: value for key, value in body.items() if value is not ...}


def code_of(data: bytes, kind: type[Document]) -> str:
    with pytest.raises(BadDataError) as refused:
        encoding.unseal(data, "the/key", kind)
    assert "the/key" in refused.value.what
    assert refused.value.exit_status == 30
    return refused.value.code


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_a_document_comes_back_as_it_was(document: Document) -> None:
    data = encoding.seal(document)
    assert encoding.unseal(data, "key", type(document)) == document
    assert re.fullmatch(rb'\{"sha256":"[0-9a-f]{64}","body":\{.*\}\}\n', data, re.DOTALL)
    assert hashlib.sha256(data[84:-2]).hexdigest().encode() == data[11:75]  # as the page says, without our parser
    assert json.loads(data)["body"]["format"] == 1


def test_a_manifest_comes_back_as_it_was() -> None:
    data = encoding.encode_manifest(MANIFEST)
    assert zstandard.frame_content_size(data) > 0
    assert encoding.decode_manifest(data, "key") == MANIFEST
    assert encoding.decode_manifest(data, "key").consumers[0].record() == RECORD


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_order_and_white_space_inside_the_body_are_free(document: Document) -> None:
    body = dict(reversed(msgspec.to_builtins(document).items()))
    assert encoding.unseal(envelope(json.dumps(body, indent=3).encode()), "key", type(document)) == document


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_what_a_later_version_wrote_is_refused_by_name(document: Document) -> None:
    kind = type(document)
    assert code_of(envelope(changed(document, format=2)), kind) == "data.format"
    assert code_of(envelope(changed(document, format=0)), kind) == "data.format"
    assert code_of(envelope(changed(document, format=2, anything=1)), kind) == "data.format"
    with pytest.raises(BadDataError, match="feature 'parts'") as refused:
        encoding.unseal(envelope(changed(document, features=["parts"], new=1)), "key", kind)
    assert refused.value.code == "data.format"


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_a_key_that_is_unknown_or_lacking_is_an_error(document: Document) -> None:
    kind = type(document)
    assert code_of(envelope(changed(document, extra=1)), kind) == "data.decode"
    for key in msgspec.to_builtins(document):
        if key not in ("features", "run"):
            assert code_of(envelope(changed(document, **{key: ...})), kind) == "data.decode"
        assert code_of(envelope(changed(document, **{key: None})), kind) == "data.decode"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\x00" * 100,
        encoding.seal(PIN)[:-1],
        encoding.seal(PIN) + b"\n",
        b" " + encoding.seal(PIN),
        encoding.seal(PIN).replace(b'"body":', b'"body": '),
        encoding.seal(PIN).replace(b"monday", b"sunday"),
        encoding.seal(PIN).upper(),
    ],
    ids=range(9),
)
def test_what_is_no_envelope_or_has_another_digest_is_damaged(data: bytes) -> None:
    assert code_of(data, Pin) == "data.damaged"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"format":1}',
        b'{"format":"1"}',
        b'{"format":1.5}',
        b'{"format":true}',
        b'{"format":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"format":1,"features":' + b"[" * 100_000,
        b"\xff\xfe",
        b'{"format":1,"features":[],"label":"\xff","pinned_at":"2026-11-23T13:15:00Z","reason":""}',
    ],
    ids=range(14),
)
def test_a_body_that_has_its_digest_and_makes_no_sense_is_refused(body: bytes) -> None:
    assert code_of(envelope(body), Pin) == "data.decode"


@pytest.mark.parametrize(
    "changes",
    [
        {"started_at": "2026-02-30T00:00:00Z"},
        {"started_at": "2026-11-23T13:15:00"},
        {"started_at": "2026-11-23T13:15:00+01:00"},
        {"status": "fine"},
        {"status": "complete"},  # and one stream failed
        {"streams": [msgspec.to_builtins(ENTRY)] * 2},
        {"streams": [{"name": "S", "status": "complete"}]},
        {"streams": [{**msgspec.to_builtins(ENTRY), "status": "failed"}]},
        {"streams": [{**msgspec.to_builtins(ENTRY), "messages": -1}]},
        {"streams": [{**msgspec.to_builtins(ENTRY), "kind": "differential"}]},
        {"streams": [{**msgspec.to_builtins(ENTRY), "manifest": {"key": "k", "sha256": "ABC", "bytes": 5}}]},
        {"selection": {"include": [], "exclude": [], "total": -1}},
        {"tags": "a"},
    ],
    ids=range(13),
)
def test_a_backup_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    assert code_of(envelope(changed(BACKUP, **changes)), Backup) == "data.decode"


@pytest.mark.parametrize(
    "changes",
    [
        {"last_seq": 2**64},
        {"segments": [{**msgspec.to_builtins(SEGMENT), "last_seq": 2**64}]},
        {"segments": [{**msgspec.to_builtins(SEGMENT), "sha256": DIGEST[:-1]}]},
        {"segments": [{"part": {"key": "k", "sha256": DIGEST, "bytes": 1}, "count": 5}]},
        {"messages": -1},
        {"messages": 1.5},
        {"fingerprint": "AB" * 16},
        {"fingerprint": "ab" * 16 + "\n"},
        {"consumers": [{"name": "c"}]},
        {"kind": ""},
    ],
    ids=range(10),
)
def test_a_manifest_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    data = zstandard.compress(json.dumps(changed(MANIFEST, **changes)).encode())
    with pytest.raises(BadDataError) as refused:
        encoding.decode_manifest(data, "the/key")
    assert refused.value.code == "data.decode"


def _without_size() -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(msgspec.json.encode(MANIFEST))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no frame at all",
        _without_size(),
        encoding.encode_manifest(MANIFEST) + b"more",
        encoding.encode_manifest(MANIFEST)[:-1],
        encoding.encode_manifest(MANIFEST) * 2,
        # A frame that states 2^62 bytes, and one that holds more than it states.
        b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little") + b"\x01\x00\x00",
        b"\x28\xb5\x2f\xfd\x20\x05" + zstandard.compress(b"x" * 5000)[7:],
    ],
    ids=range(8),
)
def test_a_manifest_that_does_not_decompress_to_what_it_states_is_refused(data: bytes) -> None:
    with pytest.raises(BadDataError) as refused:
        encoding.decode_manifest(data, "the/key")
    assert refused.value.code == "data.decode"


def test_a_manifest_whose_stated_size_is_beyond_the_bound_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zstandard.compress(b" " * 10_000_000)
    monkeypatch.setattr(encoding, "MAX_MANIFEST", 1_000_000)
    with pytest.raises(BadDataError, match="10000000 bytes"):
        encoding.decode_manifest(data, "the/key")
    monkeypatch.setattr(encoding, "MAX_MANIFEST", 100)
    with pytest.raises(BadDataError) as refused:
        encoding.encode_manifest(MANIFEST)
    assert refused.value.code == "data.manifest-size"


@pytest.mark.parametrize(
    "what",
    ["source", "stream", "label", "kind", "timeline", "messages", "first_seq", "last_seq", "bytes", "fingerprint",
     "stored_bytes", "consumers"],
)  # fmt: skip
def test_a_manifest_that_says_something_else_than_its_backup_is_told(what: str) -> None:
    assert difference(BACKUP, ENTRY, MANIFEST) == ""
    backup, entry, manifest = BACKUP, ENTRY, MANIFEST
    if what in ("stored_bytes", "consumers"):
        entry = msgspec.structs.replace(ENTRY, **{what: 77})
    elif isinstance(value := getattr(MANIFEST, what), str):
        manifest = msgspec.structs.replace(MANIFEST, **{what: value + "x"})
    else:
        manifest = msgspec.structs.replace(MANIFEST, **{what: value - 1})
    assert difference(backup, entry, manifest) == what


def keys_of_the_table(after: str) -> set[str]:
    table = PAGE.split(after)[1].split("| key | value |")[1].split("\n\n")[0]
    return {
        one for row in table.splitlines() for one in re.findall(r"`([a-z_]+)`", row.split("|")[1] if "|" in row else "")
    }


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        ("`jetkeep.json` body:", RepositoryDocument),
        ("`backups/<label>.json` body:", Backup),
        ("## Manifests", Manifest),
        ("**Keys.**", KeyDocument),
    ],
)
def test_the_page_names_every_key_and_no_other(after: str, kind: type[Document]) -> None:
    assert keys_of_the_table(after) == set(kind.__struct_fields__)


@pytest.mark.parametrize(
    ("begins", "ends", "kinds"),
    [
        ("A stream's entry:", "\n\n", [StreamEntry, ManifestRef]),
        ("A segment reference:", "\n", [SegmentRef]),
        ("Lease body:", ".\n", [LeaseDocument, Owner]),
        ("`pins/<label>.json` body:", ". ", [Pin]),
        ("The header is a JSON object:", "\n\nThe", [Header]),
        ("`sealed` is `", "`", [SealedBy]),
    ],
)
def test_the_page_names_every_key_of_the_parts(begins: str, ends: str, kinds: list[type[msgspec.Struct]]) -> None:
    words = set(re.findall(r"[a-z0-9_]+", PAGE.split(begins)[1].split(ends)[0]))
    for kind in kinds:
        assert set(kind.__struct_fields__) <= words
