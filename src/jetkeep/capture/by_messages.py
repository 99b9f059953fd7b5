"""Read a stream message by message: for what a server's snapshot does not hold, or would disturb."""

from __future__ import annotations

from jetkeep.assembly.manifest import Reading
from jetkeep.assembly.segments import Assembler
from jetkeep.codecs.batch import BatchBuilder
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.jetstream import JetStream
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict, Pending, Position


async def read_by_messages(js: JetStream, stream: str, info: JsonDict, assembler: Assembler) -> Reading:
    """Read all messages up to the last sequence that `info` gives, without any consumer.

    Consumers are read before the messages: a position that is older than the messages makes a restored
    consumer see something twice, a newer one would make it miss something.

    Raises:
        ServerError: the server refused, failed or stalled.
    """
    state: JsonDict = info["state"]
    infos = await js.consumers(stream)
    assembler.release()
    rows: list[tuple[int, int]] = []
    if int(state["messages"]):
        builder = BatchBuilder()
        async for message in js.messages(stream, int(state["first_seq"]), int(state["last_seq"]), info["config"]):
            builder.append(message)
            if builder.full:
                await _hand_over(builder, rows, assembler)
        await _hand_over(builder, rows, assembler)
    present = SequenceSet.from_ranges(rows)
    consumers = [derive_consumer(one, info["config"], present) for one in infos]
    notes = []
    if any(one["num_ack_pending"] for one in infos):
        notes.append(_how_pending_was_derived(info["config"]))
    return Reading(info["config"], state, consumers, notes=notes)


async def _hand_over(builder: BatchBuilder, rows: list[tuple[int, int]], assembler: Assembler) -> None:
    if not builder.count:
        return
    batch = builder.take()
    for first, last in batch.ranges():
        if rows and rows[-1][1] + 1 == first:
            rows[-1] = (rows[-1][0], last)
        else:
            rows.append((first, last))
    await assembler.add(batch)


def derive_consumer(info: JsonDict, stream_config: JsonDict, present: SequenceSet) -> ConsumerRecord:
    """A consumer's state from what CONSUMER.INFO tells: positions exactly, pending deliveries by inference.

    On a work queue whatever lies between the ack floor and the last delivery and is still stored was delivered and
    not acknowledged: acknowledged messages are gone. When their number is that of the pending deliveries, that is
    exact but for the delivery times. Elsewhere the API does not tell which are pending, so the consumer goes back to its
    ack floor and sees them all again: at least once, never lost.
    """
    config: JsonDict = info["config"]
    delivered = Position(int(info["delivered"]["consumer_seq"]), int(info["delivered"]["stream_seq"]))
    floor = Position(int(info["ack_floor"]["consumer_seq"]), int(info["ack_floor"]["stream_seq"]))
    state = ConsumerState(delivered, floor)
    if info.get("num_ack_pending") and config.get("ack_policy", "none") != "none":
        held = present & SequenceSet.from_ranges([(floor.stream_seq + 1, delivered.stream_seq)])
        if stream_config.get("retention") == "workqueue" and len(held) == info["num_ack_pending"]:
            first = delivered.consumer_seq - len(held) + 1
            sequences = [seq for low, high in held.ranges() for seq in range(low, high + 1)]
            pending = {seq: Pending(max(first + at, 1), 0) for at, seq in enumerate(sequences)}
            state = ConsumerState(delivered, floor, pending)
        else:
            state = ConsumerState(floor, floor)
    return ConsumerRecord(info["name"], config, state, info.get("created"))


def _how_pending_was_derived(config: JsonDict) -> str:
    if config.get("retention") == "workqueue":
        return "pending deliveries were inferred: what a work queue still holds below a consumer's last delivery"
    return "the server does not tell which deliveries are pending: consumers go back to their ack floor"
