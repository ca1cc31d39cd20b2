"""The options of every command that opens a chain: how transactions are confirmed, and what haste may cost.

They are kept in click's context instead of being handed through each command, and read by `send_policy`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from ..ledger.send_policy import SendPolicy
from ..protocol.errors import LocalError
from ..protocol.limits import PRIORITY_FEE_MAX_LAMPORTS

LAMPORTS_PER_SOL = 10**9
PRIORITY_FEE_LIMIT_SOL = 1
_COMMITMENT, _PRIORITY_FEE = "cyxnode.commitment", "cyxnode.priority_fee_max_lamports"


def format_sol(lamports: int) -> str:
    """'0.0001' for 100,000 lamports."""
    whole, rest = divmod(lamports, LAMPORTS_PER_SOL)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def parse_sol(text: str, *, field: str) -> int:
    """Lamports of an amount in SOL; LocalError when it has a sign, an exponent or more than nine decimals."""
    try:
        lamports = Decimal(text) * LAMPORTS_PER_SOL if text.replace(".", "", 1).isdecimal() else Decimal("NaN")
    except InvalidOperation:
        lamports = Decimal("NaN")
    if lamports.is_nan() or lamports != int(lamports):
        fix = "write it like 0.0001, at most nine decimals"
        raise LocalError(f"{text!r} is not an amount in SOL", field=field, fix=fix)
    return int(lamports)


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
            default=format_sol(PRIORITY_FEE_MAX_LAMPORTS),
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
