"""YAML whose every value knows its line: what the rules look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Scalar = str | int | float | bool | None


class Node:
    """A value with the line it begins at (1-based; 0 where there are no lines: a live object).

    Attributes:
        value: a scalar, a dict or a list of nodes.
        text_line: the line of a `|` block's first line of text; 0 for every other form, whose lines are not the file's.
    """

    __slots__ = ("line", "text_line", "value")

    def __init__(self, value: Scalar | dict[str, Node] | list[Node], line: int = 0, text_line: int = 0) -> None:
        self.value = value
        self.line = line
        self.text_line = text_line

    def get(self, *path: str) -> Node:
        """The node below these keys; `NOTHING` where one is not there."""
        here = self
        for key in path:
            if not isinstance(here.value, dict) or key not in here.value:
                return NOTHING
            here = here.value[key]
        return here

    def __bool__(self) -> bool:
        return self is not NOTHING and self.value is not None

    @property
    def text(self) -> str:
        """A text; empty for what is none."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def items(self) -> dict[str, Node]:
        """A mapping; empty for what is none."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def all(self) -> list[Node]:
        """A list's members; none for what is no list."""
        return self.value if isinstance(self.value, list) else []

    @property
    def texts(self) -> list[str]:
        """A list's texts; of a single text that alone, as policies write it."""
        return [self.text] if self.text else [one.text for one in self.all]

    def line_of(self, offset: int) -> int:
        """The file's line of a text's line, counted from 0."""
        return self.text_line + offset if self.text_line else self.line

    def plain(self) -> Any:
        """Without lines."""
        if isinstance(self.value, dict):
            return {key: one.plain() for key, one in self.value.items()}
        if isinstance(self.value, list):
            return [one.plain() for one in self.value]
        return self.value

    def scalars(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
        """Every scalar below, with the keys that lead to it."""
        if isinstance(self.value, dict):
            for key, one in self.value.items():
                yield from one.scalars((*path, key))
        elif isinstance(self.value, list):
            for one in self.value:
                yield from one.scalars(path)
        else:
            yield path, self


NOTHING = Node(None)


def of_plain(value: Any) -> Node:
    """A node of what a cluster answered, without lines."""
    if isinstance(value, dict):
        return Node({str(key): of_plain(one) for key, one in value.items()})
    if isinstance(value, list):
        return Node([of_plain(one) for one in value])
    return Node(value)


class Document(NamedTuple):
    """One YAML document, TOML file or NATS configuration; a Kubernetes object when it has a kind.

    Attributes:
        spans: first and last line of each entry, for suppressions.
        toml, conf: the text of a file that is no YAML.
        live: it came out of a cluster, so Secrets' values are where they belong.
    """

    file: str
    node: Node
    spans: tuple[tuple[int, int], ...] = ()
    toml: str = ""
    conf: str = ""
    live: bool = False

    @property
    def kind(self) -> str:
        """Kubernetes' kind; empty for what is no object."""
        return self.node.get("kind").text

    @property
    def name(self) -> str:
        """The object's name."""
        return self.node.get("metadata", "name").text

    @property
    def namespace(self) -> str:
        """The object's namespace; empty where it does not say."""
        return self.node.get("metadata", "namespace").text

    @property
    def title(self) -> str:
        """`Kind namespace/name`."""
        if not self.kind:
            return ""
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"
