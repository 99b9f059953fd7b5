"""From files, folders and stdin to documents; what is hostile or no YAML is refused with its name, never with its contents."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from jetkeep.audit.document import Document, Node, Scalar
from jetkeep.errors import JetkeepError, UsageError

#: A manifest is smaller by far; a log or a dump that is named by mistake is not.
MAX_BYTES = 16 * 2**20
#: Values after aliases are written out: a few lines of aliases can stand for 10^9.
MAX_VALUES = 200_000
MAX_DEPTH = 100
_SUFFIXES = (".yaml", ".yml", ".json", ".toml", ".conf")
_MERGE = "tag:yaml.org,2002:merge"
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


class Source(NamedTuple):
    """A file's documents, and its lines, where suppressions stand as comments."""

    file: str
    documents: list[Document]
    lines: list[str]


def sources(paths: Sequence[str], unread: list[tuple[str, JetkeepError]], notices: list[str]) -> Iterator[Source]:
    """Everything below these paths; `-` is stdin. What cannot be read is noted in `unread`, with the error, and the rest read.

    A chart's templates are no YAML before they are rendered: they are left out, with a notice.

    Raises:
        UsageError: a path is not there, or there is nothing to look at below any of them.
    """
    files = [one for path in paths for one in _files(path, notices)]
    if not files:
        raise UsageError(
            "there are no manifests to look at",
            code="audit.nothing",
            hint=f"name files, or folders with {', '.join('*' + one for one in _SUFFIXES)}; - reads stdin",
        )
    for name in files:
        try:
            yield read_text(name, _text(name))
        except JetkeepError as error:
            unread.append((name, error))


def read_text(name: str, text: str) -> Source:
    """The documents in a file's text, by the suffix of its name.

    Raises:
        UsageError: it is no YAML, or stands for more values than anybody writes.
    """
    lines = text.splitlines()
    if name.endswith(".toml"):
        return Source(name, [Document(name, Node({}, 1), ((1, len(lines)),), toml=text)], lines)
    if name.endswith(".conf"):
        return Source(name, [Document(name, Node({}, 1), ((1, len(lines)),), conf=text)], lines)
    if name.endswith(".json"):
        text = text.replace("\t", " ")  # in JSON a tab is only ever space between values; YAML refuses it there
    return Source(name, list(_documents(name, text)), lines)


def _files(path: str, notices: list[str]) -> list[str]:
    if path == "-":
        return [path]
    here = Path(path)
    if not here.exists():
        raise UsageError(f"{path} is not there", code="audit.nothing", hint="name a file, a folder, or - for stdin")
    if not here.is_dir():
        return [path]
    found = []
    for folder, below, names in os.walk(here):
        below[:] = sorted(one for one in below if not one.startswith("."))
        if "Chart.yaml" in names and "templates" in below:
            below.remove("templates")
            notices.append(f"{folder} is a chart: `helm template {folder} | jetkeep audit -` looks at what it makes")
        found += [str(Path(folder) / name) for name in sorted(names) if name.endswith(_SUFFIXES)]
    return found


def _text(name: str) -> str:
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        elif not Path(name).is_file():
            raise _unreadable("it is no file")
        else:
            with Path(name).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except OSError as failure:
        raise _unreadable(f"{failure.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise _unreadable(f"it is larger than {MAX_BYTES // 2**20} MiB: no manifest is")
    if b"\0" in raw:
        raise _unreadable("it is binary")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unreadable("it is no UTF-8 text") from None


def _documents(name: str, text: str) -> Iterator[Document]:
    loader = yaml.CSafeLoader(text)
    try:
        _refuse_depth(text)
        while loader.check_node():
            root = loader.get_node()
            if root is not None:
                yield from _document(name, loader, root)
    except yaml.YAMLError as failure:
        raise _no_yaml(failure, text) from None
    finally:
        loader.dispose()


def _document(name: str, loader: yaml.CSafeLoader, root: yaml.Node) -> Iterator[Document]:
    """The document, or the objects of a `List` each by itself."""
    _measure(root, {})
    spans: list[tuple[int, int]] = []
    node = _node(loader, root, {}, spans)
    if node.get("kind").text == "List" and node.get("items").all:
        for one in node.get("items").all:
            yield Document(name, one, tuple(spans))
    else:
        spans.append((root.start_mark.line + 1, _last(root)))
        yield Document(name, node, tuple(spans))


def _refuse_depth(text: str) -> None:
    """Event by event: composing goes down by recursion, in C, where too deep is the end of the process."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _unreadable("it is nested more deeply than anybody writes")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node stands for once its aliases are written out, and how deep."""
    if id(node) in known:
        if not known[id(node)][0]:
            raise _unreadable("it contains itself, by an alias")
        return known[id(node)]
    known[id(node)] = (0, 0)
    parts = node.value if isinstance(node, yaml.SequenceNode) else ()
    if isinstance(node, yaml.MappingNode):
        parts = [one for pair in node.value for one in pair]
    counts = [_measure(one, known) for one in parts]
    known[id(node)] = (1 + sum(one for one, _ in counts), 1 + max((depth for _, depth in counts), default=0))
    if known[id(node)][0] > MAX_VALUES or known[id(node)][1] > MAX_DEPTH:
        raise _unreadable(f"its aliases stand for more than {MAX_VALUES} values, or for too deep a one")
    return known[id(node)]


def _node(loader: yaml.CSafeLoader, node: yaml.Node, made: dict[int, Node], spans: list[tuple[int, int]]) -> Node:
    if id(node) in made:
        return made[id(node)]
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Node] = {}
        for key, value in node.value:
            spans.append((key.start_mark.line + 1, _last(value)))
            inner = _node(loader, value, made, spans)
            if key.tag == _MERGE:
                entries = {**inner.items, **entries}
            else:
                entries[str(key.value)] = inner
        made[id(node)] = Node(entries, line)
    elif isinstance(node, yaml.SequenceNode):
        spans.extend((one.start_mark.line + 1, _last(one)) for one in node.value)
        made[id(node)] = Node([_node(loader, one, made, spans) for one in node.value], line)
    elif isinstance(node, yaml.ScalarNode):
        made[id(node)] = Node(_scalar(loader, node), line, line + 1 if node.style == "|" else 0)
    return made[id(node)]


def _scalar(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> Scalar:
    if node.tag in _SCALARS:
        try:
            plain: Scalar = loader.construct_object(node)
        except (ValueError, yaml.YAMLError):
            return str(node.value)
        return plain
    return str(node.value)


def _last(node: yaml.Node) -> int:
    """The last line that belongs to a node: a block's end mark stands at the beginning of the next thing."""
    end = node.end_mark
    return max(node.start_mark.line + 1, end.line if end.column == 0 else end.line + 1)


def _no_yaml(failure: yaml.YAMLError, text: str) -> UsageError:
    mark = getattr(failure, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark else ""
    # The words may quote what stands there.
    why = _QUOTED.sub("…", str(getattr(failure, "problem", "") or "it holds characters that YAML has not"))
    if "{{" in text:
        return _unreadable(f"it is a template{where}, not YAML", "`helm template CHART | jetkeep audit -` looks at it")
    return _unreadable(f"it is no YAML{where}: {why}")


def _unreadable(why: str, hint: str = "name manifests only, or mend it") -> UsageError:
    return UsageError(why, code="audit.unreadable", means="what stands in it was not looked at", hint=hint)
