"""Real servers as fixtures. A test may be a coroutine function; it runs in a loop of its own."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import pytest

# What set-up prefetched; before jetkeep is imported, because it is a default everywhere.
os.environ.setdefault("JETKEEP_CACHE", str(Path(__file__).parent.parent / ".servers"))
# The settings of whoever runs the tests must not reach them.
for name in [name for name in os.environ if name.startswith("NATS_") or name in ("JETKEEP_REPO", "JETKEEP_CONFIG")]:
    del os.environ[name]
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"

from jetkeep.sandbox import Sandbox, SandboxCluster  # noqa: E402
from tests.versions import NEWEST, VERSIONS  # noqa: E402


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


@pytest.fixture(params=VERSIONS)
def any_server(request: pytest.FixtureRequest, start_server: StartServer) -> Sandbox:
    """A server of each version in turn."""
    return asyncio.run(start_server(request.param))


@pytest.fixture
def cluster() -> Iterator[SandboxCluster]:
    """Three servers of the newest version as one cluster."""
    with closing(SandboxCluster(3, NEWEST)) as nodes:
        asyncio.run(nodes.start())
        yield nodes
