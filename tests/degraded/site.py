"""A site that backs up to a volume and to a bucket, and what is broken in it: commands run in this process, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from jetkeep.cli import root
from jetkeep.cli.failures import report_failure
from jetkeep.errors import JetkeepError
from jetkeep.model import JsonDict
from jetkeep.sandbox import Sandbox
from tests.object_stores.seaweed import Bucket
from tests.publisher import Publisher


def jetkeep(*words: str, check: int | None = 0) -> str:
    """The command's output and errors, as they would be seen; its exit status must be `check`."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            status = root.main(list(words), prog_name="jetkeep", standalone_mode=False) or 0
        except JetkeepError as failure:
            status = report_failure(failure, as_json="--json" in words)
    assert check is None or status == check, f"{words}: {status}\n{told.getvalue()}"
    return told.getvalue()


def asked(*words: str) -> JsonDict:
    """The JSON document of a command that succeeds."""
    document: JsonDict = json.loads(jetkeep(*words, "--json", "-q").splitlines()[0])
    return document


@dataclass
class Site:
    """One server, a volume (the first repository), a bucket (the second, optional)."""

    nats: Sandbox
    volume: Path
    bucket: Bucket
    monkeypatch: pytest.MonkeyPatch

    @property
    def local(self) -> Path:
        """The repository on the volume."""
        return self.volume / "repository"

    def backup(self, label: str, check: int = 0) -> str:
        """Back up everywhere."""
        return jetkeep("backup", "-q", "--label", label, check=check)

    def labels(self, repository: str) -> list[str]:
        """The backups of `local` or `offsite`."""
        return [one["label"] for one in asked("info", "--repo", repository)["backups"]]

    def publish(self, stream: str, count: int, size: int = 100) -> None:
        """Store messages, in a stream that is made when it is not there."""

        async def work() -> None:
            async with Publisher(self.nats.url) as publisher:
                with contextlib.suppress(Exception):
                    await publisher.create(stream)
                await publisher.store_all((f"{stream}.{at % 3}", bytes([at % 251]) * size, b"") for at in range(count))

        asyncio.run(work())

    def lose(self, stream: str) -> None:
        """Delete a stream."""

        async def work() -> None:
            async with Publisher(self.nats.url) as publisher:
                await publisher.ask(f"$JS.API.STREAM.DELETE.{stream}")

        asyncio.run(work())

    def messages(self, stream: str) -> int:
        """What a stream holds now."""

        async def work() -> int:
            async with Publisher(self.nats.url) as publisher:
                return int((await publisher.info(stream))["state"]["messages"])

        return asyncio.run(work())

    def configure(self, **offsite: str) -> None:
        """Write the configuration, with these further settings of the bucket."""
        lines = [f"[repositories.local]\nurl = '{self.local}'\nkeep = {{ last = 7 }}"]
        lines += [f"[repositories.offsite]\nurl = '{self.bucket.url}'\nkeep = {{ last = 30 }}"]
        lines += [f"{key.replace('_', '-')} = {value}" for key, value in offsite.items()]
        path = self.volume.parent / "jetkeep.toml"
        path.write_text("\n".join(lines))
        self.monkeypatch.setenv("JETKEEP_CONFIG", str(path))
