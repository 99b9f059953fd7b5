"""Progress on stderr: bars on a terminal, one `key=value` line an event elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from jetkeep.cli.render import size
from jetkeep.model import Emit, Event, Notice, StreamAdvanced, StreamBegan, StreamEnded


@contextmanager
def progress(quiet: bool, stream: TextIO | None = None) -> Iterator[Emit]:
    """Give an `emit` for an operation; the display ends with the block."""
    out = stream or sys.stderr
    if not quiet:
        _say_when_slow(out)
    if quiet:
        yield lambda event: None
    elif out.isatty():
        with _bars() as emit:
            yield emit
    else:
        yield _Lines(out)


def _say_when_slow(out: TextIO) -> None:
    from jetkeep.codecs.kernels import COMPILED

    if not COMPILED:
        out.write("note: jetkeep was installed without a C compiler: the same results, many times slower\n")


class _Lines:
    """What a log collector reads: when a stream's phase ended, and notices."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began: dict[tuple[str, str], float] = {}
        self._done: dict[tuple[str, str], StreamAdvanced] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._say(f'notice="{event.text}"' + (f' stream="{event.stream}"' if event.stream else ""))
            return
        key = (event.stream, event.phase)
        if isinstance(event, StreamBegan):
            self._began[key] = time.monotonic()
        elif isinstance(event, StreamAdvanced):
            self._done[key] = event
        else:
            self._end(key, event.error)

    def _end(self, key: tuple[str, str], error: str) -> None:
        done = self._done.pop(key, None)
        seconds = time.monotonic() - self._began.pop(key, time.monotonic())
        counts = f" messages={done.messages} bytes={done.bytes}" if done else ""
        failed = f' error="{error}"' if error else ""
        self._say(f'phase={key[1]} stream="{key[0]}"{counts} seconds={seconds:.3f}{failed}')

    def _say(self, text: str) -> None:
        self._out.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
        self._out.flush()


@contextmanager
def _bars() -> Iterator[Emit]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}", justify="right"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[tuple[str, str], object] = {}

        def emit(event: Event) -> None:
            if isinstance(event, Notice):
                console.print(
                    f"note: {event.stream + ': ' if event.stream else ''}{event.text}",
                    highlight=False,
                    markup=False,
                )
                return
            key = (event.stream, event.phase)
            if isinstance(event, StreamBegan):
                tasks[key] = bars.add_task(f"{event.phase} {event.stream}", total=event.messages or None, note="")
            elif isinstance(event, StreamAdvanced) and key in tasks:
                note = f"{event.messages:,} messages, {size(event.bytes)}"
                bars.update(tasks[key], completed=event.messages, note=note)  # type: ignore[arg-type]
            elif isinstance(event, StreamEnded) and key in tasks:
                bars.remove_task(tasks.pop(key))  # type: ignore[arg-type]

        yield emit


def notices(quiet: bool) -> Callable[[str], None]:
    """Takes a notice for stderr at any time, also while bars are shown."""

    def tell(words: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"note: {words}\n")
        else:
            _Lines(sys.stderr)(Notice(words))

    return (lambda words: None) if quiet else tell
