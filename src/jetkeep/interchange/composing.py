"""What an export says of a stream: its configuration, its state, its consumers, as a server must hear them. Pure."""

from __future__ import annotations

from dataclasses import replace

from jetkeep.codecs.snapshot import Form
from jetkeep.interchange.moments import ZERO_TIME, is_time, rfc3339
from jetkeep.model import ConsumerRecord, JsonDict
from jetkeep.repository.documents import Manifest

#: What a server's file store needs for a message beside subject, headers and payload, and once more for headers.
_RECORD_BYTES, _HEADER_LENGTH_BYTES = 30, 4
#: And its memory store; raw bytes count the same (docs/format.md).
_RAW_BYTES = 16


def compose_config(manifest: Manifest, form: Form) -> tuple[JsonDict, list[str]]:
    """The configuration for backup.json, and notes on what differs from the stream's own.

    What a server says of itself in `_nats.*` goes: it sets its own, and an older one would take the stream
    offline at its next restart because of a level that is above its own.
    """
    config = without_server_metadata(manifest.config)
    notes = []
    if form == "tar" and config.get("storage") == "memory":
        # Measured on every version: a tar that is restored into memory gives an empty stream, and no error.
        config["storage"] = "file"
        notes.append("storage is `file` in the export: servers restore a tar into memory storage as an empty stream")
    return config, notes


def without_server_metadata(config: JsonDict) -> JsonDict:
    """A copy of a stream's or consumer's configuration without the metadata that servers set themselves."""
    metadata = config.get("metadata")
    if not isinstance(metadata, dict):
        return dict(config)
    kept = {key: value for key, value in metadata.items() if not str(key).startswith("_nats.")}
    rest = {key: value for key, value in config.items() if key != "metadata"}
    return {**rest, "metadata": kept} if kept else rest


def compose_state(manifest: Manifest, stored_bytes: int) -> JsonDict:
    """The state for backup.json and for an archive's state.json.

    Args:
        manifest: of the backup that is exported.
        stored_bytes: what the messages occupy in the server's store. A server reserves it before it stores anything:
            too much fails a restore that would fit.
    """
    given = manifest.state
    return {
        "messages": manifest.messages,
        "bytes": stored_bytes,
        "first_seq": manifest.first_seq,
        "first_ts": _told(given.get("first_ts"), manifest.first_ts_ns),
        "last_seq": manifest.last_seq,
        "last_ts": _told(given.get("last_ts"), manifest.last_ts_ns),
        "consumer_count": len(manifest.consumers),
    }


def known_stored_bytes(manifest: Manifest, config: JsonDict) -> int | None:
    """What the messages occupy in the server's store, where the manifest tells; None where they must be looked at."""
    raw, count = manifest.bytes, manifest.messages
    if config.get("storage") == "memory":
        return raw
    least = raw + (_RECORD_BYTES - _RAW_BYTES) * count
    told = manifest.state.get("bytes")
    same = manifest.state.get("messages") == count and manifest.config.get("storage") == "file"
    # The server's own sum counts if it is about these messages, and can be right.
    if same and type(told) is int and least <= told <= least + _HEADER_LENGTH_BYTES * count:
        return told
    return None


def file_store_bytes(raw: int, count: int, with_headers: int) -> int:
    """What a file store needs for `count` messages of `raw` bytes, of which `with_headers` have headers."""
    return raw + (_RECORD_BYTES - _RAW_BYTES) * count + _HEADER_LENGTH_BYTES * with_headers


def compose_consumers(manifest: Manifest, form: Form) -> tuple[list[ConsumerRecord], list[str]]:
    """The consumers, in states that every server accepts, and notes on what differs from their own."""
    records = []
    for record in (one.record() for one in manifest.consumers):
        config = without_server_metadata(record.config)
        state = record.state.within(manifest.first_seq, manifest.last_seq)
        records.append(replace(record, config=config, state=state))
    if form != "tar" or not (names := [one.name for one in records if one.config.pop("mem_storage", False)]):
        return records, []
    # Measured on every version: one that is restored from a tar with it begins anew.
    named = ", ".join(names)
    return records, [f"without `mem_storage` in the export, so that they go on where they were: consumers {named}"]


def _told(time: object, ns: int) -> str:
    return str(time) if is_time(time) else rfc3339(ns) if ns else ZERO_TIME
