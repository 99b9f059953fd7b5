"""Consumers on their way to another server: what each form can carry, and whether they arrived. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.restore.decisions import Difference, Loss, Writer
from jetkeep.restore.fields import Version, fit_consumer

#: What a server may leave out or fill in for a field that says nothing.
_UNSET: tuple[Any, ...] = (None, False, 0, "", [], {}, -1)


def adapt_all(
    manifest: Manifest, target: Version, replicas: int, writer: Writer
) -> tuple[list[ConsumerRecord], list[Difference], list[Loss]]:
    """The consumers of a manifest as `target` takes them, sent in this form, beside a stream of so many replicas."""
    kept: list[ConsumerRecord] = []
    differences: list[Difference] = []
    lost: list[str] = []
    for doc in manifest.consumers:
        record = doc.record()
        config, dropped = fit_consumer(record.config, target, Version.of(manifest.server_version))
        if config is None:
            lost.append(f"{record.name} ({dropped[0].why})")
            continue
        where = f"consumer {record.name}"
        differences += [Difference(f"{where}: {one.path} {one.value!r} dropped", one.why) for one in dropped]
        if int(config.get("num_replicas") or 0) > replicas:
            differences.append(
                Difference(f"{where}: num_replicas {config['num_replicas']} → {replicas}", "as the stream")
            )
            config["num_replicas"] = replicas
        if writer == "tar" and config.pop("mem_storage", False):
            # With it, every server takes the configuration and forgets the state: all would be delivered again.
            why = "blocks carry no state for memory: it is kept on disk, and the consumer goes on where it was"
            differences.append(Difference(f"{where}: mem_storage True dropped", why))
        state, why = clamp(record.state, manifest.first_seq, manifest.last_seq)
        if why:
            differences.append(Difference(where, why))
        if spent := spent_deliveries(replace(record, state=state)):
            why = "their last delivery was not acknowledged: servers from 2.14 give them up at once, others when asked"
            differences.append(Difference(f"{where}: {len(spent)} pending messages may be given up", why))
        kept.append(replace(record, config=config, state=state))
    losses = [Loss("consumers", len(lost), "consumers", "; ".join(lost))] if lost else []
    return kept, differences, losses


def clamp(state: ConsumerState, first_seq: int, last_seq: int) -> tuple[ConsumerState, str]:
    """A state that servers accept, and what was changed."""
    moved = state.within(first_seq, last_seq)
    if moved is state:
        return state, ""
    floor, delivered = state.ack_floor.stream_seq, state.delivered.stream_seq
    moves = f"ack floor {floor} → {moved.ack_floor.stream_seq}, delivered {delivered} → {moved.delivered.stream_seq}"
    return moved, f"{moves}: the stream holds {first_seq} to {last_seq}"


def spent_deliveries(record: ConsumerRecord) -> set[int]:
    """Pending sequences that were delivered as often as `max_deliver` allows."""
    most = int(record.config.get("max_deliver") or -1)
    if most <= 0:
        return set()
    again = record.state.redelivered
    return {seq for seq in record.state.pending if 1 + again.get(seq, 0) >= most}


def compare(expected: ConsumerRecord, found: ConsumerRecord | None, writer: Writer) -> list[str]:
    """What differs between a consumer that was sent and the one that arrived; empty when nothing does.

    The tar carries delivery times in whole seconds. A server may give up spent deliveries as soon as it has them, and
    then remembers them as redelivered. Servers fill in defaults where the configuration says nothing, so
    only what was sent is compared.
    """
    if found is None:
        return [f"consumer {expected.name} is missing"]
    wrong = [
        f"consumer {expected.name}: {key} is {found.config.get(key)!r}, not {value!r}"
        for key, value in expected.config.items()
        if key not in ("metadata", "pause_until", "Name", "Created") and not _same(value, found.config.get(key))
    ]
    wrong += _metadata(expected, found)
    sent, got = expected.state, found.state
    if given_up := spent_deliveries(expected) - got.pending.keys():
        sent, got = _without(sent, given_up), _without(got, given_up)
    for name, one, other in (
        ("delivered", sent.delivered, got.delivered),
        ("ack_floor", sent.ack_floor, got.ack_floor),
        ("redelivered", sent.redelivered, got.redelivered),
        ("pending", _pending(sent, writer), _pending(got, writer)),
    ):
        if one != other:
            wrong.append(f"consumer {expected.name}: {name} is {_short(other)}, not {_short(one)}")
    return wrong


def _without(state: ConsumerState, sequences: set[int]) -> ConsumerState:
    return replace(
        state,
        pending={seq: one for seq, one in state.pending.items() if seq not in sequences},
        redelivered={seq: count for seq, count in state.redelivered.items() if seq not in sequences},
    )


def _pending(state: ConsumerState, writer: Writer) -> dict[int, tuple[int, int]]:
    unit = 1_000_000_000 if writer == "tar" else 1
    return {seq: (one.consumer_seq, one.ts // unit) for seq, one in state.pending.items()}


def _metadata(expected: ConsumerRecord, found: ConsumerRecord) -> list[str]:
    want, have = _own(expected.config), _own(found.config)
    return [] if want == have else [f"consumer {expected.name}: metadata is {have!r}, not {want!r}"]


def _own(config: JsonDict) -> dict[str, str]:
    return {key: value for key, value in (config.get("metadata") or {}).items() if not key.startswith("_nats.")}


def _same(one: object, other: object) -> bool:
    return one == other or (one in _UNSET and other in _UNSET)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
