"""A local chain and wallets for the tests of `ledger`, all from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.sender import sign

START_S = 1_800_000_000
SOL = 10**9


def entropy(seed: int = 1) -> Callable[[int], bytes]:
    """Seeded bytes."""
    return random.Random(seed).randbytes


def make_cluster(path: Path | None = None, *, seed: int = 1) -> LocalCluster:
    """A chain at START_S."""
    return LocalCluster(entropy(seed), now_unix_s=START_S, path=path)


def wallet(name: str) -> Keypair:
    """A key of its own for each name."""
    return Keypair.from_seed(sha256(name.encode()).digest())


def payment(cluster: LocalCluster, to: Pubkey, lamports: int, *, blockhash: bytes | None = None) -> bytes:
    """A signed transfer from the faucet, on the latest blockhash unless told otherwise."""
    faucet = cluster.faucet
    gift = TransferParams(from_pubkey=faucet.pubkey(), to_pubkey=to, lamports=lamports)
    return sign([transfer(gift)], [faucet], blockhash or cluster.latest_blockhash()[0])


def lamports_of(cluster: LocalCluster, address: Pubkey) -> int:
    """0 where there is no account."""
    account = cluster.account(bytes(address))
    return account.lamports if account else 0
