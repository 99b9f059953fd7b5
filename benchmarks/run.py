"""jetkeep and the official CLI in turn, on the same servers and streams.

    python benchmarks/run.py [--cases small,mid] [--rounds 5] [--growth] [--write-docs]

Needs natscli 0.5.1: NATSCLI=path, `nats` on PATH, or Go to install it. Prints medians and ratios, writes
benchmarks/out/results.json and results.md; `--write-docs` puts the table into docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import Run, run, tree_bytes
from streams import CASES, Case, delete_all, fill, growth

from jetkeep.codecs.kernels import COMPILED
from jetkeep.sandbox import Sandbox, SandboxCluster

HERE = Path(__file__).parent
OUT = HERE / "out"
NATSCLI_MODULE = "github.com/nats-io/natscli/nats@v0.5.1"
GOALS = {
    ("small", "backup wall"): 1.2, ("small", "bytes"): 0.55, ("mid", "backup wall"): 1.5, ("mid", "bytes"): 0.75,
    ("big", "backup wall"): 1.3, ("big", "bytes"): 1.0, ("many", "backup wall"): 1.0,
    ("small", "restore, uncompared"): 0.75, ("mid", "restore, uncompared"): 0.75, ("big", "restore, uncompared"): 0.75,
    ("small", "restore wall"): 1.2, ("mid", "restore wall"): 1.2, ("big", "restore wall"): 1.2,
}  # fmt: skip


def natscli() -> str:
    """The official CLI's binary; installed with Go when it is nowhere."""
    found = os.environ.get("NATSCLI") or shutil.which("nats") or str(OUT / "bin" / "nats")
    if not Path(found).exists():
        print(f"installing {NATSCLI_MODULE}", file=sys.stderr)
        environment = {**os.environ, "GOBIN": str(OUT / "bin"), "GOFLAGS": "-mod=mod"}
        subprocess.run(["go", "install", NATSCLI_MODULE], env=environment, check=True)
    return found


class Contest:
    """Both tools on one case; every run starts from an empty directory and an empty target."""

    def __init__(self, case: Case, source: str, target: str, nats: str, work: Path) -> None:
        self.case, self.source, self.target, self.nats, self.work = case, source, target, nats, work
        self.log = OUT / f"{case.name}.log"
        self.jetkeep = [sys.executable, "-m", "jetkeep"]

    def backup(self, tool: str, at: Path) -> Run:
        shutil.rmtree(at, ignore_errors=True)
        if tool == "jetkeep":
            return run([*self.jetkeep, "backup", "-q", "-s", self.source, "--no-context", "--repo", str(at)], self.log)
        at.mkdir()
        if len(self.case.stream_names) == 1:
            name = self.case.stream_names[0]
            return run([self.nats, "-s", self.source, "backup", "stream", name, str(at), "--no-progress"], self.log)
        return run([self.nats, "-s", self.source, "backup", "account", str(at), "--force", "--consumers"], self.log)

    async def restore(self, tool: str, at: Path) -> Run:
        await delete_all(self.target)
        if tool == "jetkeep":
            command = [*self.jetkeep, "restore", "-q", "--json", "-s", self.target, "--no-context", "--repo", str(at)]
        elif len(self.case.stream_names) == 1:
            command = [self.nats, "-s", self.target, "backup", "restore", "stream", str(at), "--no-progress"]
        else:
            command = [self.nats, "-s", self.target, "backup", "restore", "account", str(at)]
        done = await asyncio.to_thread(run, command, self.log)
        if tool == "jetkeep" and len(self.case.stream_names) == 1:
            # One stream: its phases follow each other, so the rest of the wall is what a restore without them takes.
            seconds = json.loads(self.log.read_text().splitlines()[-1])["streams"][0]["seconds"]
            done = replace(done, comparing=seconds["settle"] + seconds["compare"])
        return done

    async def rounds(self, count: int, restores: bool) -> dict[str, Any]:
        taken: dict[str, list[Any]] = {}
        sizes: dict[str, int] = {}
        for at in range(count + 1):
            # The first round warms caches and does not count; the order changes from round to round.
            # natscli 0.5.1 fails on an account without streams: there is nothing to compare with.
            tools = ("natscli", "jetkeep") if self.case.streams else ("jetkeep",)
            for tool in tools if at % 2 else tools[::-1]:
                place = self.work / tool
                backup = await asyncio.to_thread(self.backup, tool, place)
                if at:
                    taken.setdefault(f"{tool} backup", []).append(backup)
                sizes[tool] = tree_bytes(place)
                if restores:
                    restore = await self.restore(tool, place)
                    if at:
                        taken.setdefault(f"{tool} restore", []).append(restore)
        return {"case": self.case.name, "rounds": count, "bytes": sizes, "runs": _summary(taken)}


