"""A reader from outside sees what the auditor inside sees: the same chain, over JSON-RPC's shapes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import trio

from cyxnode.ledger.addresses import LOCAL_MINT
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.history import TokenBalance, TransactionRecord
from cyxnode.ledger.rpc_methods import RpcMethods
from cyxnode.ledger.transaction_json import transaction_record
from cyxnode.protocol.chain import JobAccount, JobState, Verdict
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.units import JobId, MicroCyx, NodeId, base58
from cyxnode.simulation import run as run_module
from cyxnode.simulation.chain_reader import ChainReader
from cyxnode.simulation.judge import Bench, Judge
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.run import run_plan
from cyxnode.simulation.world import World

MEMBERS = tuple(NodeId(bytes([n]) * 32) for n in (1, 2, 3))
WORKER, REQUESTER, VAULT_OWNER = (NodeId(letter * 32) for letter in (b"w", b"r", b"v"))


class WrittenRpc(DirectRpc):
    """A cluster in this process whose transactions are read from the JSON that a server would send."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster)
        self._methods = RpcMethods(cluster)

    async def signatures(self, address: bytes, *, limit: int, until: str | None = None) -> list[dict[str, Any]]:
        await trio.lowlevel.checkpoint()
        options: dict[str, Any] = {"limit": limit, **({"until": until} if until else {})}
        listed: list[dict[str, Any]] = self._methods.call("getSignaturesForAddress", [base58(address), options])
        return listed

    async def transaction(self, signature: str) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        answer = self._methods.call("getTransaction", [signature, {"encoding": "base64"}])
        told: dict[str, Any] = json.loads(json.dumps(answer))
        return told


def reader_of(rpc: Any) -> ChainReader:
    reader = ChainReader(rpc)
    reader.judge = Judge(Bench(lambda: 0.0, lambda: reader.unix_s, lambda node: "peer", lambda node: True))
    return reader


@pytest.mark.slow
@pytest.mark.parametrize("look_s", [0.1, 1.5])
def test_a_whole_market_read_from_outside(monkeypatch: pytest.MonkeyPatch, look_s: float) -> None:
    """Also when it looks so seldom that jobs are settled and closed between two looks."""
    readers: list[ChainReader] = []
    plain = run_module.populate

    async def populate(world: World) -> Any:
        readers.append(reader := reader_of(WrittenRpc(world.cluster)))
        world.nursery.start_soon(_watch, reader)
        return await plain(world)

    async def _watch(reader: ChainReader) -> None:
        while True:
            await reader.look()
            await reader.check_supply()
            await trio.sleep(look_s)

    monkeypatch.setattr(run_module, "populate", populate)
    run = run_plan(Plan(seed=1, peers=6, minutes=1, jobs=4, requesters=2))
    (reader,) = readers
    assert run.violations == reader.judge.violations == []
    paid = sum(1 for job in run.jobs if job.result is not None and job.result.weights is not None)
    assert paid == 4 and reader.unread == 0
    assert len(reader.payments) >= 2 * paid and len(reader.judge.seen) == 4
    assert all(len(message) == 40 and message.startswith(b"CYX1") for _, message in reader.payments)


def job(**changes: Any) -> JobAccount:
    account = JobAccount(
        job=JobId(b"j" * 32), requester=REQUESTER, budget=MicroCyx(10_000), spec_hash=bytes(32),
        execution_class=bytes(32), fee_bps=1000, verifier_share_bps=2000, k=3, m=2, open_slot=1, committee=MEMBERS,
        work_deadline_s=10, refund_at_s=20, units_total=10, units_paid=0, settlements=0, state=JobState.SEATED,
        verdict=None, worker=None, paid=MicroCyx(0), result_hash=bytes(32), fee_mask=0,
        shares=(MicroCyx(0),) * 3, slashed=MicroCyx(0),
    )  # fmt: skip
    return replace(account, **changes)


def moved(before: dict[bytes, int], after: dict[bytes, int]) -> TransactionRecord:
    """A transaction without any signature of a member."""
    tokens = [[TokenBalance(0, LOCAL_MINT, owner, held) for owner, held in all_.items()] for all_ in (before, after)]
    raw = bytes([1]) + bytes(64) + bytes([1, 0, 0, 1]) + bytes(32) + bytes(32) + bytes([0])
    return TransactionRecord("signature", 1, 1, "", 0, 0, raw, [], [VAULT_OWNER], [], [], *tokens)


def shown(account: JobAccount, *records: TransactionRecord) -> list[int]:
    """The laws that a job's transactions break, when the account was last seen as it is here."""
    reader = reader_of(None)
    reader.judge.seen[account.job] = account
    reader._jobs_at[VAULT_OWNER] = account.job
    for record in records:
        reader._show(record, escrow=True)
    return sorted(violation.number for violation in reader.judge.violations)


PAYS = moved({VAULT_OWNER: 10_000}, {VAULT_OWNER: 5_100, WORKER: 4_500, b"t" * 32: 400})
"""A price of 5000: 4500 for the worker, 400 of the fee for the treasury; 100 for verifiers stay in the vault."""
CLOSES = moved({VAULT_OWNER: 5_100}, {REQUESTER: 5_000, b"stakes": 100})


def test_a_payment_needs_the_members() -> None:
    assert shown(job(), PAYS, CLOSES) == [3]


def test_two_payments_from_one_vault() -> None:
    assert shown(job(), PAYS, moved({VAULT_OWNER: 5_100}, {VAULT_OWNER: 5_000, WORKER: 100})) == [2, 3]


@pytest.mark.parametrize(("back", "laws"), [(5_000, [3]), (5_001, [3]), (4_900, [3, 6]), (5_010, [3, 6])])
def test_what_comes_back_of_a_job_that_was_never_seen_settled(back: int, laws: list[int]) -> None:
    closes = moved({VAULT_OWNER: 5_100}, {REQUESTER: back, b"stakes": 5_100 - back})
    assert shown(job(), PAYS, closes) == laws


@pytest.mark.parametrize(("back", "laws"), [(5_000, []), (5_003, []), (4_999, [6]), (5_004, [6])])
def test_what_comes_back_of_a_job_that_was_seen_settled(back: int, laws: list[int]) -> None:
    settled = job(state=JobState.SETTLED, verdict=Verdict.OK, worker=WORKER, paid=MicroCyx(5_000), units_paid=10)
    assert shown(settled, moved({VAULT_OWNER: 5_100}, {REQUESTER: back, b"stakes": 5_100 - back})) == laws


@pytest.mark.parametrize(("back", "laws"), [(10_000, []), (9_999, [6])])
def test_an_unpaid_job_gives_everything_back(back: int, laws: list[int]) -> None:
    assert shown(job(), moved({VAULT_OWNER: 10_000}, {REQUESTER: back, b"stakes": 10_000 - back})) == laws


def test_tokens_out_of_nowhere() -> None:
    assert shown(job(), moved({}, {WORKER: 1})) == [1]


@pytest.mark.parametrize("transaction", [["AAAA", "base64"], ["%", "base64"], [], None])
def test_an_answer_that_is_no_transaction(transaction: Any) -> None:
    meta = {"err": None, "fee": 0, "preBalances": [], "postBalances": []}
    with pytest.raises(RemoteError, match="not written"):
        transaction_record("signature", {"slot": 1, "blockTime": 1, "transaction": transaction, "meta": meta})
