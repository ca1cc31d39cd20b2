"""A payment over a line that loses, delays and repeats whatever it likes, to servers that are behind: never made twice.

Each seed is one world in virtual time. Copies of a transaction may reach the cluster long after their sender has given
them up; the slots go on; statuses are asked of a server that may not know yet what has landed.
"""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio
from solders.system_program import TransferParams, transfer
from trio.testing import MockClock

from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.rpc import Blockhash, TransactionFault, TransactionStatus
from cyxnode.ledger.sender import send_and_confirm, signature_of
from cyxnode.ledger.transaction import TransactionRefused
from cyxnode.protocol.errors import ChainUnreachable
from cyxnode.protocol.limits import BLOCKHASHES_MAX
from ledger_world import SOL, START_S, lamports_of, make_cluster, wallet

pytestmark = pytest.mark.slow
SEEDS = 40
ALICE = wallet("alice").pubkey()
FAST_SLOT_S = 0.05
"""Slots pass this fast here, so that blockhashes expire within the sender's patience."""
LATE_S = 1.5 * BLOCKHASHES_MAX * FAST_SLOT_S
OUTAGE_MAX_S = 12.0


class FaultyLine(DirectRpc):
    """Two servers behind one URL, reached over a line that `draw` makes lose, delay and repeat."""

    def __init__(self, cluster: LocalCluster, nursery: trio.Nursery, draw: random.Random) -> None:
        super().__init__(cluster)
        self.cluster, self._nursery, self._draw = cluster, nursery, draw
        self._loss = draw.choice([0.0, 0.1, 0.4])
        self._late = draw.choice([0.05, 0.3])
        self._lag_slots = draw.choice([0, 20, 100])
        self._outage_until = trio.current_time() + draw.choice([0.0, OUTAGE_MAX_S])
        self.sent: set[bytes] = set()

    async def _travel(self) -> None:
        await trio.sleep(self._draw.expovariate(20))
        if self._draw.random() < self._loss:
            raise ChainUnreachable("lost")

    def _seen_slot(self) -> int:
        """How far the server that happens to answer is."""
        return self.cluster.slot - self._draw.choice([0, self._lag_slots])

    async def send(self, transaction: bytes, *, since_slot: int = 0) -> str:
        self.sent.add(transaction)
        if self._draw.random() < self._late:
            self._nursery.start_soon(self._deliver_late, transaction)
        await self._travel()
        if self._seen_slot() < since_slot:
            raise ChainUnreachable("behind")
        if trio.current_time() < self._outage_until:
            return signature_of(transaction)  # taken and forwarded, as far as this server knows
        signature = await super().send(transaction)
        await self._travel()
        return signature

    async def _deliver_late(self, transaction: bytes) -> None:
        await trio.sleep(self._draw.uniform(0, LATE_S))
        with suppress(TransactionRefused):
            self.cluster.send(transaction)

    async def blockhash_expired(self, blockhash: Blockhash) -> int | None:
        await self._travel()
        return await super().blockhash_expired(blockhash)

    async def status(self, signature: str, *, since_slot: int = 0) -> TransactionStatus | None:
        await self._travel()
        seen = self._seen_slot()
        if seen < since_slot:
            raise ChainUnreachable("behind")
        found = await super().status(signature)
        return found if found is not None and found.slot <= seen else None


async def fast_slots(cluster: LocalCluster) -> None:
    while True:
        await trio.sleep(FAST_SLOT_S)
        cluster.advance(START_S)


async def pay_once(seed: int) -> tuple[str, int, int]:
    """(What the sender said, payments that arrived in the end, transactions that were signed)."""
    cluster, said = make_cluster(seed=seed), "landed"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fast_slots, cluster)
        line = FaultyLine(cluster, nursery, random.Random(seed))
        gift = TransferParams(from_pubkey=cluster.faucet.pubkey(), to_pubkey=ALICE, lamports=SOL)
        try:
            await send_and_confirm(line, [transfer(gift)], [cluster.faucet])
        except ChainUnreachable:
            said = "unknown"
        except TransactionFault:
            said = "failed"
        await trio.sleep(LATE_S)
        nursery.cancel_scope.cancel()
    return said, lamports_of(cluster, ALICE) // SOL, len(line.sent)


def test_nothing_is_paid_twice_and_what_is_said_to_have_landed_has() -> None:
    outcomes = []
    for seed in range(SEEDS):
        said, payments, signed = trio.run(pay_once, seed, clock=MockClock(autojump_threshold=0))
        assert payments <= 1, f"seed {seed}: paid {payments} times"
        assert said != "failed" and (said != "landed" or payments == 1), f"seed {seed}: {said}, {payments} payments"
        outcomes.append((said, payments, signed))
    assert sum(said == "landed" for said, _, _ in outcomes) > SEEDS // 2
    assert any(signed > 1 for _, _, signed in outcomes), "no seed made a blockhash expire: the worlds are too kind"
