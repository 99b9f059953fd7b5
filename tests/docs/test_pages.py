"""Every command line of the pages runs, in order, as a reader would type it, against a real server."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.object_stores.emulators import azurite, fake_gcs, running_azurite, running_gcs
from tests.object_stores.seaweed import Seaweed
from tests.publisher import Publisher
from tests.restoring import connected

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorial").glob("*.md")),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
]
#: Their commands are other pages', in another order: run with the slow tests.
SLOW = {
    "change-retention", "disaster-from-the-bucket", "move-from-nats-backup", "nack", "resize-the-pvc",
    "restore-into-another-cluster", "rotate-keys", "upgrade",
}  # fmt: skip
LOSE = """#!{python}
import asyncio, os, sys
import nats
async def main():
    client = await nats.connect(os.environ["NATS_URL"])
    await client.jetstream().delete_stream(sys.argv[1])
    await client.close()
asyncio.run(main())
"""


def lines(page: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


async def fill(server: Sandbox) -> None:
    async with connected(server) as js:
        for name, retention in (("ORDERS", "limits"), ("WORK", "workqueue"), ("EMPTY", "limits")):
            subjects = [f"{name.lower()}.>"]
            await js.create_stream({"name": name, "subjects": subjects, "storage": "file", "retention": retention})
        async with Publisher(server.url) as publisher:
            await publisher.store_all((f"orders.{at % 4}", b"order %d" % at, b"") for at in range(500))
            await publisher.store_all(("work.mail", b"job %d" % at, b"") for at in range(20))


def pages() -> list[ParameterSet]:
    """The pages with commands; those whose store only an emulator can be are opt-in."""
    found = []
    for page in PAGES:
        if text := "\n".join(lines(page)):
            marks = [pytest.mark.stores] if "gs://" in text or "az://" in text else []
            marks += [pytest.mark.slow] if page.stem in SLOW else []
            found.append(pytest.param(page, marks=marks, id=page.stem))
    return found


@pytest.fixture
def stores(page: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The variables for the stores that a page names, once its buckets are there and empty."""
    named = set(re.findall(r"\b(s3|gs|az)://([a-z0-9-]+)", "\n".join(lines(page))))
    variables: dict[str, str] = {}
    with ExitStack() as stack:
        for scheme, bucket in sorted(named):
            if scheme == "s3":
                seaweed: Seaweed = request.getfixturevalue("seaweed")
                variables |= seaweed.environment()
                seaweed.request("DELETE", f"/{bucket}")
                seaweed.create_bucket(bucket, locked="locked" in bucket)
            elif (program := fake_gcs() if scheme == "gs" else azurite()) is None:
                pytest.skip("not installed: python -m tests.object_stores.emulators")
            else:
                running = running_gcs if scheme == "gs" else running_azurite
                variables |= stack.enter_context(running(program, bucket))
        yield variables


@pytest.mark.parametrize("page", pages())
def test_the_page_s_commands_work(
    start_server: StartServer, tmp_path: Path, page: Path, stores: dict[str, str]
) -> None:
    server = asyncio.run(start_server())
    asyncio.run(fill(server))
    tools = tmp_path / "tools"
    tools.mkdir()
    lose = tools / "nats-lose"
    lose.write_text(LOSE.format(python=sys.executable))
    lose.chmod(0o755)
    path = f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -e\n" + "\n".join(f"echo '>>> '{shlex.quote(line)} >&2\n{line}" for line in lines(page))
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**os.environ, **stores, "PATH": path, "NATS_URL": server.url},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    assert "Traceback" not in done.stderr
