"""What the kernels need of the `cython` module where neither it nor a compiler is there: names that do nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Any

compiled = False


class _Inert:
    """A type, a decorator, a decorator with arguments, a context: whatever it is used as, it changes nothing."""

    def __call__(self, *args: Any, **_options: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else self

    def __getitem__(self, _index: object) -> _Inert:
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def cast(_kind: object, value: Any) -> Any:
    """The value as it is."""
    return value


def __getattr__(name: str) -> _Inert:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Inert()
