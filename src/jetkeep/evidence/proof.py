"""Is the evidence whole, unaltered, and whose is it?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from jetkeep.errors import BadDataError, NoObjectError
from jetkeep.evidence import canonical
from jetkeep.evidence.chain import numbers, opened
from jetkeep.model import JsonDict
from jetkeep.repository import encoding, layout
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import side_by_side

if TYPE_CHECKING:
    from jetkeep.evidence.signing import PublicKey


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was left. `kind` is stable (docs/reference/evidence.md); a `notice` fails nothing."""

    kind: str
    severity: Literal["damage", "notice"]
    key: str
    what: str


class _Object(msgspec.Struct):
    key: str
    sha256: str


class _Signer(msgspec.Struct):
    algorithm: str
    key_id: str
    public_key: str


class _Backup(msgspec.Struct):
    label: str


class _Server(msgspec.Struct):
    version: str


class _Seconds(msgspec.Struct):
    seconds: float


class _Facts(msgspec.Struct):
    """What a list shows, and what the chain needs."""

    number: int
    repository: str
    previous: _Object | None
    page: _Object
    signer: _Signer | None
    drill_id: str
    verdict: str
    finished_at: str
    backup: _Backup
    server: _Server
    rto: _Seconds
    rpo: _Seconds
    signature: str | None = None


@dataclass(slots=True)
class Entry:
    """One document as it is there; `facts` is None where it cannot be believed, `findings` say why."""

    number: int
    key: str
    sha256: str
    facts: _Facts | None = None
    findings: list[Finding] = field(default_factory=list)

    def damage(self, kind: str, what: str, key: str = "") -> None:
        """Note what must not be."""
        self.findings.append(Finding(kind, "damage", key or self.key, what))

    def notice(self, kind: str, what: str, key: str = "") -> None:
        """Note what may be."""
        self.findings.append(Finding(kind, "notice", key or self.key, what))

    def to_dict(self) -> JsonDict:
        """As it stands in `--json` documents."""
        head: JsonDict = {"number": self.number, "key": self.key, "sha256": self.sha256}
        if (one := self.facts) is None:
            return {**head, "verdict": None}
        return {
            **head,
            "verdict": one.verdict,
            "drill_id": one.drill_id,
            "finished_at": one.finished_at,
            "backup": one.backup.label,
            "server_version": one.server.version,
            "rto_seconds": one.rto.seconds,
            "rpo_seconds": one.rpo.seconds,
            "key_id": one.signer.key_id if one.signer else None,
        }


@dataclass(slots=True)
class Proof:
    """All documents that are there, rising, and what was found."""

    entries: list[Entry]
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        """Nothing is missing, altered or of an unknown hand, as far as it was asked for."""
        return not any(one.severity == "damage" for one in self.findings)


async def prove(
    repository: Repository, trusted: Iterable[PublicKey] = (), holds: Sequence[str] = (), *, pages: bool = True
) -> Proof:
    """Check every document, its page, its signature, and the chain.

    Args:
        repository: whose evidence to check.
        trusted: keys of which one must have signed every document; without any, signatures are checked against the key
            that each document states, which proves nothing about whose it is.
        holds: SHA-256 of documents, noted elsewhere, that must be there: only so it shows that the newest are gone.
        pages: read the printable pages as well.

    Raises:
        StoreError: the store does not answer.
    """
    keys = {one.id: one for one in trusted}

    async def one(number: int) -> Entry | None:
        return await _examine(repository, number, keys, pages=pages)

    there = [entry for entry in await side_by_side(one, await numbers(repository)) if entry is not None]
    findings = [finding for entry in there for finding in entry.findings]
    findings += _chain(there)
    digests = {entry.sha256 for entry in there}
    findings += [
        Finding("absent", "damage", layout.EVIDENCE, f"no document has the SHA-256 {digest} that was noted")
        for digest in holds
        if digest not in digests
    ]
    signed = [entry.facts.signer.key_id for entry in there if entry.facts and entry.facts.signer]
    if signed and not keys:
        what = (
            f"whose signatures these are was not checked: give --key; they state key {', '.join(sorted(set(signed)))}"
        )
        findings.append(Finding("no-key", "notice", layout.EVIDENCE, what))
    return Proof(there, sorted(findings, key=lambda one: (one.severity, one.key, one.kind)))


