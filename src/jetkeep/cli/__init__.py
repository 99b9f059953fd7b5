"""The command line: one thin function a command, and the one place that prints, exits and catches.

stdout carries the result (a table, or one JSON document with `--json`), stderr progress, log and errors.
Commands are imported when they are called, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

import click

from jetkeep import __version__
from jetkeep.cli.failures import report_bug, report_failure
from jetkeep.errors import JetkeepError

#: name → (module, one line for the overview); in the order of a first day with jetkeep.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Show the whole loop on throw-away servers."),
    "check": ("check", "Can every part reach every other, with the permissions that it needs?"),
    "audit": ("audit", "Is what stands in these manifests, or runs in this cluster, safe to rely on?"),
    "init": ("init", "Create a repository."),
    "backup": ("backup", "Back up streams: messages, configuration, consumers."),
    "info": ("info", "Show the repository's backups."),
    "restore": ("restore", "Put streams back exactly, staged and compared."),
    "verify": ("verify", "Are the stored bytes good?"),
    "drill": ("drill", "Restore into a throw-away server and compare everything."),
    "evidence": ("evidence", "What drills have found: list, show, verify; make a signing key."),
    "copy": ("copy", "Bring backups into another repository."),
    "key": ("key", "Who can read an encrypted repository: new, list, add, remove, rotate."),
    "expire": ("expire", "Let go of backups that no rule keeps."),
    "agent": ("agent", "Do all of it on schedule, in one long-running process."),
    "metrics": ("metrics", "Figures for Prometheus, from what lies in the repositories."),
    "unlock": ("unlock", "Show who is at work in a repository; take away what the dead left."),
    "pin": ("pin", "Keep a backup for ever, whatever the rules say."),
    "cat": ("cat", "Print stored messages without restoring anything."),
    "extract": ("extract", "Write the files that a backup kept beside the streams."),
    "export": ("export", "Write the official CLI's backup directory."),
    "import": ("import_", "Take the official CLI's backup directory."),
    "completion": ("completion", "Print the shell's completion script."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of a first day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"jetkeep.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would end with status 1 when the reader of stdout goes away (`| head`)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _say_no_more()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and suggest one when the name is near another."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"There is no command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit status: 0 done, 1 a bug, 2 usage, 3 partial, 10 no repository, 11 locked, 12 denied, 13 store, "
    "14 unknown outcome, 20 NATS, 21 Kubernetes, 30 bad data, 31 comparison, 40 cannot restore, 130 interrupted.",
)
@click.version_option(__version__, prog_name="jetkeep")
def root() -> None:
    """Backup and disaster recovery for NATS JetStream, proven by restoring.

    \b
    A first day:
      jetkeep demo                              see it work, on servers of its own
      jetkeep check --repo /backups             with your contexts, NATS_URL or flags
      jetkeep backup --repo /backups            everything in the account
      jetkeep drill --repo /backups             prove that it comes back
      jetkeep restore ORDERS --repo /backups    bring a stream back
    """


def main() -> None:
    """Run the command line and exit with its documented status."""
    as_json = "--json" in sys.argv[1:]
    try:
        status = root.main(prog_name="jetkeep", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.Abort:
        status = 130
    except click.ClickException as wrong:
        wrong.show()
        status = 2
    except JetkeepError as failure:
        status = report_failure(failure, as_json)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = _say_no_more()
    except Exception as bug:
        status = report_bug(bug, as_json)
    _end(status if isinstance(status, int) else 0)


def _end(status: int) -> None:
    """Exit with this status, whatever the threads of the object stores' client do meanwhile."""
    if "obstore" in sys.modules:
        # They may still touch an object of Python's when the interpreter is taken down, which then aborts (exit 134). By now
        # all work is done, and every child and thread of ours has ended.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _say_no_more() -> int:
    """The reader of stdout went away: what is still buffered goes nowhere, and that is no failure."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
