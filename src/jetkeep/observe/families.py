"""An observation as Prometheus metrics: the names of docs/reference/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jetkeep import __version__
from jetkeep.observe.observation import Observation, RepositoryFacts

Row = tuple[Sequence[str], float | int | bool | None]


def registry_of(found: Observation) -> CollectorRegistry:
    """A registry that holds the observation, for whatever prometheus_client can do with one."""
    registry = CollectorRegistry()
    registry.register(_Collector(found))
    return registry


def exposition(found: Observation) -> bytes:
    """The text format of Prometheus."""
    return generate_latest(registry_of(found))


class _Collector(Collector):
    def __init__(self, found: Observation) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        found = self._found
        yield _family("jetkeep_build_info", "The version of jetkeep.", ("version",), [((__version__,), 1)])
        yield _family("jetkeep_collect_seconds", "How long it took to find out.", (), [((), found.seconds)])
        yield from _repositories(found.repositories)
        yield from _backups([one for one in found.repositories if one.up])
        yield from _streams(found)
        yield from _runs([one for one in found.repositories if one.up])
        yield from _drills([one for one in found.repositories if one.up])


def _family(name: str, words: str, labels: Sequence[str], rows: Iterable[Row]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=labels)
    for values, figure in rows:
        if figure is not None:
            family.add_metric(values, float(figure))
    return family


def _repositories(every: Sequence[RepositoryFacts]) -> Iterator[Metric]:
    up = [one for one in every if one.up]
    volumes = [(one, one.volume) for one in up if one.volume]

    def of(name: str, words: str, rows: Iterable[tuple[RepositoryFacts, float | int | bool | None]]) -> Metric:
        return _family(f"jetkeep_repository_{name}", words, ("repository",), [((one.name,), it) for one, it in rows])

    yield of("up", "Whether the repository could be listed.", [(one, one.up) for one in every])
    yield of("required", "Whether a backup must reach it.", [(one, one.required) for one in every])
    yield of("encrypted", "Whether only who has an identity reads it.", [(one, one.encrypted) for one in up])
    yield of("bytes", "Bytes of all its objects.", [(one, one.size) for one in up])
    yield of("objects", "Its objects.", [(one, one.objects) for one in up])
    yield of("volume_size_bytes", "Size of the volume that it lies on.", [(one, it[0]) for one, it in volumes])
    yield of("volume_free_bytes", "What is free on that volume.", [(one, it[1]) for one, it in volumes])
    yield of("behind_backups", "Backups of the first repository that it lacks.", [(one, one.behind) for one in up])
    yield of("lag_seconds", "Age of the oldest backup that it lacks.", [(one, one.lag_seconds) for one in up])


def _backups(up: Sequence[RepositoryFacts]) -> Iterator[Metric]:
    labels = ("repository", "source")
    each = [((one.name, it.source), it) for one in up for it in one.sources.values()]
    whole = [(values, it) for values, it in each if it.last_success is not None]
    yield _family(
        "jetkeep_backups",
        "Backups that are kept.",
        (*labels, "status"),
        [((*values, status), count) for values, it in each for status, count in sorted(it.backups.items())],
    )
    for name, words, rows in (
        (
            "success_timestamp_seconds",
            "When the newest complete backup ended.",
            [(values, it.last_success) for values, it in whole],
        ),
        ("duration_seconds", "How long it took.", [(values, it.duration) for values, it in whole]),
        ("bytes", "Bytes of its messages.", [(values, it.raw_bytes) for values, it in whole]),
        (
            "stored_bytes",
            "Bytes that they take in the repository.",
            [(values, it.stored_bytes) for values, it in whole],
        ),
        ("messages", "Its messages.", [(values, it.messages) for values, it in whole]),
    ):
        yield _family(f"jetkeep_backup_last_{name}", words, labels, rows)
    yield _family(
        "jetkeep_backup_last_streams",
        "Streams of the newest backup, complete or not.",
        (*labels, "status"),
        [((*values, status), count) for values, it in each for status, count in sorted(it.streams.items())],
    )


def _streams(found: Observation) -> Iterator[Metric]:
    labels = ("source", "account", "stream_name")
    each = [((one.source, one.account, one.name), one) for one in found.streams]
    rows: dict[str, tuple[str, list[Row]]] = {
        "last_sequence": ("Last sequence in the newest backup.", [(at, it.last_sequence) for at, it in each]),
        "messages": ("Messages in the newest backup.", [(at, it.messages) for at, it in each]),
        "backup_timestamp_seconds": ("When that backup began.", [(at, it.captured) for at, it in each]),
        "gap_messages": ("Sequences that no object covers.", [(at, it.gap_messages) for at, it in each]),
        "lag_messages": ("Messages that the source has and no backup.", [(at, it.lag_messages) for at, it in each]),
        "lag_seconds": ("For how long at most a message is not safe.", [(at, it.lag_seconds) for at, it in each]),
    }
    for name, (words, figures) in rows.items():
        yield _family(f"jetkeep_stream_{name}", words, labels, figures)
    yield _family(
        "jetkeep_streams_uncovered",
        "Streams of the source that no backup has.",
        ("source",),
        [((source,), len(names)) for source, names in sorted(found.uncovered.items())],
    )
    reached = {**dict.fromkeys(found.uncovered, 1), **dict.fromkeys(found.unreachable, 0)}
    yield _family(
        "jetkeep_source_up",
        "Whether the source answered.",
        ("source",),
        [((source,), one) for source, one in sorted(reached.items())],
    )
    yield _family("jetkeep_streams_left_out", "Streams without figures of their own.", (), [((), found.left_out)])


def _runs(up: Sequence[RepositoryFacts]) -> Iterator[Metric]:
    labels = ("repository", "kind")
    newest = [((one.name, kind), ran, told) for one in up for kind, (ran, told) in sorted(one.newest.items())]
    yield _family(
        "jetkeep_runs_last_7d",
        "Runs that ended within the last seven days.",
        (*labels, "outcome"),
        [
            ((one.name, kind, outcome), one.counted[kind, outcome])
            for one in up
            for kind in sorted(one.newest)
            for outcome in ("success", "partial", "failure")
        ],
    )
    yield _family(
        "jetkeep_run_last_timestamp_seconds",
        "When the newest run ended.",
        labels,
        [(values, ran.finished.timestamp()) for values, ran, _ in newest],
    )
    yield _family(
        "jetkeep_run_last_success_timestamp_seconds",
        "When the newest successful run ended.",
        labels,
        [((one.name, kind), at.timestamp()) for one in up for kind, at in sorted(one.last_success.items())],
    )
    known = [(values, told) for values, _, told in newest if told]
    yield _family(
        "jetkeep_run_last_exit_status", "Its exit status.", labels, [(values, it.exit_status) for values, it in known]
    )
    yield _family(
        "jetkeep_run_last_duration_seconds", "How long it took.", labels, [(values, it.seconds) for values, it in known]
    )
    for name, words, kind in (
        ("jetkeep_verify_last_damage", "Damaged objects that the newest verify found.", "verify"),
        ("jetkeep_expire_last_backups", "Backups that the newest expire let go.", "expire"),
    ):
        yield _family(
            name,
            words,
            ("repository",),
            [
                ((at,), told.damage if kind == "verify" else told.backups)
                for (at, found), told in known
                if (found == kind and told.outcome != "failure") or (found == kind == "verify" and told.damage)
            ],
        )
    for kind in ("verify", "expire"):
        yield _family(
            f"jetkeep_{kind}_last_timestamp_seconds",
            f"When the newest {kind} ended.",
            ("repository",),
            [((at,), ran.finished.timestamp()) for (at, found), ran, _ in newest if found == kind],
        )


def _drills(up: Sequence[RepositoryFacts]) -> Iterator[Metric]:
    each = [(one.name, one.drill) for one in up if one.drill]
    for name, words, rows in (
        ("last_timestamp_seconds", "When the newest drill ended.", [(at, it.finished) for at, it in each]),
        ("last_success", "Whether it gave everything back.", [(at, float(it.successful)) for at, it in each]),
        ("rto_seconds", "How long the restore took in it.", [(at, it.rto_seconds) for at, it in each]),
        ("rpo_seconds", "How old its backup was.", [(at, it.rpo_seconds) for at, it in each]),
        ("next_due_timestamp_seconds", "When the next one is due.", [(at, it.next_due) for at, it in each]),
    ):
        yield _family(f"jetkeep_drill_{name}", words, ("repository",), [((at,), figure) for at, figure in rows])
