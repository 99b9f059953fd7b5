"""Which subjects a user may publish to, tried without changing anything.

Every probe is an empty message without a reply: the API refuses an empty request of these kinds before it does anything,
nobody is there to hear the others, and a server says at once what it does not permit.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from jetkeep.jetstream import JetStream
from jetkeep.readiness.findings import Level, Readiness

#: Streams that are tried by name: a server keeps so many requests waiting, and drops all when they are far more.
BY_NAME = 200
STATUS = 20


@dataclass(frozen=True, slots=True)
class Needed:
    """A subject as an administrator would permit it; `api`: under the API's prefix.

    `only_if`: for what it is needed, when that is not always; `needed` says whether it is now.
    """

    subject: str
    api: bool = True
    by_name: bool = False
    only_if: str = ""
    needed: bool = True

    def pattern(self, prefix: str) -> str:
        """As it stands in a permission."""
        return f"{prefix}.{self.subject}" if self.api else self.subject

    def example(self, prefix: str, stream: str) -> str:
        """A subject under the pattern, for a stream of that name."""
        first, *rest = self.pattern(prefix).replace(">", "*.probe.1.1").split("*")
        return first + stream + "".join(rest[:1]) + "".join(f"probe{part}" for part in rest[1:])


def backup_needs(*, messages: bool, direct: bool) -> list[Needed]:
    """What a backup publishes; `messages`: a stream is read message by message, `direct`: by direct gets."""
    by_messages = "streams that are read message by message"
    return [
        Needed("STREAM.INFO.*", by_name=True),
        Needed("CONSUMER.LIST.*", by_name=True),
        Needed("STREAM.SNAPSHOT.*", by_name=True),
        Needed("$JS.SNAPSHOT.ACK.>", api=False),
        Needed("STREAM.MSG.GET.*", only_if=by_messages, needed=messages),
        Needed("DIRECT.GET.*", only_if=f"{by_messages} and allow direct gets", needed=direct),
    ]


def restore_needs() -> list[Needed]:
    """What a restore publishes beside that. Nothing of it is tried with the name of a stream that is there."""
    return [
        Needed("STREAM.RESTORE.*"),
        Needed("$JS.SNAPSHOT.RESTORE.>", api=False),
        Needed("STREAM.UPDATE.*"),
        Needed("STREAM.DELETE.*"),
        Needed(
            "CONSUMER.PAUSE.*.*",
            only_if="keeping clients from reading what is not compared yet (2.11 and newer)",
            needed=False,
        ),
    ]


async def probe(
    js: JetStream, readiness: Readiness, purpose: str, needs: Sequence[Needed], streams: Sequence[str]
) -> None:
    """Try each of these subjects, with a name that no stream has, and with some that are there.

    Raises:
        ServerError: the connection was lost.
    """
    absent = f"JETKEEP_PROBE_{secrets.token_hex(6)}"
    tried = {need: [absent, *(streams[:BY_NAME] if need.by_name else ())] for need in needs}
    for need, names in tried.items():
        for name in names:
            await js.publish(need.example(js.prefix, name))
    # A server refuses in order: what it says to the last one, it says after all others.
    await js.may_publish(needs[-1].example(js.prefix, absent))
    for need, names in tried.items():
        refused = [name for name in names if js.watch.denied(need.example(js.prefix, name))]
        _judge(readiness, f"{purpose}: {need.pattern(js.prefix)}", need, refused, names)


def _judge(readiness: Readiness, name: str, need: Needed, refused: list[str], names: list[str]) -> None:
    absent, pattern = names[0], name.partition(": ")[2]
    if not refused:
        readiness.add(name, Level.OK, "permitted")
    elif not need.needed:
        readiness.add(name, Level.OK, f"not permitted; needed only for {need.only_if}")
    elif refused == [absent] and 1 < len(names) <= BY_NAME:
        what = "permitted for each stream that is there, not for new ones"
        readiness.add(name, Level.WARNING, what, f"permit publishing to {pattern}, or give the streams by name")
    else:
        named = "" if absent in refused else f" for {', '.join(refused[:5])}" + (" …" if len(refused) > 5 else "")
        why = f", needed for {need.only_if}" if need.only_if else ""
        hint = f"permit publishing to {pattern}"
        readiness.block(name, f"not permitted{named}{why} [nats.permission]", hint, STATUS)
