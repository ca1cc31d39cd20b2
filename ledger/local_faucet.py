"""The faucet of the local chain: SOL by transfer, CYX by minting, as ordinary transactions signed by its fixed key.

It takes a cluster in this process. A memo with the chain's transaction count keeps equal requests apart.
"""

from __future__ import annotations

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from ..protocol.errors import LocalError
from ..protocol.limits import AIRDROP_MAX_LAMPORTS, FAUCET_MAX_MICRO_CYX
from .addresses import LOCAL_MINT, MEMO_PROGRAM
from .cluster import LocalCluster
from .escrow_instructions import create_associated
from .escrow_layout import associated_token_address
from .sender import sign
from .token import mint_to


def airdrop(cluster: LocalCluster, address: bytes, lamports: int) -> str:
    """Give SOL to an address; returns the signature. LocalError beyond AIRDROP_MAX_LAMPORTS."""
    if not 0 < lamports <= AIRDROP_MAX_LAMPORTS:
        raise LocalError(f"{lamports} lamports", field="lamports", fix=f"between 1 and {AIRDROP_MAX_LAMPORTS}")
    faucet = cluster.faucet.pubkey()
    gift = TransferParams(from_pubkey=faucet, to_pubkey=Pubkey.from_bytes(address), lamports=lamports)
    return _send(cluster, [transfer(gift)])


def give_tokens(cluster: LocalCluster, address: bytes, micro_cyx: int) -> str:
    """Mint CYX into an address's associated account, creating it. LocalError beyond FAUCET_MAX_MICRO_CYX."""
    if not 0 < micro_cyx <= FAUCET_MAX_MICRO_CYX:
        raise LocalError(f"{micro_cyx} micro-CYX", field="amount", fix=f"between 1 and {FAUCET_MAX_MICRO_CYX}")
    faucet, owner, mint = cluster.faucet.pubkey(), Pubkey.from_bytes(address), Pubkey.from_bytes(LOCAL_MINT)
    destination = associated_token_address(owner, mint)
    return _send(cluster, [create_associated(faucet, owner, mint), mint_to(mint, destination, faucet, micro_cyx)])


def _send(cluster: LocalCluster, instructions: list[Instruction]) -> str:
    memo = Instruction(MEMO_PROGRAM, f"faucet {cluster.transaction_count}".encode(), [])
    blockhash, _ = cluster.latest_blockhash()
    return cluster.send(sign([*instructions, memo], [cluster.faucet], blockhash))
