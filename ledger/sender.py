"""Sign, send, confirm: one instruction list becomes at most one transaction that lands.

The same signed bytes are sent again for as long as they can land. New bytes are signed only when the old blockhash
has expired *and* the old signature has no status, asked in this order and of a server that has seen the slot of the
expiry: only then is it certain that they never land, also when several servers stand behind one URL.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import VersionedTransaction

from ..protocol.errors import ChainUnreachable, LocalError
from ..protocol.limits import (
    CHAIN_RETRY_MAX_S,
    CONFIRM_POLL_MAX_S,
    CONFIRM_POLL_S,
    CONFIRM_TIMEOUT_S,
    RESEND_POLLS,
    SUBMIT_ATTEMPTS_MAX,
    TRANSACTION_MAX_BYTES,
)
from .compute_budget import going_price, priced, without_budget
from .rpc import Blockhash, Rpc, TransactionFault, TransactionStatus

LAMPORTS_PER_SIGNATURE = 5_000
"""The base fee of Solana."""


def sign(instructions: Sequence[Instruction], signers: Sequence[Keypair], blockhash: bytes) -> bytes:
    """A signed legacy transaction, paid by the first signer. LocalError when it exceeds TRANSACTION_MAX_BYTES."""
    message = Message.new_with_blockhash(list(instructions), signers[0].pubkey(), Hash(blockhash))
    raw = bytes(VersionedTransaction(message, list(signers)))
    if len(raw) > TRANSACTION_MAX_BYTES:
        raise LocalError(f"needs {len(raw)} bytes of {TRANSACTION_MAX_BYTES}", field="transaction")
    return raw


def signature_of(raw: bytes) -> str:
    """The first signature of a signed transaction, base58: its name on the chain."""
    return str(VersionedTransaction.from_bytes(raw).signatures[0])


async def send_and_confirm(rpc: Rpc, instructions: Sequence[Instruction], signers: Sequence[Keypair]) -> str:
    """Land one transaction, as firmly as the policy of `rpc` demands; returns its signature.

    Raises TransactionFault when it was executed, or simulated, and failed; ChainUnreachable when the cluster gave no
    answer for CONFIRM_TIMEOUT_S (it may or may not have landed) or let SUBMIT_ATTEMPTS_MAX blockhashes expire.
    """
    signature = ""
    try:
        with trio.fail_after(CONFIRM_TIMEOUT_S):
            for _ in range(SUBMIT_ATTEMPTS_MAX):
                blockhash = await rpc.latest_blockhash()
                raw, budgeted = await _priced(rpc, instructions, signers, blockhash)
                signature = signature_of(raw)
                status = await _land(rpc, raw, signature, blockhash, budgeted)
                if status is None:
                    continue
                if status.error is not None:
                    raise TransactionFault(without_budget(status.error, budgeted))
                return signature
    except trio.TooSlowError:
        text = f"the transaction {signature} was not confirmed within {CONFIRM_TIMEOUT_S:.0f} s"
        raise ChainUnreachable(f"{text}; it may still land: look it up before you pay again") from None
    raise ChainUnreachable(f"{SUBMIT_ATTEMPTS_MAX} blockhashes expired before the transaction landed")


async def _priced(
    rpc: Rpc, instructions: Sequence[Instruction], signers: Sequence[Keypair], blockhash: Blockhash
) -> tuple[bytes, int]:
    """The signed transaction, and how many instructions of the compute budget stand before the wished ones."""
    plain = sign(instructions, signers, blockhash.value)
    price = await going_price(rpc, instructions)
    if not price:
        return plain, 0
    simulation = await rpc.simulate(plain)
    if simulation.error is not None:
        return plain, 0  # the preflight will say what is wrong, if it still is
    budget = priced(simulation.units, price, rpc.policy.priority_fee_max_lamports)
    try:
        return sign([*budget, *instructions], signers, blockhash.value), len(budget)
    except LocalError:
        return plain, 0  # a large settlement has no room for haste


async def _land(rpc: Rpc, raw: bytes, signature: str, blockhash: Blockhash, budgeted: int) -> TransactionStatus | None:
    """Send `raw` until it has a firm status, or None once it can never have one. Lost answers are asked for again.

    A transaction that has landed, only not firmly yet, is never given up for a second one. A fault of the first offer
    is raised at once; one of a later offer only when it is certain that none of the earlier ones lands.
    """
    retry_s, offers, fault = CONFIRM_POLL_S, 0, None
    while True:
        try:
            offers += 1
            try:
                polls = RESEND_POLLS if await _offer(rpc, raw, blockhash.slot) else 1
            except TransactionFault as refused:
                fault = TransactionFault(without_budget(refused.error, budgeted), logs=refused.logs)
                if offers == 1:
                    raise fault from refused
                polls = RESEND_POLLS
            status = await _watch(rpc, signature, polls)
            if status is not None:
                return status
            expired = await rpc.blockhash_expired(blockhash)
            if expired is not None:
                status = await rpc.status(signature, since_slot=expired)
                if status is None and fault is not None:
                    raise fault
                if status is None or rpc.policy.reached(status.level):
                    return status
            retry_s = CONFIRM_POLL_S
        except ChainUnreachable:
            await trio.sleep(retry_s)
            retry_s = min(2 * retry_s, CHAIN_RETRY_MAX_S)


async def _watch(rpc: Rpc, signature: str, polls: int) -> TransactionStatus | None:
    """The firm status of a transaction, looked for `polls` times."""
    pause_s = CONFIRM_POLL_S
    for _ in range(polls):
        status = await rpc.status(signature)
        if status is not None and rpc.policy.reached(status.level):
            return status
        await trio.sleep(pause_s)
        pause_s = min(1.25 * pause_s, CONFIRM_POLL_MAX_S)
    return None


async def _offer(rpc: Rpc, raw: bytes, since_slot: int) -> bool:
    """Whether the cluster has taken the transaction, now or before; False when it does not know the blockhash."""
    try:
        await rpc.send(raw, since_slot=since_slot)
    except TransactionFault as fault:
        if fault.error == "BlockhashNotFound":
            return False
        if fault.error != "AlreadyProcessed":
            raise
    return True
