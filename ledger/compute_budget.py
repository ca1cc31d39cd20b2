"""Priority fees: instructions that ask for less computation than the default, and offer a price for it.

The price follows what landed lately on the same accounts and never exceeds the policy's cap; the limit follows a
simulation of the very transaction. Where nobody pays for haste, nothing is added.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from ..protocol.errors import ChainRejected
from ..protocol.limits import COMPUTE_UNITS_MARGIN_PERCENT, COMPUTE_UNITS_MAX, PRIORITY_FEE_ACCOUNTS_MAX
from .rpc import Rpc

COMPUTE_BUDGET_PROGRAM = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
BUDGET_UNITS = 300
"""What two instructions of the compute-budget program cost themselves."""
_SET_UNIT_LIMIT, _SET_UNIT_PRICE = 2, 3
_MICRO = 1_000_000


def set_budget(units: int, price: int) -> list[Instruction]:
    """Limit in compute units, price in micro-lamports for each of them."""
    return [
        Instruction(COMPUTE_BUDGET_PROGRAM, struct.pack("<BI", _SET_UNIT_LIMIT, units), []),
        Instruction(COMPUTE_BUDGET_PROGRAM, struct.pack("<BQ", _SET_UNIT_PRICE, price), []),
    ]


async def going_price(rpc: Rpc, instructions: Sequence[Instruction]) -> int:
    """Micro-lamports a unit that three quarters of the recent slots were below, on the accounts that are written.

    0 where the policy allows no priority fee, where nobody pays one, or where the cluster does not say.
    """
    if rpc.policy.priority_fee_max_lamports == 0:
        return 0
    written = {bytes(meta.pubkey) for one in instructions for meta in one.accounts if meta.is_writable}
    try:
        fees = sorted(await rpc.prioritization_fees(sorted(written)[:PRIORITY_FEE_ACCOUNTS_MAX]))
    except ChainRejected:
        return 0
    return fees[len(fees) * 3 // 4] if fees else 0


def priced(units: int, price: int, fee_max_lamports: int) -> list[Instruction]:
    """The budget for a transaction that took `units` in simulation, its fee within `fee_max_lamports`."""
    limit = min(COMPUTE_UNITS_MAX, units * COMPUTE_UNITS_MARGIN_PERCENT // 100 + BUDGET_UNITS)
    return set_budget(limit, min(price, fee_max_lamports * _MICRO // limit))


def without_budget(error: Any, count: int) -> Any:
    """Solana's error with the index of an instruction as if the first `count` had not been there."""
    if not count or not isinstance(error, dict) or not isinstance(error.get("InstructionError"), list):
        return error
    index, detail = error["InstructionError"]
    return {"InstructionError": [index - count, detail]}
