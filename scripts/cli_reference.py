"""Writes the command reference from the commands themselves: usage, options, defaults, environment, exit codes."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cyxnode.cli.doctor import DOCTOR_FOUND_FAILURES
from cyxnode.cli.main import JOB_WITHOUT_RESULT, cli
from cyxnode.cli.metrics import METRICS
from cyxnode.protocol import errors

EXIT_CODES = (
    (0, "done; for a job: it ended OK and the result is here"),
    (errors.CyxError.exit_code, "another failure, for example a child process of the demo that did not start"),
    (errors.LocalError.exit_code, "bad input or set-up: the line names the field and the fix"),
    (errors.RemoteError.exit_code, "a peer broke the protocol"),
    (errors.TransientError.exit_code, "the network or the chain did not answer; try again"),
    (errors.ChainRejected.exit_code, "the chain executed a transaction and rejected it"),
    (errors.ExecutionFailed.exit_code, "the computation failed"),
    (JOB_WITHOUT_RESULT, "the job ended without a result: unsold, failed, expired, or its result cannot be had"),
    (8, "a simulation violated an invariant"),
    (DOCTOR_FOUND_FAILURES, "`doctor` found what would keep a node from working"),
    (130, "interrupted (`chain run`, `bootstrap run` and `run` end with 0: being stopped is how they end)"),
)


def commands(command: click.Command = cli, path: str = "cyxnode") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name, in the order of the help."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command, info_name=path)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, f"{path} {name}")


def options_table(command: click.Command, path: str) -> str:
    """Arguments and options, one a line."""
    context = click.Context(command, info_name=path, **command.context_settings)
    lines = ["| option | default | environment | |", "|---|---|---|---|"]
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or {"--help", "--version"} & set(parameter.opts):
            continue
        names = ", ".join(f"`{name}`" for name in parameter.opts)
        value = "" if parameter.is_flag else f" {_value(parameter)}"
        variable = f"`{parameter.envvar}`" if parameter.envvar else ""
        lines.append(f"| {names}{value} | {_default(parameter)} | {variable} | {parameter.help or ''} |")
    return "\n".join(lines) if len(lines) > 2 else "No options."


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "\\|".join(str(choice) for choice in option.type.choices)
    if isinstance(option.type, click.IntRange):
        return f"{option.type.min}–{option.type.max}"
    return option.type.name.upper()


def _default(option: click.Option) -> str:
    if isinstance(option.show_default, str):
        return f"`{option.show_default}`"
    if option.is_flag or option.default in (None, "") or option.multiple or callable(option.default):
        return ""
    return f"`{option.default}`" if isinstance(option.default, str | int) else ""


def command_reference() -> str:
    """All commands."""
    parts = []
    for path, command in commands():
        usage = " ".join([path, *(p.human_readable_name.upper() for p in _arguments(command)), "[OPTIONS]"])
        text = " ".join((command.help or "").split())
        parts.append(f"### `{usage}`\n\n{text}\n\n{options_table(command, path)}")
    shared = f"### Before every command: `cyxnode [OPTIONS] COMMAND`\n\n{options_table(cli, 'cyxnode')}"
    return "\n\n".join([*parts, shared])


def _arguments(command: click.Command) -> list[click.Argument]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Argument)]


def exit_codes() -> str:
    """The table of exit codes."""
    return "\n".join(["| code | means |", "|---|---|", *(f"| {code} | {text} |" for code, text in EXIT_CODES)])


def metrics_table() -> str:
    """Every metric of --metrics."""
    lines = ["| metric | kind | labels | told by | |", "|---|---|---|---|---|"]
    for name, one in METRICS.items():
        labels, who = ", ".join(one.labels), "nodes" if one.who == "node" else "all"
        lines.append(f"| `{name}` | {one.kind} | {labels} | {who} | {one.help} |")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    sys.stdout.write(command_reference() + "\n\n" + exit_codes() + "\n")
