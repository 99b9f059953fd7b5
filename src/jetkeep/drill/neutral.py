"""The configuration under which a drill restores: nothing may be dropped, fired or fetched while it looks. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from jetkeep.model import JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.restore.fields import ARCHIVE, Version
from jetkeep.restore.stage import closed_subject
from jetkeep.restore.subjects import overlap

#: What would drop or change messages, or reach for other streams: the drill compares data, and the plan of a real
#: restore names what its target would drop.
_DROPPED = (
    "mirror",
    "mirror_direct",
    "sources",
    "republish",
    "placement",
    "subject_transform",
    "allow_msg_ttl",
    "subject_delete_marker_ttl",
    "allow_msg_schedules",
    "sealed",
    "deny_delete",
    "deny_purge",
    "discard_new_per_subject",
    "max_consumers",
    "consumer_limits",
    "max_msg_size",
)
_UNLIMITED = {"max_age": 0, "max_msgs": -1, "max_bytes": -1, "max_msgs_per_subject": -1, "num_replicas": 1}
_UNSET: tuple[Any, ...] = (None, False, 0, -1, "", {}, [])


def neutral(manifest: Manifest, server: Version) -> tuple[Manifest, list[str]]:
    """The manifest with a configuration under which a stream alone on one server keeps everything, and what was changed.

    A memory stream is rehearsed in a file where the server restores no memory storage (before 2.15), or would leave
    out what has outlived its TTL.
    """
    config: JsonDict = {key: value for key, value in manifest.config.items() if key not in _DROPPED}
    config |= _UNLIMITED
    if server < ARCHIVE or manifest.config.get("allow_msg_ttl"):
        config["storage"] = "file"
    subjects = config.get("subjects") or []
    closed = closed_subject(manifest.stream)
    if manifest.config.get("mirror") or not subjects or any(overlap(one, closed) for one in subjects):
        # A mirror has no subjects, and without its origin it must not listen to its own name; a stream that
        # listens to everything would take the others' messages.
        config["subjects"] = [f"_drill.{manifest.stream}"]
    return msgspec.structs.replace(manifest, config=config), _changed(manifest.config, config)


def _changed(before: JsonDict, after: JsonDict) -> list[str]:
    return sorted(
        key
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key) and not (before.get(key) in _UNSET and after.get(key) in _UNSET)
    )
