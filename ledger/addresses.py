"""Addresses of Solana that only deploying and the local chain need, and the fixed keys of the local chain.

The keys of the local chain are derived from public text: its money is play money, its server listens on loopback
alone, and a known program id lets every tool find the escrow program without being told.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from solders.keypair import Keypair
from solders.pubkey import Pubkey

MEMO_PROGRAM: Final = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
LOADER_PROGRAM: Final = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
CLOCK_SYSVAR: Final = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
RENT_SYSVAR: Final = Pubkey.from_string("SysvarRent111111111111111111111111111111111")


def local_keypair(role: str) -> Keypair:
    """The fixed key of a role of the local chain: 'program', 'faucet', 'mint' or 'treasury'."""
    return Keypair.from_seed(sha256(f"cyxnode local {role}".encode()).digest())


LOCAL_PROGRAM_ID: Final[bytes] = bytes(local_keypair("program").pubkey())
LOCAL_MINT: Final[bytes] = bytes(local_keypair("mint").pubkey())
