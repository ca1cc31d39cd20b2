"""A transaction on the model: `execute` gives the next ledger, or the `Refusal` after which nothing has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from . import jobs, nodes
from .ledger import (
    TOKEN,
    TOKEN_BYTES,
    Account,
    Call,
    CloseToken,
    CreateToken,
    Donate,
    Ledger,
    Meta,
    Refusal,
    Refused,
    Statements,
    Step,
    Token,
    Transfer,
    Work,
    associated,
    rent,
    require,
)

ACCOUNTS_MAX = 20
INSTRUCTIONS: tuple[Callable[[Work], None], ...] = (
    nodes.initialise, nodes.register, jobs.open_job, jobs.seat, jobs.settle, jobs.close_job, jobs.refund_expired,
    nodes.request_unstake, nodes.withdraw_stake, nodes.withdraw_earned, nodes.slash_equivocation,
)  # fmt: skip


def _escrow(work: Work) -> None:
    """The escrow program's own instructions."""
    require(len(work.metas) <= ACCOUNTS_MAX, 102)
    require(work.data, 101)
    require(work.data[0] < len(INSTRUCTIONS), 100)
    INSTRUCTIONS[work.data[0]](work)


def _other(work: Work, step: Step) -> None:
    """What the other programs do; only what a test sends them."""
    match step:
        case Statements():
            require(all(entry.valid for entry in step.entries), 2)
        case Transfer():
            work.move_lamports(step.source, step.to, step.lamports)
        case Donate():
            work.move_tokens(associated(step.source, work.ledger.mint), step.to, step.amount)
        case CreateToken():
            address = associated(step.wallet, work.ledger.mint)
            if address not in work.accounts:
                work.put(address, Account(rent(TOKEN_BYTES), TOKEN, Token(work.ledger.mint, step.wallet, 0)))
        case CloseToken():
            address = associated(step.wallet, work.ledger.mint)
            require(work.ledger.tokens_at(address) == 0, 11)
            work.move_lamports(address, step.wallet, work.accounts[address].lamports)


def with_flags_of_all(steps: Sequence[Step], payer: bytes) -> list[Step]:
    """A transaction knows an account's flags once: what one instruction may do with it, all may."""
    signers = {payer} | {m.address for s in steps if isinstance(s, Call) for m in s.metas if m.signer}
    writable = {payer} | {m.address for s in steps if isinstance(s, Call) for m in s.metas if m.writable}
    for step in steps:
        if isinstance(step, Transfer):
            signers.add(step.source)
            writable |= {step.source, step.to}
        elif isinstance(step, Donate):
            signers.add(step.source)
            writable.add(step.to)
        elif isinstance(step, CloseToken):
            signers.add(step.wallet)
            writable.add(step.wallet)
    return [
        replace(s, metas=tuple(Meta(m.address, m.address in signers, m.address in writable) for m in s.metas))
        if isinstance(s, Call)
        else s
        for s in steps
    ]


def execute(ledger: Ledger, steps: Sequence[Step]) -> Ledger | Refusal:
    """One transaction: all of its instructions, or none. Fees, which its payer bears, are not looked at."""
    associated_writes = {associated(s.wallet, ledger.mint) for s in steps if isinstance(s, CreateToken | CloseToken)}
    associated_writes |= {associated(s.source, ledger.mint) for s in steps if isinstance(s, Donate)}
    for index, step in enumerate(with_flags_of_all(steps, ledger.payer)):
        metas = step.metas if isinstance(step, Call) else ()
        metas = tuple(replace(m, writable=True) if m.address in associated_writes else m for m in metas)
        work = Work(ledger, metas, step.data if isinstance(step, Call) else b"", steps[index - 1] if index else None)
        try:
            if isinstance(step, Call):
                _escrow(work)
            else:
                _other(work, step)
        except Refused as refused:
            return Refusal(index, refused.code)
        ledger = replace(ledger, accounts=work.accounts)
    return ledger
