"""`jetkeep completion`."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the shell's completion script.

    \b
    Examples:
      jetkeep completion bash > ~/.local/share/bash-completion/completions/jetkeep
      jetkeep completion zsh > ~/.zfunc/_jetkeep
      jetkeep completion fish > ~/.config/fish/completions/jetkeep.fish
    """
    from click.shell_completion import get_completion_class

    from jetkeep.cli import root
    from jetkeep.cli.render import say

    kind = get_completion_class(shell)
    assert kind is not None
    say(kind(root, {}, "jetkeep", "_JETKEEP_COMPLETE").source())
    return 0
