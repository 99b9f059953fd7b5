"""What a target refuses, what will differ there, and what will be lost, for one stream of a plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from jetkeep.codecs.sequences import SequenceSet
from jetkeep.model import JsonDict
from jetkeep.restore.decisions import Difference, Loss, Refusal, RestoreOptions
from jetkeep.restore.fields import ARCHIVE, OLDEST
from jetkeep.restore.forecast import LARGEST_RECORD, Forecast
from jetkeep.restore.prepare import Draft
from jetkeep.restore.stage import closed_subject
from jetkeep.restore.subjects import overlap
from jetkeep.restore.target import Existing, Target

#: What a tar of blocks has beside messages, and beside that for each consumer: headers, padding, configuration.
TAR_BYTES, CONSUMER_BYTES = 8192, 4096
_WHY = {
    "max_age": "older than max_age: they expire as soon as the stream is open",
    "max_msgs": "more than max_msgs: the oldest go as soon as the stream is open",
    "max_bytes": "more than max_bytes: the oldest go as soon as the stream is open",
    "max_msgs_per_subject": "more than max_msgs_per_subject: the oldest of each subject go once the stream is open",
    "ttl": "their Nats-TTL has passed",
    "max_payload": "above the target's max_payload, which its restore to memory storage refuses: they are left out",
    "message_size": f"above {LARGEST_RECORD // 2**20} MiB, which no server reads back from disk: they are left out",
}


def refusals(draft: Draft, target: Target, options: RestoreOptions, claimed: bool) -> list[Refusal]:
    """Why this stream cannot go to this target at all. `claimed`: the name is free or an own leftover."""
    found = []
    name, config = draft.name, draft.config
    if target.version < OLDEST:
        found.append(
            Refusal("restore.version", f"the target is {target.version_text}", f"restore to {OLDEST} or newer")
        )
    if name in target.busy:
        found.append(
            Refusal(
                "restore.exists",
                f"{name} exists and does not answer",
                "if a restore was killed a moment ago, wait 20 s; else see `nats stream info`",
            )
        )
    elif name in target.streams and not claimed:
        existing = target.streams[name]
        if existing.claim:
            hint = "wait for the other restore; if there is none, delete the stream: it was never opened"
            found.append(Refusal("restore.in-progress", f"{name} is another restore's unfinished stream", hint))
        else:
            hint = "delete it first, restore it --as another name, or leave it out (--if-exists skip)"
            found.append(Refusal("restore.exists", f"{name} exists at the target", hint))
    if config.get("storage") == "memory" and target.version < ARCHIVE:
        hint = "--storage file restores it on disk"
        what = f"the target ({target.version_text}) restores no memory storage; it would come out empty"
        found.append(Refusal("restore.memory-storage", what, hint))
    if int(config.get("num_replicas") or 1) > 1 and not target.clustered:
        what = f"it has {config['num_replicas']} replicas and the target is a single server"
        found.append(Refusal("restore.replicas", what, "--replicas 1"))
    return found + _account(draft, target)


def _account(draft: Draft, target: Target) -> list[Refusal]:
    replicas = int(draft.config.get("num_replicas") or 1)
    limits, used = target.limits(replicas), target.used(replicas)
    hint = "raise the account's limits, free room, or restore fewer streams"
    found = []
    memory = draft.config.get("storage") == "memory"
    kind = "memory" if memory else "storage"
    tiered = bool(target.account.get("tiers"))
    need = stored_size(draft) * (1 if tiered else replicas)
    limit = int(limits.get(f"max_{kind}", -1))
    have = int(used.get(kind, 0))
    if 0 <= limit < have + need:
        what = f"it needs {need:,} bytes of {kind}; the account may have {limit:,} and uses {have:,}"
        found.append(Refusal("restore.account-limit", what, hint))
    per_stream = int(limits.get(f"{kind}_max_stream_bytes", 0))
    if 0 < per_stream < int(draft.config.get("max_bytes") or -1):
        what = f"max_bytes {draft.config['max_bytes']:,} is above the account's {per_stream:,} for one stream"
        found.append(Refusal("restore.account-limit", what, hint))
    consumers = int(limits.get("max_consumers", -1))
    if 0 <= consumers < len(draft.consumers):
        what = f"it has {len(draft.consumers)} consumers; the account allows {consumers}"
        found.append(Refusal("restore.account-limit", what, hint))
    if limits.get("max_bytes_required") and int(draft.config.get("max_bytes") or 0) <= 0:
        found.append(Refusal("restore.account-limit", "the account demands max_bytes, which it does not have", hint))
    return found


def stored_size(draft: Draft) -> int:
    """Bytes that the target will count for the stream, at most; while blocks come in, their files count as they are."""
    manifest = draft.manifest
    if draft.config.get("storage") == "memory":
        return manifest.bytes
    return manifest.bytes + 18 * manifest.messages + TAR_BYTES + CONSUMER_BYTES * len(draft.consumers)


def overlaps(draft: Draft, others: Mapping[str, JsonDict]) -> dict[str, str]:
    """Subjects of this stream that another stream has, too: subject → that stream."""
    found = {}
    for subject in draft.config.get("subjects") or []:
        for name, config in others.items():
            if name != draft.name and any(overlap(subject, one) for one in config.get("subjects") or []):
                found[subject] = name
    return found


def without_subjects(config: JsonDict, taken: Mapping[str, str]) -> JsonDict:
    """The configuration without subjects that others have; a stream left with none keeps the closed one."""
    left = [one for one in config["subjects"] if one not in taken]
    return {**config, "subjects": left or [closed_subject(str(config["name"]))]}


def catches_all(draft: Draft, others: Mapping[str, JsonDict]) -> str:
    """A stream whose subjects match even the closed one: nothing can be restored beside it."""
    closed = closed_subject(draft.name)
    for name, config in others.items():
        if name != draft.name and any(overlap(closed, one) for one in config.get("subjects") or []):
            return name
    return ""


def losses(draft: Draft, forecast: Forecast) -> list[Loss]:
    """What the target will drop, in numbers."""
    found = [Loss(cause, count, "messages", _WHY[cause]) for cause, count in forecast.losses.items()]
    for cause, count in forecast.late.items():
        why = "more than max_msgs_per_subject: this version drops them at its next restart"
        found.append(Loss(cause, count, "messages", why, "restart"))
    return found + list(draft.losses)


def differences(draft: Draft, forecast: Forecast, target: Target) -> list[Difference]:
    """What will not be as it was, though no message is lost by it."""
    manifest, config = draft.manifest, draft.config
    found = list(draft.differences)
    if gaps := sum(SequenceSet.decode(gap.set).count() for gap in manifest.gaps):
        found.append(Difference(f"{gaps:,} sequences are missing in the backup", "see `jetkeep info`"))
    if forecast.markers:
        why = "the last message of as many subjects expires at opening, and the stream leaves delete markers"
        found.append(Difference(f"{forecast.markers:,} delete markers are appended", why))
    if forecast.due:
        why = "their time has passed: each fires once at opening and gives way to what it publishes"
        found.append(Difference(f"{forecast.due:,} scheduled messages fire", why))
    window = int(config.get("duplicate_window") or 0)
    if window and manifest.messages and manifest.last_ts_ns + window > forecast.now_ns and draft.writer == "archive":
        found.append(
            Difference(
                "the deduplication window is empty",
                f"a repeated Nats-Msg-Id of the last {window / 1e9:g} s before the backup is stored again",
            )
        )
    if draft.writer == "archive":
        found.append(Difference("created is the time of the restore", "the archive does not carry it"))
    elif any(one.state.pending for one in draft.consumers):
        found.append(
            Difference("delivery times of pending messages lose their fraction of a second", "as blocks carry them")
        )
    for one in draft.consumers:
        if not one.config.get("durable_name"):
            idle = int(one.config.get("inactive_threshold") or 0) / 1e9 or 5
            why = f"it is ephemeral: the server deletes it after {idle:g} s without its client"
            found.append(Difference(f"consumer {one.name} may vanish", why))
    return found + _mirror(draft, target)


def _mirror(draft: Draft, target: Target) -> list[Difference]:
    mirror = draft.config.get("mirror") or {}
    origin = target.streams.get(str(mirror.get("name", ""))) if not mirror.get("external") else None
    if mirror and origin and origin.last_seq < draft.manifest.last_seq:
        what = f"the mirror stalls until {mirror['name']} passes sequence {draft.manifest.last_seq}"
        return [Difference(what, f"it goes on after its last sequence; {mirror['name']} ends at {origin.last_seq}")]
    return []


def downstream(draft: Draft, existing: Mapping[str, Existing]) -> list[Difference]:
    """What restoring this stream does to streams at the target that mirror or source it already."""
    found: list[Difference] = []
    end = draft.manifest.last_seq
    for name, other in existing.items():
        if other.claim or name == draft.name:
            continue
        mirror = other.config.get("mirror") or {}
        if mirror.get("name") == draft.name and not mirror.get("external") and other.last_seq > end:
            what = f"mirror {name} at the target is ahead and takes nothing until sequence {other.last_seq} is passed"
            found.append(Difference(what, f"this backup ends at {end}; better delete the mirror and restore it, too"))
        if any(one.get("name") == draft.name and not one.get("external") for one in other.config.get("sources") or []):
            what = f"stream {name} at the target sources this one and goes on after the last sequence that it took"
            found.append(
                Difference(what, f"if that is above {end}, where this backup ends, it takes nothing until then")
            )
    return found
