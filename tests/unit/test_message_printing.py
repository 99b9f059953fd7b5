from __future__ import annotations

import io
import json

import click
import pytest

from jetkeep.cli.messages import JsonPrinter, RawPrinter, TextPrinter, message_dict, time_text
from jetkeep.cli.ranges import MAX_SEQUENCE, moment, sequence_range
from jetkeep.errors import BadDataError
from jetkeep.model import Message

HEADERS = b"NATS/1.0\r\nNats-Msg-Id: 7\r\na: 1\r\na:2\r\n\r\n"
TS = 1_795_439_700_123_456_789


def text_of(message: Message, *, headers: bool = False) -> str:
    out = io.StringIO()
    TextPrinter(headers, out).message(message)
    return out.getvalue()


def test_a_message_is_a_line_and_its_payload() -> None:
    printed = text_of(Message(17, TS, b"orders.new", HEADERS, b"hello"))
    assert printed == "#17  2026-11-23T13:15:00.123456789Z  orders.new  5 B\nhello\n\n"


def test_headers_are_printed_in_order_with_repeats() -> None:
    assert text_of(Message(1, TS, b"s", HEADERS, b""), headers=True).splitlines()[1:4] == [
        "  Nats-Msg-Id: 7",
        "  a: 1",
        "  a:2",
    ]


def test_terminal_escapes_in_stored_data_are_not_sent_to_the_terminal() -> None:
    printed = text_of(
        Message(1, TS, b"s\x1b[2J", b"NATS/1.0\r\nx: \x1b]0;t\x07\r\n\r\n", b"a\x1b[31mb\r\nc"), headers=True
    )
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "\r" not in printed
    assert "a\\x1b[31mb" in printed


def test_a_payload_that_is_no_text_is_shown_as_base64() -> None:
    assert "base64: /wA=\n" in text_of(Message(1, TS, b"s", b"", b"\xff\x00"))
    assert "1,000 bytes; --raw gives them" in text_of(Message(1, TS, b"s", b"", b"\xff" * 1000))


def test_a_subject_that_is_not_utf8_is_shown_escaped() -> None:
    assert "a.\\xff" in text_of(Message(1, TS, b"a.\xff", b"", b""))


def test_json_says_by_the_name_what_is_base64() -> None:
    told = message_dict(Message(1, -1, b"a.\xff", b"\xff", b"\xfe"))
    assert told == {
        "seq": 1,
        "time": "1969-12-31T23:59:59.999999999Z",
        "ts_ns": -1,
        "subject_base64": "YS7/",
        "headers_base64": "/w==",
        "payload_base64": "/g==",
    }


def test_json_keeps_repeated_headers_in_order() -> None:
    told = message_dict(Message(1, TS, b"s", HEADERS, b""))
    assert told["headers"] == [["Nats-Msg-Id", "7"], ["a", "1"], ["a", "2"]]
    assert "headers" not in message_dict(Message(1, TS, b"s", b"", b""))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_one_document_however_many_messages_there_are(count: int) -> None:
    out = io.StringIO()
    printer = JsonPrinter({"label": "l"}, out)
    for seq in range(count):
        printer.message(Message(seq, TS, b"s", b"", b"p"))
    printer.end()
    document = json.loads(out.getvalue())
    assert document["schema"] == "jetkeep.cat/1"
    assert document["count"] == len(document["messages"]) == count
    assert "error" not in document


def test_json_that_was_cut_by_an_error_says_so_and_is_still_json() -> None:
    out = io.StringIO()
    printer = JsonPrinter({}, out)
    printer.message(Message(1, TS, b"s", b"", b"p"))
    printer.end(BadDataError("broken", code="data.damaged"))
    document = json.loads(out.getvalue())
    assert document["count"] == 1
    assert document["error"]["code"] == "data.damaged"


def test_raw_is_the_payloads_and_nothing_else() -> None:
    out = io.BytesIO()
    printer = RawPrinter(out)
    for payload in (b"a\n", b"\xff", b""):
        printer.message(Message(1, TS, b"s", HEADERS, payload))
    printer.end()
    assert out.getvalue() == b"a\n\xff"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, (0, MAX_SEQUENCE)), ("7", (7, 7)), ("7-9", (7, 9)), ("7-", (7, MAX_SEQUENCE)), ("0-0", (0, 0))],
)
def test_sequence_ranges(text: str | None, expected: tuple[int, int]) -> None:
    assert sequence_range(text) == expected


@pytest.mark.parametrize("text", ["", "-", "-7", "9-7", "a", "1-2-3", "1,2", str(2**64)])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        sequence_range(text)


def test_moments() -> None:
    assert moment(None, TS) is None
    assert moment("2h30m", TS) == TS - 9000 * 10**9
    assert moment("3d", TS) == TS - 3 * 86400 * 10**9
    assert moment("2026-11-23T13:15:00.123456789Z", 0) == TS
    assert moment("2026-11-23T14:15:00+01:00", 0) == TS - 123_456_789
    assert moment(time_text(TS), 0) == TS


@pytest.mark.parametrize("text", ["", "yesterday", "2h 3m", "2026-13-01T00:00:00Z", "2026-11-23", "h"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        moment(text, TS)
