"""The configuration under which a drill restores: nothing may be dropped, fired or fetched while it looks. Pure."""

from __future__ import annotations

import msgspec

from jetkeep.model import JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.restore.fields import ARCHIVE, Version

#: What would drop or change messages, or reach for other streams: the drill compares data, and the plan of a real
#: restore names what its target would drop.
_DROPPED = (
    "mirror",
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
    "max_consumers",
    "max_msg_size",
)
_UNLIMITED = {"max_age": 0, "max_msgs": -1, "max_bytes": -1, "max_msgs_per_subject": -1, "num_replicas": 1}


def neutral(manifest: Manifest, server: Version) -> Manifest:
    """The manifest with a configuration under which a stream alone on one server keeps everything.

    A memory stream is rehearsed in a file where the server restores no memory storage (before 2.15).
    """
    config: JsonDict = {key: value for key, value in manifest.config.items() if key not in _DROPPED}
    config |= _UNLIMITED
    if server < ARCHIVE:
        config["storage"] = "file"
    if manifest.config.get("mirror") or not config.get("subjects"):
        # A mirror has no subjects; without its origin it must not listen to its own name either.
        config["subjects"] = [f"_drill.{manifest.stream}"]
    return msgspec.structs.replace(manifest, config=config)
