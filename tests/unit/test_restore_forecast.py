"""What a target will drop, counted."""

from __future__ import annotations

import pytest

from jetkeep.codecs.batch import MessageBatch
from jetkeep.model import Message
from jetkeep.restore.fields import Version
from jetkeep.restore.forecast import Forecast, Rules, Scan, header, message_ttl, origin_of, too_large

NOW = 1_800_000_000_000_000_000
SECOND = 1_000_000_000


def headers(**values: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in values.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def rows(*given: tuple[str, int, bytes]) -> list[Message]:
    """(subject, age in seconds, headers), oldest first."""
    return [
        Message(seq, NOW - age * SECOND, subject.encode(), head, b"x" * 10)
        for seq, (subject, age, head) in enumerate(given, 1)
    ]


def forecast(rules: Rules, messages: list[Message], batch: int = 3) -> Forecast:
    scan = Scan(rules, NOW)
    batches = [MessageBatch.of(messages[at : at + batch]) for at in range(0, len(messages), batch)]
    for one in batches:
        scan.first(one)
    if scan.again:
        scan.begin_second()
        for one in batches:
            scan.second(one)
    return scan.result()


PLAIN = rows(*((f"s.{at % 4}", 100 - at, b"") for at in range(10)))
#: 10 bytes of payload, 3 of subject, and what a server adds to each in a file.
ON_DISK = 43


@pytest.mark.parametrize(
    ("rules", "losses"),
    [
        (Rules(), {}),
        (Rules(max_msgs=3), {"max_msgs": 7}),
        (Rules(max_msgs=10), {}),
        (Rules(max_bytes=3 * ON_DISK), {"max_bytes": 7}),
        (Rules(max_bytes=3 * ON_DISK - 1), {"max_bytes": 8}),
        (Rules(max_bytes=10 * ON_DISK), {}),
        (Rules(max_bytes=3 * 29, memory=True), {"max_bytes": 7}),
        (Rules(max_per_subject=2), {"max_msgs_per_subject": 2}),
        (Rules(max_per_subject=1), {"max_msgs_per_subject": 6}),
        (Rules(max_age=95 * SECOND), {"max_age": 6}),
        (Rules(max_age=200 * SECOND), {}),
        (Rules(max_msgs=5, max_age=92 * SECOND), {"max_msgs": 5, "max_age": 4}),
        (Rules(max_msgs=6, max_bytes=5 * ON_DISK), {"max_msgs": 4, "max_bytes": 1}),
        (Rules(max_msgs=5, max_per_subject=1), {"max_msgs": 5, "max_msgs_per_subject": 1}),
        (Rules(max_per_subject=1, max_age=93 * SECOND), {"max_msgs_per_subject": 6, "max_age": 2}),
    ],
)
def test_limits_are_applied_in_the_servers_order_and_each_message_counts_once(
    rules: Rules, losses: dict[str, int]
) -> None:
    told = forecast(rules, PLAIN)
    assert told.losses == losses
    assert told.lost == sum(losses.values())
    assert told.messages == 10


def test_bytes_are_counted_as_the_server_counts_them() -> None:
    with_headers = rows(("s.1", 1, headers(A="b")), ("s.1", 1, b""))
    block = len(headers(A="b"))
    assert forecast(Rules(), with_headers).bytes == (43 + 4 + block) + 43
    assert forecast(Rules(memory=True), with_headers).bytes == (29 + block) + 29


TIMED = rows(
    ("s.1", 50, headers(Nats_TTL="10s")),
    ("s.1", 50, headers(Nats_TTL="1h")),
    ("s.2", 50, headers(Nats_TTL="never")),
    ("s.3", 50, headers(Nats_TTL="49")),
    ("s.4", 50, b""),
)


@pytest.mark.parametrize(
    ("rules", "losses", "markers"),
    [
        (Rules(message_ttl=True), {"ttl": 2}, 0),
        (Rules(), {}, 0),
        (Rules(skips_expired=True, memory=True), {"ttl": 2}, 0),
        (Rules(message_ttl=True, max_age=20 * SECOND), {"ttl": 2, "max_age": 2}, 0),
        (Rules(message_ttl=True, markers=True), {"ttl": 2}, 1),
        (Rules(message_ttl=True, markers=True, max_age=20 * SECOND), {"ttl": 2, "max_age": 2}, 3),
    ],
)
def test_messages_with_their_own_ttl(rules: Rules, losses: dict[str, int], markers: int) -> None:
    told = forecast(rules, TIMED)
    assert (told.losses, told.markers) == (losses, markers)


def test_a_marker_that_expires_leaves_no_marker() -> None:
    marker = rows(("s.1", 50, headers(Nats_Marker_Reason="MaxAge", Nats_TTL="10s")))
    assert forecast(Rules(message_ttl=True, markers=True), marker).markers == 0


def test_older_servers_wait_with_the_limit_per_subject_until_a_restart() -> None:
    rules = Rules(max_per_subject=1, late_per_subject=True, max_age=98 * SECOND)
    told = forecast(rules, PLAIN)
    assert told.losses == {"max_age": 3}
    assert told.late == {"max_msgs_per_subject": 3}


def test_schedules_that_are_due_are_counted() -> None:
    due = rows(
        ("s.1", 9, headers(Nats_Schedule="@at 2020-01-01T00:00:00Z")),
        ("s.2", 9, headers(Nats_Schedule="@at 2999-01-01T00:00:00Z")),
        ("s.3", 9, headers(Nats_Schedule="@every 5s")),
        ("s.4", 9, headers(Nats_Schedule="@at soon")),
    )
    assert forecast(Rules(schedules=True), due).due == 1


def test_origins_are_found_in_the_messages() -> None:
    told = rows(
        ("s.1", 9, headers(Nats_Stream_Source="O 7 > > s.1")),
        ("s.1", 9, headers(Nats_Stream_Source="O 9 > > s.1")),
        ("s.1", 9, headers(Nats_Stream_Source="P:hash 3 a.> > s.1")),
    )
    assert forecast(Rules(sources=True), told).origins == {("O", ">"): 9, ("P", "a.>"): 3}
    assert origin_of("X") == (("X", ">"), 0)


def test_messages_that_storage_cannot_take_are_found() -> None:
    small, large = Message(1, NOW, b"s", b"", b"x" * 90), Message(2, NOW, b"s", headers(A="b"), b"x" * 90)
    batch = MessageBatch.of([small, large])
    assert too_large(Rules(memory=True, max_payload=100), batch) == {1}
    assert too_large(Rules(memory=True, max_payload=1000), batch) == set()
    told = forecast(Rules(memory=True, max_payload=100), [small, large])
    assert (told.losses, told.oversize) == ({"max_payload": 1}, 1)
    huge = MessageBatch.of([Message(1, NOW, b"s", b"", bytes(32 * 1024 * 1024))])
    assert too_large(Rules(), huge) == {0}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("10s", 10),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1.5s", 1),
        ("never", -1),
        ("NEVER", -1),
        ("soon", 0),
        ("10x", 0),
    ],
)
def test_ttls_are_read_as_servers_read_them(text: str, seconds: int) -> None:
    assert message_ttl(headers(Nats_TTL=text)) == seconds


def test_a_header_is_found_by_its_exact_name() -> None:
    block = headers(Nats_TTL_Not="1", nats_ttl="2", Nats_TTL="3")
    assert header(block, b"Nats-TTL") == "3"
    assert header(block, b"Nats") == ""


def test_rules_follow_the_configuration() -> None:
    config = {
        "max_age": 5,
        "max_msgs": -1,
        "max_bytes": 7,
        "max_msgs_per_subject": 2,
        "discard": "old",
        "storage": "file",
    }
    rules = Rules.of(config, Version(2, 12), archive=False, max_payload=9)
    assert (rules.max_age, rules.max_msgs, rules.max_bytes, rules.max_per_subject) == (5, 0, 7, 2)
    assert rules.late_per_subject
    assert not rules.max_payload
    assert Rules.of(config | {"discard": "new"}, Version(2, 15), archive=False, max_payload=9).max_bytes == 0
