"""Each invariant can fail: a world is broken by hand, and the auditor says which law it broke."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from solders.account import Account
from solders.pubkey import Pubkey

from cyxnode.ledger.addresses import LOCAL_MINT
from cyxnode.ledger.escrow_layout import associated_token_address
from cyxnode.protocol.chain import JobAccount, JobState, NodeAccount, Verdict
from cyxnode.protocol.limits import JOBS_OPEN_MAX, JOBS_REFUSED_MAX
from cyxnode.protocol.units import JobId, MicroCyx, NodeId
from cyxnode.simulation.desk import JobRecord
from cyxnode.simulation.invariants import DEATH_PATIENCE_S, Auditor, is_dead
from cyxnode.simulation.judge import REFUND_PATIENCE_S, Judge
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.run import run_plan
from cyxnode.simulation.world import NODE_MICRO_CYX, Peer, World, open_world

MEMBERS = tuple(NodeId(bytes([n]) * 32) for n in (1, 2, 3))
WORKER, REQUESTER = NodeId(b"w" * 32), NodeId(b"r" * 32)


@asynccontextmanager
async def small_world(peers: int = 0) -> AsyncIterator[tuple[World, Auditor]]:
    """A world with a few living nodes of one class."""
    async with open_world(Plan(seed=1, peers=peers)) as world:
        for number in range(peers):
            peer = world.new_peer(f"peer{number}", micro_cyx=NODE_MICRO_CYX)
            world.peers.append(peer)
            await world.start(peer)
        yield world, Auditor(world)


def job(**changes: Any) -> JobAccount:
    """A job that was paid as it should be."""
    account = JobAccount(
        job=JobId(b"j" * 32), requester=REQUESTER, budget=MicroCyx(100), spec_hash=bytes(32), execution_class=bytes(32),
        fee_bps=1000, verifier_share_bps=5000, k=3, m=2, open_slot=1, committee=MEMBERS, work_deadline_s=2_000_000_000,
        refund_at_s=2_000_000_100, units_total=10, units_paid=10, settlements=1, state=JobState.SETTLED,
        verdict=Verdict.OK, worker=WORKER, paid=MicroCyx(80), result_hash=bytes(32), fee_mask=0b011,
        shares=(), slashed=MicroCyx(0),
    )  # fmt: skip
    return replace(account, **changes)


def node(peer: Peer, stake: int, slashed: int = 0) -> NodeAccount:
    return NodeAccount(
        node=peer.node_id, execution_class=bytes(32), active_since_slot=1, payout=bytes(32), stake=MicroCyx(stake),
        earned=MicroCyx(0), fees_generated=MicroCyx(0), jobs_ok=0, failures=0, slashed=MicroCyx(slashed),
        unbonding_at_s=0,
    )  # fmt: skip


def broken(auditor: Auditor) -> list[int]:
    return [violation.number for violation in auditor.judge.violations]


async def test_1_tokens_out_of_nowhere(autojump_clock: object) -> None:
    async with small_world(1) as (world, auditor):
        auditor.audit()
        assert broken(auditor) == []
        owner, mint = Pubkey.from_bytes(world.peers[0].node_id), Pubkey.from_bytes(LOCAL_MINT)
        address = associated_token_address(owner, mint)
        account = world.cluster.account(bytes(address))
        assert account is not None
        (amount,) = struct.unpack_from("<Q", account.data, 64)
        data = account.data[:64] + struct.pack("<Q", amount + 1) + account.data[72:]
        world.cluster._svm.set_account(address, Account(account.lamports, data, account.owner))
        auditor.audit()
    assert broken(auditor) == [1]


async def test_4_an_honest_node_loses_its_stake(autojump_clock: object) -> None:
    async with small_world(2) as (world, auditor):
        honest, cheater = world.peers
        cheater.cheat = "lazy"
        for peer in (honest, cheater):
            auditor.judge.check_node(node(peer, 100))
            auditor.judge.check_node(node(peer, 40, slashed=60))
    assert [v.text for v in auditor.judge.violations] == ["peer0 was slashed by 60", "peer0 lost 60 of its stake"]
    assert broken(auditor) == [4, 4]


async def test_5_a_job_without_an_end(autojump_clock: object) -> None:
    async with small_world() as (world, auditor):
        requester = world.new_peer("requester", micro_cyx=0)
        world.requesters.append(requester)
        late = world.cluster.unix_s - REFUND_PATIENCE_S - 1
        hanging = job(requester=requester.node_id, state=JobState.SEATED, refund_at_s=late, paid=MicroCyx(0))
        auditor.judge.check_job(replace(hanging, refund_at_s=late + 1))
        auditor.judge.check_job(replace(hanging, job=JobId(b"k" * 32), requester=REQUESTER))
        assert broken(auditor) == []
        auditor.judge.check_job(hanging)
        auditor.final([JobRecord(7, "requester", 0.0)])
    assert broken(auditor) == [5, 5]


async def test_7_a_queue_without_a_bound(autojump_clock: object) -> None:
    async with small_world(1) as (world, auditor):
        living = world.peers[0].node
        assert living is not None
        auditor.check_nodes()
        assert broken(auditor) == []
        refused = living.market.rooms._refused
        refused.update((JobId(number.to_bytes(32, "little")), None) for number in range(JOBS_REFUSED_MAX + 1))
        auditor.check_nodes()
        refused.clear()
        living.market.rooms.by_job = dict.fromkeys(range(JOBS_OPEN_MAX + 1), _Empty())  # type: ignore[arg-type]
        auditor.check_nodes()
    assert [v.text.split(" ", 3)[3] for v in auditor.judge.violations] == [
        f"refused jobs, {JOBS_REFUSED_MAX} are allowed",
        f"rooms, {JOBS_OPEN_MAX} are allowed",
    ]
    assert broken(auditor) == [7, 7]


class _Empty:
    """A room with nothing in it."""

    class auction:
        state = None
        _early: tuple[()] = ()
        _early_certificates: tuple[()] = ()


@pytest.mark.slow
async def test_8_the_dead_speak_and_are_believed(autojump_clock: object) -> None:
    async with small_world(3) as (world, auditor):
        one, other, _ = world.peers
        await trio.sleep(40)
        assert one.node is not None
        minds = one.node.presence.state
        assert other.node_id in one.node.presence.alive()
        world.kill(other)
        assert is_dead(other)
        auditor.check_nodes()
        await trio.sleep(DEATH_PATIENCE_S + 1)
        auditor.check_nodes()
        assert broken(auditor) == []
        one.node.presence.state = minds
        auditor.check_nodes()
        world.network.traffic("gossip", other.node_id, one.node_id, "cyx/1/presence/0", b"boo")
        assert broken(auditor) == [8, 8]
        await world.start(other)
        assert not is_dead(other)
        await trio.sleep(20)
    assert broken(auditor) == [8, 8]


@pytest.mark.slow
def test_a_paid_job_shows_its_quorum_and_gives_back_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    payments: list[tuple[JobAccount, set[bytes]]] = []
    refunds: list[JobAccount] = []
    monkeypatch.setattr(Judge, "check_payment", lambda self, account, keys: payments.append((account, keys)))
    monkeypatch.setattr(Judge, "check_refund", lambda self, account, back: refunds.append(account))
    run = run_plan(Plan(seed=1, peers=6, minutes=0.5, jobs=2, requesters=1))
    assert run.violations == []
    assert len(payments) == len(refunds) == 2
    for account, keys in payments:
        assert len(keys & set(account.committee)) >= account.m