async def _examine(repository: Repository, number: int, keys: Mapping[str, PublicKey], *, pages: bool) -> Entry | None:
    key = layout.evidence_key(number)
    try:
        data = await repository.store.read(key, encoding.MAX_DOCUMENT)
    except NoObjectError:
        return None
    except BadDataError as wrong:
        entry = Entry(number, key, "")
        entry.damage("damaged", wrong.what)
        return entry
    entry = Entry(number, key, hashlib.sha256(data).hexdigest())
    try:
        body = opened(data, key)
        facts = msgspec.convert(body, _Facts)
    except BadDataError as wrong:
        entry.damage("format" if wrong.code == "data.format" else "damaged", wrong.what)
        return entry
    except msgspec.ValidationError as wrong:
        entry.damage("damaged", f"{key} is damaged: {wrong}")
        return entry
    if (facts.number, facts.repository) != (number, repository.id):
        entry.damage("mismatch", f"{key} says that it is number {facts.number} of repository {facts.repository}")
        return entry
    entry.facts = facts
    _signed(entry, facts, body, keys)
    if pages:
        await _page(repository, entry, facts)
    return entry


def _signed(entry: Entry, facts: _Facts, body: JsonDict, keys: Mapping[str, PublicKey]) -> None:
    from jetkeep.evidence.signing import public_key  # noqa: PLC0415 - `check` looks at the newest document only

    if facts.signer is None or facts.signature is None:
        if facts.signer is not None or facts.signature is not None:
            entry.damage("signature", f"{entry.key} has lost its signature, or what it says of it")
        elif keys:
            entry.damage("unsigned", f"{entry.key} is not signed")
        else:
            entry.notice("unsigned", f"{entry.key} is not signed")
        return
    stated = public_key(facts.signer.public_key)
    content = canonical.encode({name: one for name, one in body.items() if name != "signature"})
    if stated is None or stated.id != facts.signer.key_id or not stated.fits(content, facts.signature):
        entry.damage("signature", f"{entry.key} is not what was signed: the signature does not fit")
    elif keys and stated.id not in keys:
        entry.damage("other-key", f"{entry.key} is signed by key {stated.id}, which is none of those given")


async def _page(repository: Repository, entry: Entry, facts: _Facts) -> None:
    key = layout.evidence_key(entry.number, "html")
    try:
        page = await repository.store.read(key, encoding.MAX_DOCUMENT)
    except NoObjectError:
        entry.notice("no-page", f"{key} is not there; its facts are in {entry.key}", key)
        return
    except BadDataError as wrong:
        entry.damage("page", wrong.what, key)
        return
    if hashlib.sha256(page).hexdigest() != facts.page.sha256:
        entry.damage("page", f"{key} was altered: {entry.key} states another digest for it", key)


def _chain(there: Sequence[Entry]) -> list[Finding]:
    """What the documents say of each other."""
    by_number = {entry.number: entry for entry in there}
    findings = []
    for first, last in gaps(sorted(by_number)):
        after = by_number[last + 1]
        what = f"{layout.evidence_key(first)} is gone: the chain goes on with {after.key}"
        if last > first:
            what = f"{layout.evidence_key(first)} to {layout.evidence_key(last)} are gone: the chain goes on with {after.key}"
        if after.facts and after.facts.previous:
            what += f", which names the SHA-256 {after.facts.previous.sha256} of {after.facts.previous.key}"
        findings.append(Finding("missing", "damage", layout.evidence_key(first), what))
    for entry in there:
        if entry.facts is None:
            continue
        stated, before = entry.facts.previous, by_number.get(entry.number - 1)
        expected = layout.evidence_key(entry.number - 1) if entry.number > 1 else None
        if (stated.key if stated else None) != expected:
            what = f"{entry.key} follows {stated.key if stated else 'nothing'}, not {expected or 'nothing'}"
            findings.append(Finding("chain", "damage", entry.key, what))
        elif stated and before and stated.sha256 != before.sha256:
            what = f"{before.key} was altered or replaced: it has SHA-256 {before.sha256}, {entry.key} names {stated.sha256}"
            findings.append(Finding("altered", "damage", before.key, what))
    return findings


def gaps(there: Sequence[int]) -> list[tuple[int, int]]:
    """The numbers that are missing before and between these, which rise, as first and last of each run."""
    return [(one + 1, two - 1) for one, two in pairwise([0, *there]) if two - one > 1]
