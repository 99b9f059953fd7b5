"""The first half of a plan: a stream's configuration at the target, its writer, what to look at. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from jetkeep.model import ConsumerRecord, JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.restore.consumers import adapt_all
from jetkeep.restore.decisions import Difference, Loss, RestoreOptions, Writer
from jetkeep.restore.fields import ARCHIVE, BATCHED, Version, fit
from jetkeep.restore.forecast import LARGEST_RECORD, Facts, Forecast, Rules, must_scan
from jetkeep.restore.target import Target


@dataclass(frozen=True, slots=True)
class Draft:
    """A stream's step before its messages were counted; `scan` says why they must be, or is empty."""

    manifest: Manifest
    name: str
    config: JsonDict
    consumers: tuple[ConsumerRecord, ...]
    writer: Writer
    reason: str
    rules: Rules
    scan: str
    differences: tuple[Difference, ...]
    losses: tuple[Loss, ...]


def draft(manifest: Manifest, target: Target, options: RestoreOptions, now_ns: int) -> Draft:
    """Decide what does not depend on single messages."""
    config, dropped = fit(manifest.config, target.version, Version.of(manifest.server_version))
    differences = [Difference(f"{one.path} {one.value!r} dropped", one.why) for one in dropped]
    name = options.as_name or manifest.stream
    differences += _override(config, name, manifest, target, options)
    writer, reason = choose_writer(config, target.version)
    consumers, more, losses = adapt_all(manifest, target.version, int(config.get("num_replicas") or 1), writer)
    rules = Rules.of(config, target.version, archive=writer == "archive", max_payload=target.max_payload)
    return Draft(
        manifest,
        name,
        config,
        tuple(consumers),
        writer,
        reason,
        rules,
        must_scan(rules, facts_of(manifest, config), now_ns),
        tuple(differences + more),
        tuple(losses),
    )


def choose_writer(config: JsonDict, target: Version) -> tuple[Writer, str]:
    """Which of the two forms is sent, and why."""
    if config.get("storage") != "memory":
        return (
            "tar",
            "blocks: every server from 2.10 takes them, nothing stays on a failure, TTLs and schedules survive",
        )
    if target < ARCHIVE:
        return "tar", f"servers before {ARCHIVE} restore no memory storage"
    return "archive", "memory storage: only the archive can be restored to it"


def facts_of(manifest: Manifest, config: JsonDict) -> Facts:
    """What the manifest alone tells about the messages."""
    per_subject = int(config.get("max_msgs_per_subject") or 0)
    at_source = int(manifest.config.get("max_msgs_per_subject") or 0)
    return Facts(
        messages=manifest.messages,
        raw_bytes=manifest.bytes,
        first_ts_ns=manifest.first_ts_ns,
        largest_segment=max((one.raw_bytes for one in manifest.segments), default=0),
        # Up to 2.12 a limit per subject that is lowered by an update waits for the next restart.
        per_subject_holds=0 < at_source <= per_subject and Version.of(manifest.server_version) >= BATCHED,
        # A segment ends after 32 MiB and at most one batch of 4 MiB, unless one message is larger than that.
        may_hold_huge=any(
            one.raw_bytes > LARGEST_RECORD + 5 * 1024 * 1024 or (one.count <= 3 and one.raw_bytes > LARGEST_RECORD)
            for one in manifest.segments
        ),
    )


def _override(
    config: JsonDict, name: str, manifest: Manifest, target: Target, options: RestoreOptions
) -> list[Difference]:
    """Apply what was asked for, and what the target needs; tell each change."""
    found: list[Difference] = []

    def change(key: str, value: object, why: str) -> None:
        if config.get(key) != value:
            found.append(Difference(f"{key} {config.get(key)!r} → {value!r}", why))
            config[key] = value

    change("name", name, "--as")
    if options.replicas is not None:
        change("num_replicas", options.replicas, "--replicas")
    if options.storage is not None:
        change("storage", options.storage, "--storage")
    elif config.get("storage") == "memory" and target.version < ARCHIVE and options.accept_loss:
        change("storage", "file", f"servers before {ARCHIVE} restore no memory storage; --accept-loss")
    if options.cluster is not None or options.tags:
        wanted = {"cluster": options.cluster or "", "tags": list(options.tags)}
        change("placement", {key: value for key, value in wanted.items() if value}, "--placement")
    if config.get("storage") == "memory" and config.get("compression", "none") != "none":
        change("compression", "none", "memory storage is not compressed")
    first = int(config.get("first_seq") or 0)
    if first > max(manifest.first_seq, 1):
        # At the next restart a server would drop every message below it.
        change("first_seq", 0, f"the stream holds messages from {manifest.first_seq}")
    return found


def stored_forecast(one: Draft, now_ns: int) -> Forecast:
    """The forecast where the manifest alone is enough: nothing is lost."""
    return Forecast(now_ns, one.manifest.messages, one.manifest.bytes)
