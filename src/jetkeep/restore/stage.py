"""The configuration under which a stream is restored: it takes no publishes and drops nothing until it is opened.

What no server lets an update change is there from the start (measured on 2.10.26 to 2.15.1): storage, retention to
or from work queue, mirror, counters, persist mode, and, up to 2.11, max_consumers. Everything else comes with the
update that opens it.
"""

from __future__ import annotations

from jetkeep.model import JsonDict

#: Metadata that says whose unfinished restore a stream is: `<repository id>/<nonce of the run's lease>`.
CLAIM = "jetkeep.restore"
PREFIX = "_restore."
_FROM_THE_START = (
    "name",
    "storage",
    "retention",
    "num_replicas",
    "placement",
    "mirror",
    "compression",
    "allow_msg_counter",
    "persist_mode",
    "max_consumers",
)


def closed_subject(name: str) -> str:
    """The subject of a stream that is being restored; nobody publishes to it."""
    return PREFIX + name


def staged(config: JsonDict, claim: str, *, bounded: bool) -> JsonDict:
    """The closed form of `config`.

    `bounded`: the account demands a limit of bytes; the real one is there, with discard `new`, which no restore heeds.
    """
    stage: JsonDict = {key: config[key] for key in _FROM_THE_START if key in config}
    if not config.get("mirror"):
        stage["subjects"] = [closed_subject(str(config["name"]))]
    stage |= {
        "max_msgs": -1,
        "max_bytes": config.get("max_bytes", -1) if bounded else -1,
        "max_msgs_per_subject": -1,
        "max_age": 0,
        "discard": "new" if bounded else "old",
        "metadata": {CLAIM: claim},
    }
    return stage


def claim_of(config: JsonDict) -> str:
    """Whose unfinished restore a stream is; empty when it is none."""
    return str((config.get("metadata") or {}).get(CLAIM, ""))
