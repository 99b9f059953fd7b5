"""Where a drill's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from jetkeep.restore.report import RestoreReport

#: Until the streams are back, proven and open. What a drill does beyond that is its own.
RECOVERY = ("start server", "plan", "fetch", "send", "settle", "compare messages", "open")


class Phases:
    """Seconds by phase, in the order in which they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    @property
    def rto_s(self) -> float:
        """Seconds of those phases that a real recovery has as well."""
        return sum(self.seconds.get(name, 0.0) for name in RECOVERY)

    @property
    def total_s(self) -> float:
        """Seconds since the drill began."""
        return time.monotonic() - self._began

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time; a phase may come several times."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def restored(self, report: RestoreReport) -> None:
        """Count a restore: its streams overlap, so its wall time is shared in the proportion of what they report."""
        self.seconds["plan"] = report.plan_seconds
        wall = report.seconds - report.plan_seconds
        spent = dict.fromkeys(("fetch", "send", "settle", "compare", "open"), 0.0)
        for one in report.streams:
            for phase, value in one.seconds.items():
                spent[phase] = spent.get(phase, 0.0) + value
        total = sum(spent.values())
        for phase, value in spent.items():
            name = "compare messages" if phase == "compare" else phase
            self.seconds[name] = value / total * wall if total else 0.0
