"""Which configuration fields which server knows, and a configuration without those that the target does not.

Servers up to 2.11 drop unknown fields without a word, later ones refuse the whole configuration (error 10025), and a
`_nats.req.level` above the server's own takes the stream offline at the next restart. So what does not fit is taken
out here, and named. The tables are proven against real servers by tests/integration/test_restore_fields.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

from jetkeep.model import JsonDict


class Version(NamedTuple):
    """A server's version as far as behaviour depends on it."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def of(cls, text: str) -> Version:
        """Read `2.12.8`, `v2.15.1-dev` …; what cannot be read counts as the oldest supported server."""
        numbers = []
        for part in text.lstrip("v").split("-")[0].split(".")[:3]:
            if not part.isdigit():
                break
            numbers.append(int(part))
        return cls(*numbers) if len(numbers) >= 2 else cls(2, 10)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A field that the target does not know: where it stood, its value, and what its absence means."""

    path: str
    value: Any
    why: str


#: The lowest version that jetkeep restores to.
OLDEST = Version(2, 10)
TTL = Version(2, 11)
SCHEDULES = Version(2, 12)
BATCHED = Version(2, 14)
ARCHIVE = Version(2, 15)

_BASE_STREAM = (
    "name description subjects retention max_consumers max_msgs max_bytes max_age max_msgs_per_subject max_msg_size "
    "discard storage num_replicas no_ack duplicate_window placement mirror sources compression first_seq "
    "subject_transform republish allow_direct mirror_direct discard_new_per_subject sealed deny_delete deny_purge "
    "allow_rollup_hdrs consumer_limits metadata"
)
_BASE_CONSUMER = (
    "durable_name name description deliver_policy opt_start_seq opt_start_time ack_policy ack_wait max_deliver backoff "
    "filter_subject filter_subjects replay_policy rate_limit_bps sample_freq max_waiting max_ack_pending flow_control "
    "headers_only max_batch max_expires max_bytes deliver_subject deliver_group idle_heartbeat inactive_threshold "
    "num_replicas mem_storage direct metadata"
)
#: field → the first version that knows it.
STREAM_FIELDS: dict[str, Version] = dict.fromkeys(_BASE_STREAM.split(), OLDEST) | {
    "allow_msg_ttl": TTL,
    "subject_delete_marker_ttl": TTL,
    "allow_msg_counter": SCHEDULES,
    "allow_atomic": SCHEDULES,
    "allow_msg_schedules": SCHEDULES,
    "persist_mode": SCHEDULES,
    "allow_batched": BATCHED,
}
#: Fields of `mirror` and of each of `sources`.
ORIGIN_FIELDS: dict[str, Version] = dict.fromkeys(
    ["name", "opt_start_seq", "opt_start_time", "filter_subject", "subject_transforms", "external"], OLDEST
) | {"consumer": BATCHED}
PLACEMENT_FIELDS: dict[str, Version] = dict.fromkeys(["cluster", "tags"], OLDEST)
CONSUMER_FIELDS: dict[str, Version] = dict.fromkeys(_BASE_CONSUMER.split(), OLDEST) | {
    "pause_until": TTL,
    "priority_groups": TTL,
    "priority_policy": TTL,
    "priority_timeout": TTL,
    "sourcing": BATCHED,
}
#: (field, value) → the first version that accepts the value; before it the whole configuration is refused.
CONSUMER_VALUES: dict[tuple[str, str], Version] = {
    ("priority_policy", "prioritized"): SCHEDULES,
    ("ack_policy", "flow_control"): BATCHED,
}
_MEANS = {
    "allow_msg_ttl": "messages with a Nats-TTL are kept for good",
    "subject_delete_marker_ttl": "no delete markers are written when a subject's last message expires",
    "allow_msg_counter": "counters become plain messages: increments are not added up",
    "allow_atomic": "atomic batches are refused to publishers",
    "allow_msg_schedules": "scheduled messages stay and never fire",
    "persist_mode": "every message is written before it is acknowledged, as by default",
    "allow_batched": "fast batches are refused to publishers",
    "consumer": "the origin is read through a consumer of the server's own",
    "pause_until": "the consumer is not paused",
    "priority_groups": "clients share the consumer without priorities",
    "priority_policy": "clients share the consumer without priorities",
    "priority_timeout": "clients share the consumer without priorities",
    "sourcing": "the consumer is an ordinary one",
    "first_seq": ("2.10 empties such a stream at its next restart; the sequences stay as they are without it"),
}
_UNSET: tuple[Any, ...] = (None, False, 0, "", [], {}, "none", "default")


def fit(config: JsonDict, target: Version, source: Version | None = None) -> tuple[JsonDict, list[Dropped]]:
    """A stream's configuration as `target` takes it, and what had to go.

    A field that this table does not know is kept when the target is at least as new as `source`, the version that
    wrote it. The server's own `_nats.*` metadata goes without a word.
    """
    fitted, dropped = _fit_fields(config, STREAM_FIELDS, "", target, source)
    _strip_metadata(fitted)
    for key in ("mirror", "placement"):
        if isinstance(fitted.get(key), dict):
            table = ORIGIN_FIELDS if key == "mirror" else PLACEMENT_FIELDS
            fitted[key], more = _fit_fields(fitted[key], table, f"{key}.", target, source)
            dropped += more
    if isinstance(fitted.get("sources"), list):
        parts = [
            _fit_fields(one, ORIGIN_FIELDS, f"sources[{at}].", target, source)
            for at, one in enumerate(fitted["sources"])
        ]
        fitted["sources"] = [part for part, _ in parts]
        dropped += [one for _, more in parts for one in more]
    if fitted.get("first_seq") and target < TTL:
        dropped.append(Dropped("first_seq", fitted.pop("first_seq"), _MEANS["first_seq"]))
    return fitted, dropped


def fit_consumer(
    config: JsonDict, target: Version, source: Version | None = None
) -> tuple[JsonDict | None, list[Dropped]]:
    """A consumer's configuration as `target` takes it; None when it cannot exist there at all."""
    fitted, dropped = _fit_fields(config, CONSUMER_FIELDS, "", target, source)
    _strip_metadata(fitted)
    for (key, value), since in CONSUMER_VALUES.items():
        if fitted.get(key) != value or target >= since:
            continue
        if key == "ack_policy":
            return None, [Dropped(key, value, f"servers before {since} have no such consumer")]
        for other in ("priority_groups", "priority_policy", "priority_timeout"):
            if other in fitted:
                dropped.append(Dropped(other, fitted.pop(other), f"{value} needs {since}: {_MEANS[other]}"))
    return fitted, dropped


def _fit_fields(
    config: JsonDict, table: dict[str, Version], prefix: str, target: Version, source: Version | None
) -> tuple[JsonDict, list[Dropped]]:
    fitted: JsonDict = {}
    dropped: list[Dropped] = []
    for key, value in config.items():
        since = table.get(key)
        known = target >= since if since else source is not None and target >= source
        if known:
            fitted[key] = copy.deepcopy(value)
        elif value not in _UNSET:
            who = f"servers before {since} do not know it" if since else f"{target} is not known to take it"
            why = f"{who}: {_MEANS[key]}" if key in _MEANS else who
            dropped.append(Dropped(prefix + key, value, why))
    return fitted, dropped


def _strip_metadata(config: JsonDict) -> None:
    metadata = config.get("metadata")
    if isinstance(metadata, dict):
        config["metadata"] = {key: value for key, value in metadata.items() if not key.startswith("_nats.")}
