"""Sign, send, confirm: one instruction list becomes at most one transaction that lands.

The same signed bytes are sent again for as long as they can land. New bytes are signed only when the old blockhash
has expired *and* the old signature has no status, asked in this order: only then is it certain that they never land.
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
    CONFIRM_POLL_S,
    CONFIRM_TIMEOUT_S,
    RESEND_POLLS,
    SUBMIT_ATTEMPTS_MAX,
    TRANSACTION_MAX_BYTES,
)
from .rpc import Rpc, TransactionFault, TransactionStatus


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
    """Land one transaction; returns its signature.

    Raises TransactionFault when it was executed, or simulated, and failed; ChainUnreachable when the cluster gave no
    answer for CONFIRM_TIMEOUT_S (it may or may not have landed) or let SUBMIT_ATTEMPTS_MAX blockhashes expire.
    """
    try:
        with trio.fail_after(CONFIRM_TIMEOUT_S):
            for _ in range(SUBMIT_ATTEMPTS_MAX):
                blockhash = await rpc.latest_blockhash()
                raw = sign(instructions, signers, blockhash)
                signature = signature_of(raw)
                status = await _land(rpc, raw, signature, blockhash)
                if status is None:
                    continue
                if status.error is not None:
                    raise TransactionFault(status.error)
                return signature
    except trio.TooSlowError:
        raise ChainUnreachable(f"the transaction was not confirmed within {CONFIRM_TIMEOUT_S:.0f} s") from None
    raise ChainUnreachable(f"{SUBMIT_ATTEMPTS_MAX} blockhashes expired before the transaction landed")


async def _land(rpc: Rpc, raw: bytes, signature: str, blockhash: bytes) -> TransactionStatus | None:
    """Send `raw` until it has a status, or None once it can never have one. An answer that got lost is asked again."""
    while True:
        try:
            polls = RESEND_POLLS if await _offer(rpc, raw) else 1
            for _ in range(polls):
                status = await rpc.status(signature)
                if status is not None:
                    return status
                await trio.sleep(CONFIRM_POLL_S)
            if not await rpc.blockhash_valid(blockhash):
                return await rpc.status(signature)
        except ChainUnreachable:
            await trio.sleep(CONFIRM_POLL_S)


async def _offer(rpc: Rpc, raw: bytes) -> bool:
    """Whether the cluster has taken the transaction, now or before; False when it does not know the blockhash."""
    try:
        await rpc.send(raw)
    except TransactionFault as fault:
        if fault.error == "BlockhashNotFound":
            return False
        if fault.error != "AlreadyProcessed":
            raise
    return True
