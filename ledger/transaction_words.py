"""What a transaction did, in words, as the owner of one wallet sees it.

Instructions are told apart by their program and first byte, roles by their place among the accounts, which is that of
`program/layout.h`. Only what stands at the top level of a transaction is told; the balances say the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from solders.compute_budget import ID as COMPUTE_BUDGET_PROGRAM

from ..protocol.chain import Verdict
from ..protocol.hashing import job_id
from ..protocol.units import JobId, NodeId, base58, format_cyx, format_sol
from . import escrow_instructions as jobs
from . import node_instructions as nodes
from .addresses import MEMO_PROGRAM
from .escrow_layout import ASSOCIATED_TOKEN_PROGRAM, ED25519_PRECOMPILE, ERRORS, SYSTEM_PROGRAM, TOKEN_PROGRAM
from .past_transaction import PastInstruction, PastTransaction
from .token import MINT_TO, TRANSFER, TRANSFER_CHECKED
from .transaction import error_text, instruction_error

_SILENT = {bytes(program) for program in (COMPUTE_BUDGET_PROGRAM, ED25519_PRECOMPILE, MEMO_PROGRAM)}
_REGISTER, _OPEN_JOB = struct.Struct("<B7xQ"), struct.Struct("<B7xQ16x32s32s")
_SETTLE = struct.Struct("<BB2xIQ32s")
_SYSTEM_TRANSFER, _TRANSFER_LAMPORTS = struct.Struct("<IQ"), 2
_TOKEN_AMOUNT = struct.Struct("<BQ")


@dataclass(frozen=True, slots=True)
class View:
    """Whose words: a wallet, the mint of CYX, the escrow program, the wallet's Node account; job ids by Job account."""

    wallet: bytes
    mint: bytes
    program: bytes
    node: bytes
    job_ids: dict[bytes, JobId] = field(default_factory=dict)

    def job(self, account: bytes) -> str:
        """A job by its id, or by its account where the id is not known."""
        known = self.job_ids.get(account)
        return f"job {base58(known)}" if known else f"the job at {base58(account)}"

    def name(self, address: bytes) -> str:
        """An address, or 'this wallet'."""
        return "this wallet" if address == self.wallet else base58(address)


def words(view: View, past: PastTransaction) -> list[str]:
    """A line for each instruction that did something worth telling; of a failed transaction what it tried to do."""
    lines = []
    for one in past.instructions:
        try:
            line = _line(view, past, one)
        except struct.error:
            line = f"called program {base58(one.program)} with too little data"
        if line:
            lines.append(line)
    return lines


def failure(view: View, past: PastTransaction) -> str:
    """Why a transaction failed; empty when it succeeded."""
    if past.error is None:
        return ""
    found = instruction_error(past.error)
    if found is not None and 0 <= found[0] < len(past.instructions):
        index, code = found
        if past.instructions[index].program == view.program and code in ERRORS:
            return ERRORS[code]
    return error_text(past.error)


def opened_job(view: View, one: PastInstruction) -> tuple[bytes, JobId] | None:
    """(Job account, job id) when the instruction opens a job."""
    if one.program != view.program or one.data[:1] != bytes([jobs.OPEN_JOB]):
        return None
    if len(one.data) < _OPEN_JOB.size or len(one.accounts) < 3:
        return None
    _, _, nonce, spec_hash = _OPEN_JOB.unpack_from(one.data)
    return one.account(2), job_id(NodeId(one.account(0)), nonce, spec_hash)


def job_account(view: View, one: PastInstruction) -> bytes | None:
    """The Job account of an instruction that is about a job and does not name its id."""
    if one.program != view.program or one.data[:1] not in _ABOUT_JOBS:
        return None
    return one.account(0)


def _line(view: View, past: PastTransaction, one: PastInstruction) -> str:
    if one.program == view.program:
        tell = _ESCROW.get(one.data[0]) if one.data else None
        return tell(view, past, one) if tell else "called the escrow program with an instruction of a later version"
    if one.program in _SILENT:
        return ""
    if one.program == bytes(TOKEN_PROGRAM):
        return _token(view, past, one)
    if one.program == bytes(SYSTEM_PROGRAM):
        return _system(view, one)
    if one.program == bytes(ASSOCIATED_TOKEN_PROGRAM):
        before, after = past.lamports.get(one.account(1), (0, 0))
        return f"made the token account of {view.name(one.account(2))}" if not before and after else ""
    return f"called program {base58(one.program)}"


def _moved(view: View, amount: str, source: bytes, target: bytes) -> str:
    if source == view.wallet:
        return f"sent {amount} to {view.name(target)}"
    if target == view.wallet:
        return f"received {amount} from {view.name(source)}"
    return f"{view.name(source)} sent {amount} to {view.name(target)}"


