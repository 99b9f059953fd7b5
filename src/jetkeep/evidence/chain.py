"""The documents of drills in a repository: numbered, each with the digest of the one before, created once, never changed.

The number is part of the key, and a key is taken once: of two drills that end at the same time the second one follows
the first. So the chain has no forks, and a document that is gone leaves a number without one.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jetkeep.errors import AlreadyThereError, BadDataError, NoObjectError, StoreFailedError
from jetkeep.evidence import canonical
from jetkeep.evidence.page import render
from jetkeep.model import JsonDict
from jetkeep.repository import encoding, layout, refusals
from jetkeep.repository.documents import FORMAT
from jetkeep.repository.repository import Repository
from jetkeep.repository.store import create_surely

if TYPE_CHECKING:
    from jetkeep.evidence.signing import Signer

_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Kept:
    """Evidence in a repository: its key, number, the SHA-256 of the object's bytes, and the document."""

    key: str
    number: int
    sha256: str
    body: JsonDict


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next document goes; `previous` has the key and digest of the one before, None for the first."""

    number: int = 1
    previous: JsonDict | None = None


async def numbers(repository: Repository) -> list[int]:
    """The numbers of all documents, rising.

    Raises:
        StoreError: they cannot be listed.
    """
    found = [layout.evidence_number(info.key) async for info in repository.store.list(layout.EVIDENCE)]
    return sorted(one for one in found if one is not None)


async def read(repository: Repository, number: int) -> Kept:
    """One document. Neither its signature nor its place in the chain is checked here.

    Raises:
        NoObjectError: there is none of that number.
        BadDataError: it is damaged, or of another format.
    """
    key = layout.evidence_key(number)
    data = await repository.store.read(key, encoding.MAX_DOCUMENT)
    return Kept(key, number, hashlib.sha256(data).hexdigest(), opened(data, key))


async def read_page(repository: Repository, kept: Kept) -> bytes:
    """The printable twin of a document.

    Raises:
        BadDataError: it is not there, or not what the document says.
    """
    key = str(kept.body["page"]["key"])
    try:
        page = await repository.store.read(key, encoding.MAX_DOCUMENT)
    except NoObjectError:
        raise refusals.missing(key) from None
    if hashlib.sha256(page).hexdigest() != kept.body["page"]["sha256"]:
        raise encoding.damaged(key, f"it is not the page that {kept.key} was stored with")
    return page


async def newest(repository: Repository) -> Kept | None:
    """The document with the highest number, None when there is none.

    Raises:
        BadDataError: it is damaged.
    """
    found = await numbers(repository)
    return await read(repository, found[-1]) if found else None


async def next_place(repository: Repository, at_least: int = 0) -> Place:
    """The place after the newest document, which is `at_least` that number whatever the listing shows.

    A document that is damaged has a successor too: the chain goes on from the bytes that are there.

    Raises:
        StoreError: the store does not answer.
    """
    last = max([at_least, *await numbers(repository)])
    if not last:
        return Place()
    key = layout.evidence_key(last)
    data = await repository.store.read(key, encoding.MAX_DOCUMENT)
    return Place(last + 1, {"key": key, "sha256": hashlib.sha256(data).hexdigest()})


async def keep(repository: Repository, facts: JsonDict, place: Place, signer: Signer | None) -> tuple[Kept, bytes]:
    """Store a drill's facts as a document, at `place` or after those that came there since; durable on return.

    Returns what was stored and its page, which is not stored yet: the document is the evidence, the page its print.

    Raises:
        StoreError: it could not be stored.
    """
    for _ in range(_ATTEMPTS):
        body, data, page = await asyncio.to_thread(compose, facts, place, signer)
        key = layout.evidence_key(place.number)
        try:
            await create_surely(repository.store, key, data, durable=True)
        except AlreadyThereError:
            # Ours, if an answer was lost.
            if await repository.store.read(key, encoding.MAX_DOCUMENT) != data:
                place = await next_place(repository, place.number)
                continue
        return Kept(key, place.number, hashlib.sha256(data).hexdigest(), body), page
    raise StoreFailedError(
        f"{_ATTEMPTS} other documents were quicker, each at the key where this evidence was to go",
        means="the drill's result was printed and is not in the repository",
        hint="run the drill again when fewer run at once",
    )


async def keep_page(repository: Repository, kept: Kept, page: bytes) -> None:
    """Store the printable twin beside its document; durable on return.

    Raises:
        StoreError: it could not be stored, or something else is there.
    """
    key = str(kept.body["page"]["key"])
    try:
        await create_surely(repository.store, key, page, durable=True)
    except AlreadyThereError:
        if await repository.store.read(key, encoding.MAX_DOCUMENT) != page:
            raise


def compose(facts: JsonDict, place: Place, signer: Signer | None) -> tuple[JsonDict, bytes, bytes]:
    """The whole document, its object's bytes, and its page. All but the signature is signed, so the page's digest too."""
    body: JsonDict = {
        "format": FORMAT,
        "features": [],
        **facts,
        "number": place.number,
        "previous": place.previous,
        "signer": signer.public.to_dict() if signer else None,
    }
    # As a reader will have it, so that the page is the same when it is made again.
    body = canonical.plain(body)
    page = render(body)
    body["page"] = {"key": layout.evidence_key(place.number, "html"), "sha256": hashlib.sha256(page).hexdigest()}
    if signer:
        body["signature"] = signer.sign(canonical.write(body))
    return body, encoding.envelope(canonical.write(body)), page


def opened(data: bytes, key: str) -> JsonDict:
    """A document from an object's bytes.

    Raises:
        BadDataError: it is damaged, not canonical, or of another format.
    """
    body = canonical.decode(encoding.open_envelope(data, key), key)
    if body.get("format") != FORMAT or body.get("features"):
        unknown = f"feature '{body['features']}'" if body.get("features") else f"format {body.get('format')}"
        raise BadDataError(
            f"{key} needs {unknown}, which this version does not know",
            code="data.format",
            means="nothing of it was read; it is untouched",
            hint="use the newer jetkeep that wrote it",
        )
    return body
