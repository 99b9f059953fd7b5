"""The printable twin of a document of evidence: one HTML page that needs nothing else, and runs nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jetkeep.evidence.markup import Markup, listed, row, table, tag, together
from jetkeep.model import JsonDict

#: Consumers of one stream that the page lists when they are as they were; those that are not are all listed.
LISTED = 20
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_WHAT = (
    "The backup was restored into an isolated, throw-away server, read back, and every message and consumer compared "
    "with what was captured"
)
_GOOD = "SUCCESSFUL"


def render(one: JsonDict) -> bytes:
    """The page; the same document gives the same bytes. Whatever a document says is text there, never markup."""
    title = f"Restore test {one['number']} · {one['backup']['label']} · {one['verdict']}"
    head = tag(
        "head",
        Markup('\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="' + _POLICY + '">\n'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
        tag("title", title),
        tag("style", Markup("\n" + _style())),
    )
    body = tag("body", "\n", *_sections(one))
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n{body}\n</html>\n'.encode()


@cache
def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def _sections(one: JsonDict) -> Iterator[Markup]:
    yield _head(one)
    if one["failures"] or one["required_action"]:
        inside = (_h2("Failures and required action"), listed(one["failures"]))
        yield tag("section", *inside, tag("p", tag("b", "To do: "), one["required_action"]), of="act")
    yield _test(one)
    yield _objectives(one)
    yield _streams(one)
    for stream in one["streams"]:
        yield _stream(stream)
    yield _phases(one["rto"])
    if one["user_check"] is not None:
        yield _user_check(one["user_check"])
    yield together((_h2("Segregation"), tag("p", one["server"]["segregation"])))
    yield _restored(one["backup"])
    roles = [row(tag("td", role), *[tag("td")] * 3) for role in ("Performed by", "Reviewed by", "Approved by")]
    approval = table(_heads("role", "name", "date", "signature"), roles)
    yield tag("section", _h2("Approval"), approval, of="approval")
    yield _authenticity(one)
    yield tag("footer", f"jetkeep {one['tool']['version']} · test {one['drill_id']} · {one['schema']}")


def _head(one: JsonDict) -> Markup:
    below = (f"No. {one['number']} · test ", tag("span", one["drill_id"], of="mono"), f" · {_time(one['finished_at'])}")
    left = tag("div", tag("h1", "Restore test of a NATS JetStream backup"), tag("div", *below, of="soft"))
    return tag("header", left, tag("div", one["verdict"], of=f"verdict {_colour(one['verdict'])}"))


def _test(one: JsonDict) -> Markup:
    backup = one["backup"]
    account = f", account {backup['account']}" if backup["account"] else ""
    taken = (
        f" of source {backup['source']}{account}, taken {_time(backup['started_at'])} from server "
        f"{backup['server_version'] or 'of unknown version'}, {backup['status']}; chosen as: {backup['chosen']}"
    )
    when = f"{_time(one['started_at'])}, {_time(one['finished_at'])}, {_seconds(one['seconds'])}"
    facts = [
        ("What was done", _WHAT),
        ("Backup", together((tag("b", backup["label"]), taken))),
        ("Restored into", together(("nats-server ", tag("b", one["server"]["version"])))),
        ("Began, ended, took", when),
        ("Triggered by", one["triggered_by"]),
        ("Operator, machine", f"{one['operator']}, {one['host']}"),
        ("Repository", together((one["repository_url"], " ", tag("span", one["repository"], of="soft mono")))),
        ("Tool", f"{one['tool']['name']} {one['tool']['version']}"),
        ("Next test due", tag("b", one["next_due"][:10])),
    ]
    return together((_h2("The test"), _facts(facts)))


def _objectives(one: JsonDict) -> Markup:
    rto, rpo = one["rto"], one["rpo"]
    newest = f", newest message {_time(rpo['newest_message_at'])}" if rpo["newest_message_at"] else ""
    captured = f"Age of what was restored when the test began; captured {_time(rpo['captured_at'])}{newest}"
    rows = [
        row(
            tag("th", name),
            _n(_seconds(measured["seconds"])),
            _n(_seconds(measured["target_seconds"])),
            tag("td", _met(measured["met"])),
            tag("td", meaning),
        )
        for name, measured, meaning in (
            ("RTO", rto, "From nothing to streams that are back, compared and open"),
            ("RPO", rpo, captured),
        )
    ]
    messages = "—" if rpo["messages"] is None else _number(rpo["messages"])
    cells = (_n(messages), _n("—"), tag("td"), tag("td", rpo["messages_basis"]))
    rows.append(row(tag("th", "RPO in messages"), *cells))
    heads = (tag("th"), _nth("measured"), _nth("target"), *_heads("result", "what it means"))
    return together((_h2("Objectives"), table(heads, rows)))


def _streams(one: JsonDict) -> Markup:
    heads = (
        *_heads("stream", ""),
        *map(_nth, ("messages", "bytes", "first", "last", "consumers")),
        *_heads("content fingerprint", "verdict"),
    )
    rows = []
    for stream in one["streams"]:
        name, verdict = tag("td", tag("b", stream["stream"]), of="name", rows=2), _verdict(stream["verdict"])
        rows.append(row(name, *_side("expected", stream["expected"]), tag("td", verdict, of="side", rows=2)))
        rows.append(row(*_side("found", stream["found"])))
    parts = [_h2("Streams: expected and found")]
    parts.append(table(heads, rows) if rows else tag("p", "No stream was restored."))
    if left := one["backup"]["not_drilled"]:
        parts.append(tag("p", tag("b", "Streams of this backup that were not tested:")))
        parts.append(listed(f"{each['stream']}: {each['reason']}" for each in left))
    return together(parts)


def _side(name: str, facts: JsonDict | None) -> list[Markup]:
    cells = [tag("td", name, of="side")]
    if facts is None:
        return [*cells, tag("td", "nothing could be read back", of="bad", columns=6)]
    cells += [_n(_number(facts[key])) for key in ("messages", "bytes")]
    cells += [_n(facts[key]) for key in ("first_seq", "last_seq", "consumers")]
    halves = together((facts["fingerprint"][:16], Markup("<br>"), facts["fingerprint"][16:]))
    return [*cells, tag("td", halves, of="side mono")]


def _stream(stream: JsonDict) -> Markup:
    parts = [tag("h3", stream["stream"])]
    if stream["failures"]:
        parts += [tag("p", tag("b", "Failed:"), of="bad"), listed(stream["failures"])]
    sample, said = stream["sample"], []
    left = f", {sample['left_out']} chosen ones that clients cannot show" if sample.get("left_out") else ""
    said.append(f"Byte by byte, through an ordinary consumer: {sample.get('compared', 0)} messages{left}.")
    if not stream["gaps"]:
        said.append("The backup has no gap in this stream.")
    if stream["changed_for_the_drill"]:
        said.append(f"Taken off for the test: {', '.join(stream['changed_for_the_drill'])}.")
    parts.append(tag("p", " ".join(said), of="soft"))
    if stream["gaps"]:
        rows = [
            row(_n(_number(gap["count"])), tag("td", f"{gap['first']} to {gap['last']}"), tag("td", gap["reason"]))
            for gap in stream["gaps"]
        ]
        parts.append(table((_nth("missing in the backup"), *_heads("sequences", "reason")), rows))
    if stream["deviations"]:
        parts += [tag("p", "Different, and no loss:"), listed(stream["deviations"])]
    return together((*parts, *_consumers(stream["consumers"])))


def _consumers(consumers: list[JsonDict]) -> Iterator[Markup]:
    bad = [one for one in consumers if one["verdict"] != _GOOD]
    good = [one for one in consumers if one["verdict"] == _GOOD]
    heads = (
        *_heads("consumer", ""),
        *map(_nth, ("delivered", "acknowledged to", "pending", "redelivered")),
        *_heads("verdict"),
    )
    rows = []
    for one in bad + good[:LISTED]:
        verdict = tag("td", _verdict(one["verdict"]), of="side", rows=2)
        expected = _positions("expected", one["expected"])
        rows.append(row(tag("td", one["name"], of="name", rows=2), *expected, verdict))
        rows.append(row(*_positions("found", one["found"])))
    if rows:
        yield table(heads, rows)
    if (more := len(good) - LISTED) > 0:
        yield tag("p", f"{more} more consumers are as they were; the document lists them.", of="soft")


def _positions(name: str, facts: JsonDict | None) -> list[Markup]:
    head = tag("td", name, of="side")
    if facts is None:
        return [head, tag("td", "not there", columns=4)]
    positions = [_n(facts[key]["stream_seq"]) for key in ("delivered", "ack_floor")]
    return [head, *positions, *(_n(facts[key]) for key in ("pending", "redelivered"))]


def _phases(rto: JsonDict) -> Markup:
    counted, phases = rto["counted"], rto["phases"]
    heads = (tag("th", "recovery"), *map(_nth, counted), _nth("RTO"))
    cells = [_n(_seconds(phases[name])) for name in counted]
    own = ", ".join(f"{name} {_seconds(value)}" for name, value in phases.items() if name not in counted)
    times = table(heads, [row(tag("td"), *cells, _n(tag("b", _seconds(rto["seconds"]))))])
    return together((_h2("Time by phase"), times, tag("p", f"The test's own: {own or 'nothing'}.", of="soft")))


def _user_check(check: JsonDict) -> Markup:
    if check["status"] is None:
        ended = tag("span", "did not end in time", of="bad")
    else:
        ended = tag("span", check["status"], of="bad" if check["status"] else "good")
    facts = [
        ("Command", tag("span", check["command"], of="mono")),
        ("Exit status", together((ended, f" after {_seconds(check['seconds'])}"))),
    ]
    output = tag("pre", check["output"]) if check["output"] else ""
    return together((_h2("The user's own check"), _facts(facts), output))


def _restored(backup: JsonDict) -> Markup:
    digests = [(f"backup {backup['label']}", backup["sha256"])]
    digests += [(f"manifest of {one['stream']}", one["sha256"]) for one in backup["manifests"]]
    rows = [row(tag("td", name), tag("td", digest, of="mono")) for name, digest in digests]
    return together((_h2("What exactly was restored"), table(_heads("object", "SHA-256"), rows)))


def _authenticity(one: JsonDict) -> Markup:
    previous, signer = one["previous"], one["signer"]
    before: Any = "none: this is the first"
    if previous is not None:
        before = together((_mono(previous["key"]), ", SHA-256 ", _mono(previous["sha256"])))
    if signer is None:
        signature, key = tag("b", "none: this evidence is not signed", of="bad"), ""
        holds = "The document holds the same facts for machines, and this page's digest."
    else:
        whose = (f"{signer['algorithm']}, key ", _mono(signer["key_id"]), " (SHA-256 of the public key in DER)")
        signature, key = together(whose), " --key FILE.pub"
        holds = "The document holds the same facts for machines, this page's digest, and the signature over both."
    facts = [
        ("Document", _mono(f"evidence/{one['number']:08d}.json")),
        ("The one before", before),
        ("Signature", signature),
    ]
    how = tag("p", f"{holds} To check document, page and the whole chain:")
    return together(
        (_h2("Authenticity"), _facts(facts), how, tag("pre", f"jetkeep evidence verify{key} --repo REPOSITORY"))
    )


def _facts(pairs: list[tuple[str, Any]]) -> Markup:
    return table((), (row(tag("th", name), tag("td", value)) for name, value in pairs), of="facts")


def _h2(title: str) -> Markup:
    return Markup("\n" + tag("h2", title) + "\n")


def _heads(*names: str) -> list[Markup]:
    return [tag("th", name) for name in names]


def _nth(name: str) -> Markup:
    return tag("th", name, of="n")


def _n(value: object) -> Markup:
    return tag("td", value, of="n")


def _mono(value: str) -> Markup:
    return tag("span", value, of="mono")


def _verdict(verdict: str) -> Markup:
    return tag("span", verdict, of=_colour(verdict))


def _colour(verdict: str) -> str:
    return "good" if verdict == _GOOD else "bad"


def _met(met: bool | None) -> Markup:
    if met is None:
        return tag("span", "no target", of="soft")
    return tag("span", "met" if met else "missed", of="good" if met else "bad")


def _number(value: object) -> str:
    """A count with thin spaces; large ones stand as text in the document."""
    return f"{int(str(value)):,}".replace(",", "\u202f")


def _seconds(value: float | None) -> str:
    if value is None:
        return "—"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{round(value, 1):g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _time(moment: str) -> str:
    """A time without its fraction."""
    return f"{moment[:10]} {moment[11:19]} UTC"
