"""In which order streams are opened: origins before what mirrors or sources them."""

from __future__ import annotations

from collections.abc import Mapping

from jetkeep.model import JsonDict


def origins(config: JsonDict) -> list[str]:
    """Streams of the same account that this one mirrors or sources."""
    parts = [config.get("mirror"), *(config.get("sources") or [])]
    return [str(one["name"]) for one in parts if one and one.get("name") and not one.get("external")]


def in_order(configs: Mapping[str, JsonDict]) -> list[tuple[str, tuple[str, ...]]]:
    """Names with those of the others that come before them; a circle of sources is cut where it is met first."""
    ordered: list[tuple[str, tuple[str, ...]]] = []
    done: set[str] = set()
    for start in sorted(configs):
        stack = [start]
        while stack:
            name = stack[-1]
            open_ones = [
                one for one in origins(configs[name]) if one in configs and one not in done and one not in stack
            ]
            if open_ones:
                stack.append(open_ones[0])
                continue
            stack.pop()
            if name not in done:
                done.add(name)
                before = tuple(one for one in origins(configs[name]) if one in done and one != name)
                ordered.append((name, before))
    return ordered
