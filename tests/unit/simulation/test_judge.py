"""Each law of accounts can be seen broken, whoever read them: the judge is shown what is right, then what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import Transaction

from cyxnode.ledger.addresses import LOCAL_MINT
from cyxnode.ledger.history import TokenBalance, TransactionRecord
from cyxnode.ledger.precompile import Statement, ed25519
from cyxnode.protocol.chain import JobAccount, JobState, NodeAccount, Verdict
from cyxnode.protocol.units import JobId, MicroCyx, NodeId
from cyxnode.scheduler.job import Job, JobPhase
from cyxnode.scheduler.requester_service import JobResult
from cyxnode.simulation.desk import JobRecord
from cyxnode.simulation.judge import (
    LAWS,
    REFUND_PATIENCE_S,
    Bench,
    Judge,
    Violation,
    gained,
    precompile_signatures,
    precompile_signers,
)

MEMBERS = tuple(NodeId(bytes([n]) * 32) for n in (1, 2, 3))
WORKER, REQUESTER, STRANGER, FAUCET = (NodeId(letter * 32) for letter in (b"w", b"r", b"s", b"f"))
NOW_S = 2_000_000_000


def judge(told: list[Violation] | None = None) -> Judge:
    heard = [] if told is None else told
    names = {WORKER: "worker"}
    return Judge(Bench(lambda: 7.0, lambda: NOW_S, names.get, lambda node: node == REQUESTER, heard.append))


def broken(one: Judge) -> list[int]:
    return [violation.number for violation in one.violations]


def job(**changes: Any) -> JobAccount:
    """A job that was paid as it should be."""
    account = JobAccount(
        job=JobId(b"j" * 32), requester=REQUESTER, budget=MicroCyx(100), spec_hash=bytes(32), execution_class=bytes(32),
        fee_bps=1000, verifier_share_bps=5000, k=3, m=2, open_slot=1, committee=MEMBERS, work_deadline_s=NOW_S,
        refund_at_s=NOW_S + 100, units_total=10, units_paid=10, settlements=1, state=JobState.SETTLED,
        verdict=Verdict.OK, worker=WORKER, paid=MicroCyx(80), result_hash=bytes(32), fee_mask=0b011,
        shares=(MicroCyx(0),) * 3, slashed=MicroCyx(0),
    )  # fmt: skip
    return replace(account, **changes)


def node(who: NodeId, stake: int, slashed: int = 0) -> NodeAccount:
    return NodeAccount(
        node=who, execution_class=bytes(32), active_since_slot=1, payout=bytes(32), stake=MicroCyx(stake),
        earned=MicroCyx(0), fees_generated=MicroCyx(0), jobs_ok=0, failures=0, slashed=MicroCyx(slashed),
        unbonding_at_s=0,
    )  # fmt: skip


def transaction(before: dict[bytes, int], after: dict[bytes, int], *addresses: bytes, raw: bytes = b"") -> Any:
    """A transaction that changed what owners hold."""
    tokens = [
        [TokenBalance(0, LOCAL_MINT, owner, amount) for owner, amount in held.items()] for held in (before, after)
    ]
    return TransactionRecord("signature", 1, NOW_S, "", 0, 0, raw, [], list(addresses), [], [], *tokens)


def signed(*members: NodeId, message: bytes = b"m" * 40) -> bytes:
    """A transaction whose precompile verified a signature of each member (which nobody verifies here)."""
    statement = ed25519([Statement(member, bytes(64), message) for member in members])
    payer = Keypair()
    return bytes(Transaction.new_unsigned(Message.new_with_blockhash([statement], payer.pubkey(), Hash.default())))


def test_1_tokens_out_of_nowhere() -> None:
    one = judge()
    one.check_transaction(transaction({WORKER: 5, REQUESTER: 5}, {WORKER: 9, REQUESTER: 1}), FAUCET)
    one.check_transaction(transaction({}, {WORKER: 100}, FAUCET), FAUCET)
    one.check_supply(100, 100)
    assert broken(one) == []
    one.check_transaction(transaction({WORKER: 5}, {WORKER: 6}, WORKER), FAUCET)
    one.check_supply(101, 100)
    assert broken(one) == [1, 1]


def test_2_more_than_the_budget_and_a_second_payment() -> None:
    one = judge()
    one.check_job(job())
    one.check_job(job())
    assert broken(one) == []
    one.check_job(job(paid=MicroCyx(90)))
    one.check_job(job(paid=MicroCyx(90), worker=STRANGER))
    one.check_job(job(job=JobId(b"k" * 32), paid=MicroCyx(101)))
    one.check_job(job(job=JobId(b"l" * 32), units_paid=11))
    assert broken(one) == [2, 2, 2]


def test_3_a_payment_without_a_quorum() -> None:
    one = judge()
    one.check_payment(job(), set(MEMBERS[:2]))
    assert broken(one) == []
    one.check_payment(job(), {MEMBERS[0], WORKER, REQUESTER})
    one.check_job(job(job=JobId(b"k" * 32), fee_mask=0b100))
    one.check_job(job(job=JobId(b"l" * 32), worker=MEMBERS[2]))
    assert broken(one) == [3, 3, 3]


def test_4_an_honest_node_loses_its_stake() -> None:
    one = judge()
    for who in (WORKER, STRANGER):
        one.check_node(node(who, 100))
        one.check_node(node(who, 40, slashed=60))
    assert [violation.text for violation in one.violations] == [
        "worker was slashed by 60",
        "worker lost 60 of its stake",
    ]
    assert broken(one) == [4, 4]


def test_5_jobs_without_an_end() -> None:
    one = judge()
    hanging = job(state=JobState.SEATED, refund_at_s=NOW_S - REFUND_PATIENCE_S - 1, paid=MicroCyx(0))
    ended = JobResult(JobId(bytes(32)), JobPhase.UNSOLD, "", None, None, Job())
    one.check_job(replace(hanging, refund_at_s=NOW_S - REFUND_PATIENCE_S))
    one.check_job(replace(hanging, job=JobId(b"k" * 32), requester=STRANGER))
    one.check_ends([JobRecord(0, "requester", 0.0, result=ended), JobRecord(1, "requester", 0.0, error="no money")])
    assert broken(one) == []
    one.check_job(hanging)
    running = replace(ended, phase=JobPhase.RUNNING)
    one.check_ends([JobRecord(2, "requester", 0.0), JobRecord(3, "requester", 0.0, result=running)])
    assert broken(one) == [5, 5, 5]


def test_6_money_that_does_not_come_back() -> None:
    one = judge()
    one.check_refund(job(), 20)
    one.check_refund(job(), 23)
    assert broken(one) == []
    one.check_refund(job(), 19)
    one.check_refund(job(), 24)
    assert broken(one) == [6, 6]


def test_each_sight_is_told_once_with_its_time() -> None:
    told: list[Violation] = []
    one = judge(told)
    for _ in range(2):
        one.broken(7, "too long a queue")
    assert told == one.violations == [Violation(7, 7.0, "too long a queue")]
    assert set(LAWS) == set(range(9))


def test_what_a_transaction_moved_and_who_signed_it() -> None:
    moved = transaction({WORKER: 5, REQUESTER: 9}, {WORKER: 14})
    assert (gained(moved, WORKER), gained(moved, REQUESTER), gained(moved, STRANGER)) == (9, -9, 0)
    raw = signed(MEMBERS[0], MEMBERS[2], message=b"CYX1" + bytes(36))
    assert precompile_signatures(raw) == [(MEMBERS[0], b"CYX1" + bytes(36)), (MEMBERS[2], b"CYX1" + bytes(36))]
    assert precompile_signers(raw) == {MEMBERS[0], MEMBERS[2]}
