"""What the chain says of a receipt: the parts that no signature in the file can prove (ADR 0004).

The job's account is gone once it is closed, so its transactions are read instead: `open_job` for the terms, `seat` for
the committee that was drawn, `settle` for what was paid. The server is trusted to answer truly; ask another to be sure.
"""

from __future__ import annotations

import struct
from typing import Any

from solders.pubkey import Pubkey

from ..protocol.award import JobTerms
from ..protocol.chain import Settle
from ..protocol.errors import LocalError, RemoteError
from ..protocol.limits import JOB_TRANSACTIONS_MAX
from ..protocol.messages import Outcome
from ..protocol.receipt import open_receipt
from ..protocol.settlement import settlement_of
from ..protocol.units import NodeId
from .chain_client import ChainClient
from .escrow_instructions import OPEN_JOB, OPEN_JOB_LAYOUT, SEAT
from .escrow_layout import job_address, node_address
from .past_transaction import PastInstruction, decode_transaction
from .rpc import HistoryRpc

_COMMITTEE_FROM = 4
"""Accounts of `seat` before the members' Node accounts."""


async def confirm_receipt(rpc: HistoryRpc, receipt: dict[str, Any], reader: ChainClient) -> list[str]:
    """Compare a receipt, which verifies offline, with its chain; returns what was compared, one line each.

    LocalError names the first field that the chain contradicts, or what the server does not remember.
    """
    terms, outcome = open_receipt(receipt)
    if reader.program != terms.announce.program:
        raise LocalError("is another program than --program", field="receipt.network.program", fix="give --program")
    if (await reader.config()).genesis != terms.genesis:
        raise LocalError("is another network than that of --rpc", field="receipt.network.genesis", fix="give its --rpc")
    found = await _instructions(rpc, terms)
    _check_opening(found, terms)
    _check_committee(found, terms)
    landed = await reader.settlements(terms.job)
    _check_settlement(landed, outcome)
    return [
        f"chain: open_job in slot {terms.open_slot} with the announced budget, spec hash, units and deadline",
        f"chain: seat drew these {len(terms.committee)} members",
        f"chain: settle {receipt['status']} with the same worker, price, units and result hash",
    ]


async def _instructions(rpc: HistoryRpc, terms: JobTerms) -> list[tuple[int, PastInstruction]]:
    """All instructions of the program that succeeded for the job, with their slots."""
    account = bytes(job_address(Pubkey.from_bytes(terms.announce.program), terms.job))
    found: list[tuple[int, PastInstruction]] = []
    for listed in await rpc.signatures(account, limit=JOB_TRANSACTIONS_MAX):
        name = str(listed.get("signature", ""))
        answer = await rpc.transaction(name)
        past = decode_transaction(name, answer) if answer is not None else None
        if past is not None and past.error is None:
            found += [(past.slot, one) for one in past.instructions if one.program == terms.announce.program]
    return found


def _one(found: list[tuple[int, PastInstruction]], tag: int, name: str) -> tuple[int, PastInstruction]:
    for slot, one in found:
        if one.data[:1] == bytes([tag]):
            return slot, one
    fix = "ask a server that keeps older transactions"
    raise LocalError(f"the server knows no {name} of this job", field=f"receipt.transactions.{name}", fix=fix)


def _check_opening(found: list[tuple[int, PastInstruction]], terms: JobTerms) -> None:
    slot, opened = _one(found, OPEN_JOB, "open_job")
    try:
        _, k, units, budget, deadline_s, _, nonce, spec_hash, execution_class = struct.unpack(
            OPEN_JOB_LAYOUT, opened.data
        )
    except struct.error as error:
        raise RemoteError(f"open_job cannot be read: {error}") from None
    said = terms.announce
    pairs = {
        "k": (k, said.k),
        "units": (units, said.units),
        "budget": (budget, said.budget),
        "work_deadline_s": (deadline_s, said.work_deadline_s),
        "nonce": (nonce, said.nonce),
        "spec_hash": (spec_hash, said.spec_hash),
        "execution_class": (execution_class, said.execution_class),
    }
    for name, (on_chain, announced) in pairs.items():
        if on_chain != announced:
            raise LocalError(f"{name} is not that of the escrow", field="receipt.evidence.announce")
    if slot != terms.open_slot:
        raise LocalError(f"the job was opened in slot {slot}", field="receipt.open_slot")


def _check_committee(found: list[tuple[int, PastInstruction]], terms: JobTerms) -> None:
    _, seated = _one(found, SEAT, "seat")
    program = Pubkey.from_bytes(terms.announce.program)
    drawn = seated.accounts[_COMMITTEE_FROM:]
    if drawn != tuple(bytes(node_address(program, member)) for member in terms.committee):
        raise LocalError("is not the committee that was drawn on chain", field="receipt.committee")


def _check_settlement(landed: list[Settle], outcome: Outcome) -> None:
    said = settlement_of(outcome)
    if not landed:
        fix = "ask a server that keeps older transactions"
        raise LocalError("the server knows no settlement of this job", field="receipt.transactions.settle", fix=fix)
    last = landed[-1]
    pairs: dict[str, tuple[object, object]] = {
        "status": (last.verdict, said.verdict),
        "worker": (NodeId(last.worker), said.worker),
        "price_micro_cyx": (last.price, said.price),
        "paid": (last.units, said.units),
        "result": (last.result_hash, said.result_hash),
        "verified_by": (last.fee_mask, said.fee_mask),
    }
    for name, (on_chain, signed) in pairs.items():
        if on_chain != signed:
            raise LocalError(f"the chain settled {on_chain!s}, not {signed!s}", field=f"receipt.{name}")