def _summary(taken: dict[str, list[Run]]) -> dict[str, dict[str, float]]:
    return {
        what: {
            "wall": statistics.median(one.wall for one in runs),
            "wall_min": min(one.wall for one in runs),
            "wall_max": max(one.wall for one in runs),
            "cpu": statistics.median(one.cpu for one in runs),
            "resident": max(one.resident for one in runs),
            "alone": statistics.median(one.wall - one.comparing for one in runs),
        }
        for what, runs in taken.items()
    }


async def contest(case: Case, rounds: int, nats: str) -> dict[str, Any]:
    """Start servers, fill, compare, stop."""
    print(f"{case.name}: filling", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="jetkeep-bench-") as folder:
        async with AsyncExitStack() as stack:
            if case.replicas > 1:
                source = (await stack.enter_async_context(SandboxCluster(case.replicas))).url
            else:
                source = (await stack.enter_async_context(Sandbox())).url
            target = (await stack.enter_async_context(Sandbox())).url if case.replicas == 1 else source
            await fill(source, case)
            found = Contest(case, source, target, nats, Path(folder))
            print(f"{case.name}: {rounds} rounds", file=sys.stderr)
            # One machine has no room for a second cluster: what was restored into the first is what is backed up next.
            # An empty account has nothing to restore.
            return await found.rounds(rounds, restores=case.streams > 0)


def rows(results: list[dict[str, Any]]) -> list[str]:
    """The Markdown table."""
    lines = ["| case | what | natscli 0.5.1 | jetkeep | ratio | goal |", "|---|---|--:|--:|--:|--:|"]
    for result in results:
        name, runs, sizes = result["case"], result["runs"], result["bytes"]
        for work in ("backup", "restore"):
            if f"jetkeep {work}" not in runs:
                continue
            theirs, ours = runs.get(f"natscli {work}"), runs[f"jetkeep {work}"]
            if theirs is None:
                lines.append(f"| {name} | {work} wall | | {ours['wall']:.2f} s | | |")
            else:
                lines.append(_row(name, f"{work} wall", theirs["wall"], ours["wall"], "{:.2f} s"))
                if ours["alone"] < ours["wall"]:
                    lines.append(_row(name, "restore, uncompared", theirs["wall"], ours["alone"], "{:.2f} s"))
            megabytes = "" if theirs is None else f"{theirs['resident'] / 2**20:.0f} MiB"
            lines.append(f"| {name} | {work} memory | {megabytes} | {ours['resident'] / 2**20:.0f} MiB | | ≤ 256 MiB |")
        if sizes.get("natscli"):
            lines.append(_row(name, "bytes", sizes["natscli"] / 1e6, sizes["jetkeep"] / 1e6, "{:.1f} MB"))
    return lines


def _row(case: str, what: str, theirs: float, ours: float, shape: str) -> str:
    goal = GOALS.get((case, what))
    bound = f"≤ {goal} ×" if goal else ""
    return f"| {case} | {what} | {shape.format(theirs)} | {shape.format(ours)} | {ours / theirs:.2f} × | {bound} |"


async def main() -> None:
    """Run what was asked for and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="10^5 to 10^7 messages, jetkeep's memory")
    parser.add_argument("--write-docs", action="store_true")
    asked = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    nats = natscli()
    chosen = [CASES[name] for name in asked.cases.split(",") if name]
    if asked.growth:
        chosen += [growth(count) for count in (10**5, 10**6, 10**7)]
    results = []
    for case in chosen:
        results.append(await contest(case, asked.rounds, nats))
        print("\n".join(rows(results[-1:])[2:]), file=sys.stderr)
    facts = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kernels": "compiled" if COMPILED else "interpreted",
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    (OUT / "results.json").write_text(json.dumps({"facts": facts, "results": results}, indent=1))
    text = "\n".join([*rows(results), "", *(f"- {key}: {value}" for key, value in facts.items())])
    (OUT / "results.md").write_text(text + "\n")
    print(text)
    if asked.write_docs:
        page = HERE.parent / "docs/explanation/performance.md"
        head, mark, rest = page.read_text().partition("<!-- measured -->\n")
        _, end, tail = rest.partition("<!-- /measured -->")
        page.write_text(head + mark + text + "\n" + end + tail)


if __name__ == "__main__":
    asyncio.run(main())
