"""The document of a drill: what was rehearsed, what was expected and found (docs/reference/evidence.md)."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from jetkeep.model import JsonDict
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import FORMAT
from jetkeep.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Kept:
    """Evidence in a repository: its key and the document."""

    key: str
    body: JsonDict


async def keep(repository: Repository, label: str, drill_id: str, body: JsonDict) -> str:
    """Store a drill's document; durable on return. Returns its key.

    Raises:
        StoreError: it could not be stored.
    """
    key = f"{layout.EVIDENCE}{label}-{drill_id}.json"
    await repository.store.create(key, encoding.seal({"format": FORMAT, "features": [], **body}))
    return key


async def newest(repository: Repository) -> Kept | None:
    """The document that was stored last, None when there is none.

    Raises:
        BadDataError: it is damaged.
    """
    last = None
    async for info in repository.store.list(layout.EVIDENCE):
        if info.key.endswith(".json") and (last is None or (info.modified_ns, info.key) > (last.modified_ns, last.key)):
            last = info
    if last is None:
        return None
    data = await repository.store.read(last.key, encoding.MAX_DOCUMENT)
    return Kept(last.key, msgspec.json.decode(encoding.open_envelope(data, last.key)))
