"""The `cyxnode` command. Subcommands are imported when they are called: `--help` must not wait for torch or libp2p.

Exit codes: 0 done; 1 other failure; 2 bad input or set-up; 3 a peer broke the protocol; 4 network or chain unreachable;
5 the chain rejected a transaction; 6 the computation failed; 7 the job ended without a result; 8 a simulation violated
an invariant; 9 the doctor found a failure; 130 interrupted.
"""

from __future__ import annotations

from . import structlog_alone  # noqa: F401 -- before anything that logs

# isort: split

import importlib
import sys

import click

from .. import __version__
from ..protocol.errors import ChainUnreachable, CyxError
from .text import plain

COMMANDS = {
    "demo": ("demo:demo", "A whole network on this machine, and one paid job."),
    "keygen": ("keygen:keygen", "Make a key."),
    "chain": ("chain:chain", "Run or use a local Solana chain with the escrow program."),
    "bootstrap": ("bootstrap:bootstrap", "Run a bootstrap node."),
    "run": ("run:run", "Run a node that sells compute and verifies."),
    "models": ("models:models", "Choose the language models that nodes here serve, and their prices."),
    "market": ("market:market", "See what is for sale."),
    "submit": ("submit:submit", "Submit a job."),
    "job": ("job:job", "See this requester's jobs and why they are as they are; watch any job."),
    "wallet": ("wallet:wallet", "See and move the money of a key: balance, send, stake, withdraw, history."),
    "doctor": ("doctor:doctor", "Find out what would keep a node from working here."),
    "receipt": ("receipt:receipt", "Show or verify a receipt."),
    "sim": ("sim:sim", "Play a market of real nodes in virtual time."),
}
JOB_WITHOUT_RESULT = 7


class LazyGroup(click.Group):
    """A group whose members are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f".{module}", __package__), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help texts of the table, so that listing imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cyxnode")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    envvar="CYXNODE_LOG_LEVEL",
    show_default=True,
)
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    envvar="CYXNODE_LOG_FORMAT",
    show_default=True,
)
@click.pass_context
def cli(ctx: click.Context, log_level: str, log_format: str) -> None:
    """A peer-to-peer network that sells verified compute."""
    from .logs import configure_logs
    from .settings import default_home, load_config

    configure_logs(log_level, log_format)
    ctx.default_map = load_config(default_home())


def first_error(error: BaseException) -> BaseException:
    """The cause inside nested exception groups: an error of ours if there is one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [first_error(inner) for inner in error.exceptions]
    return next((one for one in causes if isinstance(one, CyxError)), causes[0])


def one_line(error: CyxError) -> str:
    """What is wrong, where, and what to do about it."""
    if isinstance(error, ChainUnreachable):
        return f"error: rpc: {plain(str(error))} (fix: start `cyxnode chain run`, or give --rpc URL)"
    return f"error: {plain(str(error))}"


def usage_line(error: click.ClickException) -> str:
    """The same for a command line that click refuses."""
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "cyxnode"
    named = isinstance(error, click.BadParameter) and error.param is not None and error.param.name and error.message
    text = f"{error.param.name}: {error.message}" if named else error.format_message()  # type: ignore[attr-defined]
    return f"error: {' '.join(text.split()).rstrip('.')} (fix: see `{path} --help`)"


def main() -> None:
    """Entry point: one line for a failure that we understand, a traceback for one that we do not."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(usage_line(error), err=True)
        sys.exit(error.exit_code)
    except BaseException as error:
        cause = first_error(error)
        if isinstance(cause, KeyboardInterrupt):
            sys.exit(130)
        if isinstance(cause, SystemExit):
            raise cause from None
        if not isinstance(cause, CyxError):
            raise
        click.echo(one_line(cause), err=True)
        sys.exit(cause.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
