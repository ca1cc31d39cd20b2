"""The options of every command that opens a chain: how transactions are confirmed, and what haste may cost.

They are kept in click's context instead of being handed through each command, and read by `send_policy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..ledger.send_policy import SendPolicy
from ..protocol.errors import LocalError
from ..protocol.limits import LAMPORTS_PER_SOL, PRIORITY_FEE_MAX_LAMPORTS
from ..protocol.units import format_sol, parse_sol

PRIORITY_FEE_LIMIT_SOL = 1
_COMMITMENT, _PRIORITY_FEE = "cyxnode.commitment", "cyxnode.priority_fee_max_lamports"


def paying_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--commitment, --priority-fee-max"""
    for option in (
        click.option(
            "--commitment",
            type=click.Choice(["confirmed", "finalized"]),
            default="confirmed",
            envvar="CYXNODE_COMMITMENT",
            show_default=True,
            expose_value=False,
            callback=_keep_commitment,
            help="How firmly a transaction must stand before it counts.",
        ),
        click.option(
            "--priority-fee-max",
            default=format_sol(PRIORITY_FEE_MAX_LAMPORTS).rstrip("0"),
            envvar="CYXNODE_PRIORITY_FEE_MAX",
            show_default=True,
            expose_value=False,
            callback=_keep_priority_fee,
            help="SOL that one transaction may offer for haste where others do; 0 never offers any.",
        ),
    ):
        command = option(command)
    return command


def send_policy() -> SendPolicy:
    """What the options of the running command say; the defaults outside of one."""
    context = click.get_current_context(silent=True)
    meta = context.meta if context else {}
    return SendPolicy(
        commitment=meta.get(_COMMITMENT, "confirmed"),
        priority_fee_max_lamports=meta.get(_PRIORITY_FEE, PRIORITY_FEE_MAX_LAMPORTS),
    )


def _keep_commitment(context: click.Context, _: click.Parameter, value: str) -> None:
    context.meta[_COMMITMENT] = value


def _keep_priority_fee(context: click.Context, _: click.Parameter, value: str) -> None:
    lamports = parse_sol(value, field="priority-fee-max")
    if lamports > PRIORITY_FEE_LIMIT_SOL * LAMPORTS_PER_SOL:
        fix = f"at most {PRIORITY_FEE_LIMIT_SOL} SOL: the fee comes on top of every transaction"
        raise LocalError(f"{value} SOL", field="priority-fee-max", fix=fix)
    context.meta[_PRIORITY_FEE] = lamports
