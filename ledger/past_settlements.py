"""The settlements of a job that landed, read back from the chain with the signatures that it verified."""

from __future__ import annotations

import struct

from solders.pubkey import Pubkey

from ..protocol.chain import Settle, Verdict
from ..protocol.errors import RemoteError
from ..protocol.limits import JOB_TRANSACTIONS_MAX
from ..protocol.units import JobId, MicroCyx, NodeId
from .escrow_instructions import SETTLE, SETTLE_LAYOUT
from .escrow_layout import ED25519_PRECOMPILE, job_address
from .past_transaction import PastInstruction, decode_transaction
from .precompile import statements_in
from .rpc import HistoryRpc


async def read_settlements(rpc: HistoryRpc, program: bytes, job: JobId) -> list[Settle]:
    """Oldest first. What the server has forgotten is left out; RemoteError when it answers nonsense."""
    account = bytes(job_address(Pubkey.from_bytes(program), job))
    found: list[Settle] = []
    for listed in reversed(await rpc.signatures(account, limit=JOB_TRANSACTIONS_MAX)):
        name = str(listed.get("signature", ""))
        answer = await rpc.transaction(name)
        if answer is None:
            continue
        past = decode_transaction(name, answer)
        pairs = zip(past.instructions, past.instructions[1:], strict=False)
        if past.error is None:
            found += [
                _settlement(job, before, one)
                for before, one in pairs
                if one.program == program and one.data[:1] == bytes([SETTLE]) and one.account(0) == account
            ]
    return found


def _settlement(job: JobId, precompile: PastInstruction, one: PastInstruction) -> Settle:
    if precompile.program != bytes(ED25519_PRECOMPILE):
        raise RemoteError("a settlement stands without its signatures")
    try:
        _, verdict, mask, sequence, units, price, worker, result, round_ = struct.unpack(SETTLE_LAYOUT, one.data)
        known = Verdict(verdict)
    except (struct.error, ValueError) as error:
        raise RemoteError(f"a settlement cannot be read: {error}") from None
    statements = statements_in(precompile.data)
    claims = [said.signature for said in statements if said.signer == worker]
    return Settle(
        job=job, verdict=known, worker=NodeId(worker), price=MicroCyx(price), units=units, result_hash=result,
        fee_mask=mask, sequence=sequence, round=round_,
        signatures=tuple((NodeId(said.signer), said.signature) for said in statements if said.signer != worker),
        claim_signature=claims[0] if claims else b"",
    )  # fmt: skip
