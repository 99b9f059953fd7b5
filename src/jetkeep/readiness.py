"""Can every part reach every other, with the permissions that it needs? Probes that change nothing."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from jetkeep.errors import ApiError, JetkeepError, ServerError
from jetkeep.jetstream import JetStream, StreamListing
from jetkeep.repository.documents import StreamEntry
from jetkeep.repository.repository import Repository

#: The next backup may need as much again as the newest one stored; below twice that is a warning.
ROOM_FACTOR = 2.0


class Level(IntEnum):
    """How bad it is; the numbers are those of Nagios plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that was looked at."""

    name: str
    level: Level
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which age of the newest complete backup on to warn, in seconds."""

    warn_age_s: float = 25 * 3600.0
    critical_age_s: float = 48 * 3600.0


@dataclass(slots=True)
class Readiness:
    """All probes, and figures for monitoring; `status` is the exit status of the first failure."""

    probes: list[Probe] = field(default_factory=list)
    status: int = 0
    streams: int | None = None
    newest_age_s: float | None = None
    free_bytes: int | None = None
    backups: int | None = None

    @property
    def level(self) -> Level:
        """The worst of all."""
        return max((one.level for one in self.probes), default=Level.OK)

    def add(self, name: str, level: Level, what: str, hint: str = "") -> None:
        """Note one probe."""
        self.probes.append(Probe(name, level, what, hint))

    def fail(self, name: str, error: JetkeepError) -> None:
        """Note a probe that failed with an error."""
        self.add(name, Level.CRITICAL, f"{error.what} [{error.code}]", error.hint)
        self.status = self.status or error.exit_status


#: API suffix (with `{stream}` for a name that does not exist) → what needs it. A request for an absent stream is answered
#: with an error where it is permitted, and by nobody where it is not; it changes nothing either way.
_BACKUP_REQUESTS = (
    "STREAM.INFO.{stream}",
    "CONSUMER.LIST.{stream}",
    "STREAM.MSG.GET.{stream}",
    "STREAM.SNAPSHOT.{stream}",
)
_RESTORE_REQUESTS = ("STREAM.UPDATE.{stream}", "STREAM.DELETE.{stream}")


async def probe_server(js: JetStream, readiness: Readiness, *, restoring: bool) -> None:
    """Probe permissions and streams; `restoring` probes what only a restore needs as well.

    Nothing is created or changed: requests name a stream that does not exist, publishes go where nobody listens.
    """
    facts = js.server_facts()
    readiness.add("connect", Level.OK, f"{js.settings.where} ({facts['name']}, {facts['version']})")
    try:
        listing = await js.stream_list()
    except JetkeepError as error:
        readiness.fail("list streams", error)
        return
    readiness.streams = len(listing.infos)
    readiness.add("list streams", Level.OK, f"{len(listing.infos)} of {listing.total} streams listed")
    absent = f"JETKEEP_PROBE_{secrets.token_hex(6)}"
    await _probe(readiness, "account information", js.account_info)
    requests = _BACKUP_REQUESTS + (_RESTORE_REQUESTS if restoring else ())
    for suffix in requests:
        subject = suffix.format(stream=absent)
        body = (
            {"name": absent} if "UPDATE" in suffix else {"deliver_subject": "_"} if "SNAPSHOT" in suffix else {"seq": 1}
        )
        await _request(js, readiness, subject, body)
    publishes = [f"$JS.SNAPSHOT.ACK.{absent}.probe.1.1"]
    if restoring:
        # A restore's request with an empty body is refused before anything is made.
        await _request(js, readiness, f"STREAM.RESTORE.{absent}", {})
        publishes.append(f"$JS.SNAPSHOT.RESTORE.{absent}.probe")
    for subject in publishes:
        await _publish(js, readiness, subject)
    await _streams(js, listing, readiness)


