"""Real servers as fixtures. A test may be a coroutine function; it runs in a loop of its own."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

# What set-up prefetched; before jetkeep is imported, because it is a default everywhere.
os.environ.setdefault("JETKEEP_CACHE", str(Path(__file__).parent.parent / ".servers"))
# The settings of whoever runs the tests must not reach them.
_STORES = ("AWS_", "GOOGLE_", "AZURE_")
#: Taken away; given back to the tests of a bucket that somebody names (JETKEEP_TEST_STORE).
OWN_STORES = {name: value for name, value in os.environ.items() if name.startswith(_STORES)}
for name in [
    name for name in os.environ if name.startswith(("NATS_", *_STORES)) or name in ("JETKEEP_REPO", "JETKEEP_CONFIG")
]:
    del os.environ[name]
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"
os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.environ["AWS_CONFIG_FILE"] = "/nonexistent"

from jetkeep.sandbox import Sandbox, SandboxCluster  # noqa: E402
from tests.object_stores.seaweed import Bucket, Seaweed  # noqa: E402
from tests.versions import NEWEST, ends_first  # noqa: E402

# A machine that is busy with servers is slow at making examples: that says nothing of the code.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


class StartServer(Protocol):
    """Starts one more server, which ends with the test: `await start_server("2.12.8", {"max_payload": 1024})`."""

    async def __call__(
        self, version: str | None = None, config: dict[str, Any] | None = None, store_dir: Path | None = None
    ) -> Sandbox: ...


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    with ExitStack() as stack:

        async def start(
            version: str | None = None, config: dict[str, Any] | None = None, store_dir: Path | None = None
        ) -> Sandbox:
            server = stack.enter_context(closing(Sandbox(version or NEWEST, config, store_dir)))
            await server.start()
            return server

        yield start


@pytest.fixture
def server(start_server: StartServer) -> Sandbox:
    """A server of the newest version."""
    return asyncio.run(start_server())


@pytest.fixture(params=ends_first())
def any_server(request: pytest.FixtureRequest, start_server: StartServer) -> Sandbox:
    """A server of each version in turn, those between the oldest and the newest with `make slow`."""
    return asyncio.run(start_server(request.param))


@pytest.fixture
def cluster() -> Iterator[SandboxCluster]:
    """Three servers of the newest version as one cluster."""
    with closing(SandboxCluster(3, NEWEST)) as nodes:
        asyncio.run(nodes.start())
        yield nodes


_PREFIXES = itertools.count(1)


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    """A SeaweedFS S3 server, one for each test process: keep to your own prefix or bucket, and leave it running."""
    with Seaweed() as server:
        server.create_bucket("tests")
        yield server


@pytest.fixture
def bucket(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A fresh prefix in a bucket; the AWS_* variables are set so that jetkeep finds it as the server's administrator."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    return Bucket("tests", f"fresh-{next(_PREFIXES)}", seaweed)
