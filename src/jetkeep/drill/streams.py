"""What the evidence says of one stream: expected against found, messages and consumers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetkeep.codecs.sequences import SequenceSet
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict
from jetkeep.repository.documents import Gap, Manifest
from jetkeep.restore.consumers import spent_deliveries
from jetkeep.restore.report import StreamReport

#: Consumers of one stream that the evidence lists when they are as they were; those that are not are all listed.
LISTED = 1000


@dataclass(slots=True)
class StreamFindings:
    """One stream of a drill; `wrong` is what fails it, `deviations` what is different and no loss."""

    manifest: Manifest
    found: JsonDict | None = None
    wrong: list[str] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    consumers: list[JsonDict] = field(default_factory=list)
    sample: JsonDict = field(default_factory=dict)
    error: JsonDict | None = None

    @property
    def good(self) -> bool:
        """Everything is as it was captured."""
        return not self.wrong

    def to_dict(self) -> JsonDict:
        """As it stands in the evidence (docs/reference/evidence.md)."""
        manifest = self.manifest
        return {
            "stream": manifest.stream,
            "verdict": "SUCCESSFUL" if self.good else "FAILED",
            "expected": {
                "messages": manifest.messages,
                "bytes": manifest.bytes,
                "first_seq": manifest.first_seq,
                "last_seq": manifest.last_seq,
                "fingerprint": manifest.fingerprint,
                "consumers": len(manifest.consumers),
            },
            "found": self.found,
            "gaps": [_gap(gap) for gap in manifest.gaps],
            "consumers": self.consumers,
            "sample": self.sample,
            "deviations": self.deviations,
            "changed_for_the_drill": self.changed,
            "failures": self.wrong,
            "error": self.error,
        }


def _gap(gap: Gap) -> JsonDict:
    sequences = SequenceSet.decode(gap.set)
    first, last = 0, 0
    for begin, end in sequences.ranges():
        first, last = first or begin, end
    return {"set": gap.set, "count": sequences.count(), "first": first, "last": last, "reason": gap.reason}


def compare_messages(findings: StreamFindings, done: StreamReport, state: JsonDict) -> None:
    """Compare what the restore read back, and the open stream's state, with the manifest."""
    manifest = findings.manifest
    for one in done.step.differences:
        findings.deviations.append(f"{one.what}: {one.why}")
    back = done.read_back
    assert back is not None, "a restored stream was read back"
    for name, found, expected in (
        ("messages", back.messages, manifest.messages),
        ("bytes", back.bytes, manifest.bytes),
        ("fingerprint", back.fingerprint, manifest.fingerprint),
        ("messages once it is open", int(state["messages"]), manifest.messages),
        ("last sequence once it is open", int(state["last_seq"]), manifest.last_seq),
    ):
        if found != expected:
            findings.wrong.append(f"{name}: {found}, not {expected}")
    if back.first_seq != manifest.first_seq:
        # Every message is there: the sequences between hold none.
        findings.deviations.append(f"the first sequence is {back.first_seq}, not {manifest.first_seq}")


def found_in(done: StreamReport) -> JsonDict | None:
    """What was read back, whether the comparison went well or not; None when nothing could be."""
    if (back := done.read_back) is None:
        return None
    return {
        "messages": back.messages,
        "bytes": back.bytes,
        "first_seq": back.first_seq,
        "last_seq": back.last_seq,
        "fingerprint": back.fingerprint,
        "consumers": len(back.consumers),
    }


def compare_consumers(findings: StreamFindings, done: StreamReport, infos: list[JsonDict]) -> None:
    """Compare every consumer as the open stream's API tells it, a second look beside the restore's own.

    Known deviations: an ephemeral consumer without its client vanishes, and what had its last delivery is given up.
    """
    told = {str(one["name"]): one for one in infos}
    entries = []
    for record in done.step.consumers:
        expected = _facts(record.state)
        entry: JsonDict = {"name": record.name, "expected": expected, "found": None, "verdict": "SUCCESSFUL"}
        info = told.get(record.name)
        if info is not None:
            entry["found"] = _told(info)
        if not _same(record, entry["found"]):
            if why := _deviation(record, entry["found"]):
                findings.deviations.append(f"consumer {record.name}: {why}")
            else:
                entry["verdict"] = "FAILED"
                findings.wrong.append(_difference(record.name, expected, entry["found"]))
        entries.append(entry)
    bad = [one for one in entries if one["verdict"] == "FAILED"]
    good = [one for one in entries if one["verdict"] != "FAILED"]
    findings.consumers = sorted(bad + good[:LISTED], key=lambda one: str(one["name"]))
    if len(good) > LISTED:
        findings.deviations.append(f"{len(good) - LISTED} more consumers are as they were and not listed")


def _facts(state: ConsumerState) -> JsonDict:
    return {
        "delivered": state.delivered._asdict(),
        "ack_floor": state.ack_floor._asdict(),
        "pending": len(state.pending),
        "redelivered": len(state.redelivered),
    }


def _told(info: JsonDict) -> JsonDict:
    positions = {
        key: {part: int(info[key][part]) for part in ("consumer_seq", "stream_seq")}
        for key in ("delivered", "ack_floor")
    }
    return {**positions, "pending": int(info["num_ack_pending"]), "redelivered": int(info["num_redelivered"])}


def _same(record: ConsumerRecord, found: JsonDict | None) -> bool:
    """Some versions count as redelivered only what is pending still."""
    state = record.state
    expected = _facts(state)
    pending_too = {**expected, "redelivered": len(state.redelivered.keys() & state.pending.keys())}
    return found in (expected, pending_too)


def _deviation(record: ConsumerRecord, found: JsonDict | None) -> str:
    """Why a consumer may rightly be different once its stream is open; empty when nothing explains it."""
    if found is None:
        return "" if record.config.get("durable_name") else "it is ephemeral and vanished without its client"
    spent, state = len(spent_deliveries(record)), record.state
    if (
        len(state.pending) - spent <= found["pending"] < len(state.pending)
        and found["delivered"] == state.delivered._asdict()
    ):
        return f"{len(state.pending) - found['pending']} deliveries that were its last were given up"
    return ""


def _difference(name: str, expected: JsonDict, found: JsonDict | None) -> str:
    if found is None:
        return f"consumer {name} is not there"
    parts = [f"{key} is {found[key]}, not {expected[key]}" for key in expected if found[key] != expected[key]]
    return f"consumer {name}: {', '.join(parts)}"