async def _probe(readiness: Readiness, name: str, ask: Callable[[], Awaitable[object]]) -> None:
    try:
        await ask()
    except JetkeepError as error:
        readiness.fail(name, error)
    else:
        readiness.add(name, Level.OK, "answers")


async def _request(js: JetStream, readiness: Readiness, suffix: str, body: object) -> None:
    name = f"may ask {suffix.rpartition('.')[0]}"
    try:
        await js.request(suffix, body)
    except ApiError:
        readiness.add(name, Level.OK, "permitted")
    except JetkeepError as error:
        readiness.fail(name, error)
    else:
        readiness.add(name, Level.OK, "permitted")


async def _publish(js: JetStream, readiness: Readiness, subject: str) -> None:
    name = f"may publish to {subject.split('.JETKEEP_PROBE', maxsplit=1)[0]}.>"
    if denied := await js.may_publish(subject):
        readiness.fail(name, denied)
    else:
        readiness.add(name, Level.OK, "permitted")


async def _streams(js: JetStream, listing: StreamListing, readiness: Readiness) -> None:
    silent = [f"{name} ({why})" for name, why in sorted(listing.offline.items())]
    for info in listing.infos:
        name = str(info["config"]["name"])
        try:
            await js.stream_info(name)
        except ServerError as error:
            silent.append(f"{name} ({error.what})")
    if silent:
        readiness.add(
            "streams answer",
            Level.CRITICAL,
            f"{len(silent)} of {listing.total} do not: {', '.join(silent[:5])}",
            "bring their servers back; until then a backup is partial (exit status 3)",
        )
        readiness.status = readiness.status or 20
    else:
        readiness.add("streams answer", Level.OK, f"all {len(listing.infos)}")


async def probe_repository(
    repository: Repository, readiness: Readiness, thresholds: Thresholds, *, now_ns: Callable[[], int]
) -> None:
    """Probe that backups can be read, that there is room, and how old the newest complete one is."""
    backups, damage = await repository.backups()
    readiness.backups = len(backups)
    readiness.add("repository", Level.OK, f"{repository.url}: {len(backups)} backups")
    for one in damage:
        readiness.fail("backups are readable", one.error)
    whole = [one for one in backups if one.status == "complete"]
    if not whole:
        readiness.add("newest backup", Level.WARNING, "there is no complete backup", "run `jetkeep backup`")
    else:
        newest = whole[-1]
        began = datetime.fromisoformat(newest.started_at.replace("Z", "+00:00")).timestamp()
        readiness.newest_age_s = now_ns() / 1e9 - began
        level = _age_level(readiness.newest_age_s, thresholds)
        words = f"{newest.label}, {readiness.newest_age_s / 3600:.1f} h old"
        readiness.add(
            "newest backup", level, words, "" if level is Level.OK else "find out why no backup was made since"
        )
    await _room(repository, readiness, whole[-1].streams if whole else [])


def _age_level(age_s: float, thresholds: Thresholds) -> Level:
    if age_s < -300:
        return Level.WARNING  # from the future: one of the clocks is wrong
    if age_s >= thresholds.critical_age_s:
        return Level.CRITICAL
    return Level.WARNING if age_s >= thresholds.warn_age_s else Level.OK


async def _room(repository: Repository, readiness: Readiness, entries: Sequence[StreamEntry]) -> None:
    readiness.free_bytes = await repository.store.free_bytes()
    if readiness.free_bytes is None:
        return
    needed = sum(one.stored_bytes for one in entries)
    free = readiness.free_bytes
    words = f"{free / 1e9:.1f} GB free, the newest backup took {needed / 1e9:.3f} GB"
    if free < needed:
        readiness.add("room", Level.CRITICAL, words, "make room: `jetkeep expire`, or a larger volume")
        readiness.status = readiness.status or 13
    elif free < needed * ROOM_FACTOR:
        readiness.add("room", Level.WARNING, words, "make room soon: `jetkeep expire`, or a larger volume")
    else:
        readiness.add("room", Level.OK, words)
