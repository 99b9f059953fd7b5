"""Writes docs/reference/commands.md, the help of every command: `python -m tests.docs.commands_reference`."""

from __future__ import annotations

from pathlib import Path

import click

from jetkeep.cli import COMMANDS, root

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
_WIDTH = 110


def render() -> str:
    """The page as it must be."""
    parts = ["# Commands\n\nWhat `--help` says. Written by `python -m tests.docs.commands_reference`; do not edit.\n"]
    parts += [f"## {name}\n\n```text\n{help_of(name)}\n```\n" for name in ("jetkeep", *_names())]
    return "\n".join(parts)


def _names() -> list[str]:
    """Every command, each group followed by its own commands, as they are typed."""
    names = []
    for name in COMMANDS:
        command = root.get_command(click.Context(root), name)
        own = list(command.commands) if isinstance(command, click.Group) else []
        names += [name, *(f"{name} {one}" for one in own)]
    return names


def help_of(name: str) -> str:
    """A command's help, or the overview's for `jetkeep`, the same on every terminal."""
    settings = {**root.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    overview = click.Context(root, info_name="jetkeep", **settings)
    if name == "jetkeep":
        return root.get_help(overview)
    context = overview
    for word in name.split():
        group = context.command
        assert isinstance(group, click.Group)
        command = group.get_command(context, word)
        assert command is not None
        context = click.Context(command, parent=context, info_name=word)
    return context.command.get_help(context)


if __name__ == "__main__":
    PAGE.write_text(render())
