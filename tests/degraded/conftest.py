"""The site that each test breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jetkeep.sandbox import Sandbox
from tests.degraded.site import Site
from tests.object_stores.seaweed import Bucket
from tests.versions import NEWEST


@pytest.fixture
def site(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """ORDERS with 300 messages, in a backup `one` of both repositories."""
    with closing(Sandbox(NEWEST)) as nats:
        asyncio.run(nats.start())
        monkeypatch.setenv("NATS_URL", nats.url)
        made = Site(nats, tmp_path / "volume", bucket, monkeypatch)
        made.configure()
        made.publish("ORDERS", 300)
        made.backup("one")
        yield made
