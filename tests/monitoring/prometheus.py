"""A real Prometheus on loopback that scrapes a target and evaluates the rules thrice a second; never left behind."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml


class Prometheus:
    """`with Prometheus(target, rules) as prometheus:`; skips where there is none.

    Args:
        target: host and port of what is scraped.
        rules: the groups, as in a rule file.
    """

    def __init__(self, target: str, rules: dict[str, Any]) -> None:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("prometheus is not installed (Debian: prometheus)")
        self._folder = tempfile.TemporaryDirectory(prefix="jetkeep-prometheus-")
        folder = Path(self._folder.name)
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        config = {
            "global": {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "300ms"},
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [{"job_name": "jetkeep", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}"
        self._words = [
            program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}", "--log.level=warn",
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def ask(self, path: str, **values: str) -> Any:
        """What the API answers; an expression that it refuses fails the test with its words."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(values)}") as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            if refusal.code == 503:
                raise  # it starts
            pytest.fail(f"{values}: {refusal.read().decode()}")

    def series(self, expression: str) -> list[Any]:
        """The instant vector."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def firing(self) -> dict[str, Any]:
        """The alerts that fire, by name."""
        return {one["labels"]["alertname"]: one for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def until(self, happened: Callable[[], object], seconds: float = 30) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if happened():
                    return
            except OSError:
                pass  # it does not listen yet
            assert self._process.poll() is None, "prometheus ended"
            assert time.monotonic() < deadline, f"it did not happen: {sorted(self.firing())} fire"
            time.sleep(0.1)
