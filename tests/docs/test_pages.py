"""Every command line of the pages runs, in order, as a reader would type it, against a real server."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.publisher import Publisher
from tests.restoring import connected

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorial").glob("*.md")),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
]
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


@pytest.mark.parametrize("page", [one for one in PAGES if lines(one)], ids=lambda one: one.stem)
def test_the_page_s_commands_work(start_server: StartServer, tmp_path: Path, page: Path) -> None:
    server = asyncio.run(start_server())
    asyncio.run(fill(server))
    tools = tmp_path / "tools"
    tools.mkdir()
    lose = tools / "nats-lose"
    lose.write_text(LOSE.format(python=sys.executable))
    lose.chmod(0o755)
    path = f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -e\n" + "\n".join(f"echo '>>> '{line!r} >&2\n{line}" for line in lines(page))
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path, "NATS_URL": server.url},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    assert "Traceback" not in done.stderr
