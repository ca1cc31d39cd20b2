"""Play money and transfers, through the RPC seam: what `cyxnode chain airdrop` and `cyxnode wallet send` call."""

from __future__ import annotations

import trio
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from ..protocol.errors import ChainRejected, ChainUnreachable
from ..protocol.identity import KeyPair
from ..protocol.limits import CONFIRM_POLL_S, CONFIRM_TIMEOUT_S
from .addresses import MEMO_PROGRAM
from .escrow_instructions import create_associated
from .escrow_layout import associated_token_address
from .rpc import FaucetRpc, Rpc
from .sender import send_and_confirm
from .token import transfer_tokens as transfer_instruction
from .transaction import error_text


async def request_airdrop(rpc: FaucetRpc, address: bytes, lamports: int) -> str:
    """SOL from the faucet, confirmed; returns the signature."""
    return await _confirmed(rpc, await rpc.request_airdrop(address, lamports))


async def request_tokens(rpc: FaucetRpc, address: bytes, micro_cyx: int) -> str:
    """CYX from the local chain's faucet, confirmed; returns the signature."""
    return await _confirmed(rpc, await rpc.request_tokens(address, micro_cyx))


async def transfer_tokens(rpc: Rpc, key: KeyPair, mint: bytes, to: bytes, micro_cyx: int, *, reference: str) -> str:
    """Send CYX, creating the receiver's account. `reference` is a memo that keeps equal payments apart."""
    signer, token = Keypair.from_seed(key.seed), Pubkey.from_bytes(mint)
    payer, receiver = signer.pubkey(), Pubkey.from_bytes(to)
    source, destination = (associated_token_address(owner, token) for owner in (payer, receiver))
    instructions = [
        create_associated(payer, receiver, token),
        transfer_instruction(source, token, destination, payer, micro_cyx),
        _memo(reference),
    ]
    return await send_and_confirm(rpc, instructions, [signer])


async def transfer_lamports(rpc: Rpc, key: KeyPair, to: bytes, lamports: int, *, reference: str) -> str:
    """Send SOL. `reference` is a memo that keeps equal payments apart."""
    signer = Keypair.from_seed(key.seed)
    gift = TransferParams(from_pubkey=signer.pubkey(), to_pubkey=Pubkey.from_bytes(to), lamports=lamports)
    return await send_and_confirm(rpc, [transfer(gift), _memo(reference)], [signer])


def _memo(reference: str) -> Instruction:
    return Instruction(MEMO_PROGRAM, reference.encode(), [])


async def _confirmed(rpc: Rpc, signature: str) -> str:
    with trio.move_on_after(CONFIRM_TIMEOUT_S):
        while (status := await rpc.status(signature)) is None or not rpc.policy.reached(status.level):  # noqa: ASYNC110
            await trio.sleep(CONFIRM_POLL_S)  # a remote cluster has no event
        if status.error is not None:
            raise ChainRejected(error_text(status.error))
        return signature
    raise ChainUnreachable(f"the faucet's transaction was not confirmed within {CONFIRM_TIMEOUT_S:.0f} s")