def _token(view: View, past: PastTransaction, one: PastInstruction) -> str:
    tag = one.data[0] if one.data else -1
    if tag not in (TRANSFER, TRANSFER_CHECKED, MINT_TO):
        return "called the token program"
    _, units = _TOKEN_AMOUNT.unpack_from(one.data)
    target = past.tokens.get(one.account({TRANSFER: 1, TRANSFER_CHECKED: 2, MINT_TO: 1}[tag]))
    if target is None:
        return "called the token program"
    amount = f"{format_cyx(units)} CYX" if target.mint == view.mint else f"{units} units of token {base58(target.mint)}"
    if tag == MINT_TO:
        return f"received {amount}, newly minted" if target.owner == view.wallet else f"minted {amount}"
    source = past.tokens.get(one.account(0))
    return _moved(view, amount, source.owner if source else one.account(0), target.owner)


def _system(view: View, one: PastInstruction) -> str:
    if len(one.data) != _SYSTEM_TRANSFER.size or one.data[0] != _TRANSFER_LAMPORTS:
        return "made or changed an account of the System program"
    _, lamports = _SYSTEM_TRANSFER.unpack(one.data)
    return _moved(view, f"{format_sol(lamports)} SOL", one.account(0), one.account(1))


def _initialise(view: View, past: PastTransaction, one: PastInstruction) -> str:
    return "initialised the escrow program"


def _register(view: View, past: PastTransaction, one: PastInstruction) -> str:
    _, stake = _REGISTER.unpack_from(one.data)
    whose = "" if one.account(0) == view.wallet else f" of {base58(one.account(0))}"
    if not past.lamports.get(one.account(2), (0, 0))[0]:
        return f"registered a node{whose} with a stake of {format_cyx(stake)} CYX"
    return f"added {format_cyx(stake)} CYX to the stake{whose}" if stake else f"registered the node{whose} again"


def _open_job(view: View, past: PastTransaction, one: PastInstruction) -> str:
    _, budget, _, _ = _OPEN_JOB.unpack_from(one.data)
    return f"opened {view.job(one.account(2))} with a budget of {format_cyx(budget)} CYX"


def _seat(view: View, past: PastTransaction, one: PastInstruction) -> str:
    if view.node in one.accounts[4:]:
        return f"was drawn for the committee of {view.job(one.account(0))}"
    return f"seated the committee of {view.job(one.account(0))}"


def _settle(view: View, past: PastTransaction, one: PastInstruction) -> str:
    _, number, units, price, worker = _SETTLE.unpack_from(one.data)
    name, job = Verdict(number).name if number in set(Verdict) else f"verdict {number}", view.job(one.account(0))
    if worker != view.wallet:
        return f"settled {job}: {name}"
    if number in (Verdict.OK, Verdict.PARTIAL):
        return f"was paid for {units} units of {job} at {format_cyx(price)} CYX for all: {name}"
    return f"settled {job}: {name} of this node" + (", and its stake slashed" if number == Verdict.FRAUD else "")


def _close(view: View, past: PastTransaction, one: PastInstruction) -> str:
    verb = "closed" if one.data[0] == jobs.CLOSE_JOB else "refunded"
    if one.account(3) == view.wallet:
        return f"{verb} {view.job(one.account(0))}: what was left is back"
    credited = ": a verifier's share was credited to this node" if view.node in one.accounts[7:] else ""
    return f"{verb} {view.job(one.account(0))}{credited}"


def _request_unstake(view: View, past: PastTransaction, one: PastInstruction) -> str:
    return "asked for the stake: the unbonding time began"


def _withdraw(view: View, past: PastTransaction, one: PastInstruction) -> str:
    what = "the stake" if one.data[0] == nodes.WITHDRAW_STAKE else "earned shares"
    vault = past.tokens.get(one.account(2))
    whose = "" if one.account(1) == view.node else " of another node"
    return f"withdrew {what}{whose}" + (f": {format_cyx(vault.before - vault.after)} CYX" if vault else "")


def _slash(view: View, past: PastTransaction, one: PastInstruction) -> str:
    mine = one.account(1) == view.node
    return "this node was slashed and retired for equivocation" if mine else "convicted a node of equivocation"


_ESCROW: dict[int, Callable[[View, PastTransaction, PastInstruction], str]] = {
    nodes.INITIALISE: _initialise,
    nodes.REGISTER: _register,
    jobs.OPEN_JOB: _open_job,
    jobs.SEAT: _seat,
    jobs.SETTLE: _settle,
    jobs.CLOSE_JOB: _close,
    jobs.REFUND_EXPIRED: _close,
    nodes.REQUEST_UNSTAKE: _request_unstake,
    nodes.WITHDRAW_STAKE: _withdraw,
    nodes.WITHDRAW_EARNED: _withdraw,
    nodes.SLASH_EQUIVOCATION: _slash,
}
_ABOUT_JOBS = {bytes([tag]) for tag in (jobs.SEAT, jobs.SETTLE, jobs.CLOSE_JOB, jobs.REFUND_EXPIRED)}
