"""Who plays: wallets by name, and what each instruction is called."""

from __future__ import annotations

from hashlib import sha256

from solders.keypair import Keypair

from svm_world import key, node_id

REQUESTERS = ("r0", "r1", "r2", "poor")
SUBMITTERS = ("s0", "s1")
NODES = tuple(f"n{i}" for i in range(40))
KEYS: dict[bytes, Keypair] = {node_id(key(name)): key(name) for name in (*REQUESTERS, *SUBMITTERS, *NODES, "admin")}
CLASSES = (sha256(b"class").digest(), sha256(b"other class").digest())
TREASURY = node_id(key("treasury"))
TAGS = ("initialise", "register", "open_job", "seat", "settle", "close_job", "refund_expired", "request_unstake",
        "withdraw_stake", "withdraw_earned", "slash_equivocation")  # fmt: skip


def wallet_of_payout(node: bytes) -> bytes:
    """Where a node is paid, unless it says otherwise."""
    return sha256(b"payout" + node).digest()
