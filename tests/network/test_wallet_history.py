"""The history of each party of one job, read over HTTP from a local chain: what it did, and what came and went."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from cyxnode.ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.faucet import transfer_tokens
from cyxnode.ledger.genesis import UNBONDING_S, ensure_genesis
from cyxnode.ledger.http_rpc import HttpRpc, open_http_rpc
from cyxnode.ledger.node_instructions import request_unstake
from cyxnode.ledger.sender import sign
from cyxnode.ledger.wallet_history import Entry, read_history
from cyxnode.protocol.chain import CloseJob, JobAccount, Register, RequestUnstake, WithdrawEarned, WithdrawStake
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import MicroCyx, NodeId, base58
from escrow_market import BUDGET, CLASS, Market, key, served, settlement
from ledger_world import SOL, START_S, make_cluster


class HttpMarket(Market):
    """A Market whose history can be read."""

    rpc: HttpRpc

    async def history(self, address: bytes, **page: Any) -> list[Entry]:
        return await read_history(self.rpc, address, LOCAL_MINT, LOCAL_PROGRAM_ID, **{"limit": 50, **page})


@pytest.fixture
async def market() -> AsyncIterator[HttpMarket]:
    cluster: LocalCluster = make_cluster()
    await ensure_genesis(cluster)
    async with served(cluster) as url, open_http_rpc(url) as rpc:
        yield HttpMarket(cluster, rpc)


async def ended_job(market: Market) -> tuple[JobAccount, NodeId, dict[NodeId, Any]]:
    """A job that was paid and closed; (the job, its worker, keys of the nodes)."""
    requester, job, keys = await market.seated_job()
    wish = await settlement(requester, job, keys, 10 * MICRO)
    market.cluster.advance(START_S + 3)
    await requester.submit(wish)
    market.cluster.advance(START_S + 4)
    await requester.submit(CloseJob(job.job))
    market.cluster.advance(START_S + 5)
    return job, wish.worker, keys


def told(entries: list[Entry]) -> list[str]:
    """All lines, oldest first."""
    return [line for entry in reversed(entries) for line in entry.what]


async def test_a_requester_reads_what_became_of_its_job(market: HttpMarket) -> None:
    job, _, _ = await ended_job(market)
    entries, name = await market.history(job.requester), f"job {base58(job.job)}"
    assert told(entries)[-4:] == [
        f"opened {name} with a budget of 20.000000 CYX",
        f"seated the committee of {name}",
        f"settled {name}: OK",
        f"closed {name}: what was left is back",
    ]
    closed, settled, _, opened = entries[:4]
    assert (opened.micro_cyx, settled.micro_cyx, closed.micro_cyx) == (-BUDGET, 0, BUDGET - 10 * MICRO + 2)
    assert opened.fee == 5_000 and opened.lamports < -opened.fee and closed.lamports > 0
    assert all(not entry.error and entry.unix_s for entry in entries)
    assert sum(entry.micro_cyx for entry in entries) == (await market.client("reader").balance(job.requester)).micro_cyx


async def test_worker_and_members_read_of_a_job_that_others_opened(market: HttpMarket) -> None:
    job, worker, _ = await ended_job(market)
    name = f"job {base58(job.job)}"
    paid = (await market.history(worker))[0]
    assert paid.what[-1] == f"was paid for 10 units of {name} at 10.000000 CYX for all: OK"
    assert (paid.micro_cyx, paid.lamports, paid.fee) == (9 * MICRO, 0, 0)
    member = await market.history(job.committee[0])
    assert told(member)[-2:] == [
        f"was drawn for the committee of {name}",
        f"closed {name}: a verifier's share was credited to this node",
    ]
    assert "registered a node with a stake of 100.000000 CYX" in told(member)
    assert sum(entry.lamports for entry in member) == (await market.client("r").balance(job.committee[0])).lamports


async def test_a_node_reads_of_its_stake_and_its_way_out(market: HttpMarket) -> None:
    job, _, keys = await ended_job(market)
    node = job.committee[0]
    name = next(f"node {number}" for number in range(5) if key(f"node {number}").node_id == node)
    client, node = market.client(name), NodeId(keys[node].node_id)
    await market.fund(name, 30 * MICRO)
    for wish in (
        Register(CLASS, MicroCyx(30 * MICRO), node),
        Register(CLASS, MicroCyx(0), node),
        RequestUnstake(),
        WithdrawEarned(node),
    ):
        await client.submit(wish)
    market.cluster.advance(START_S + 10 + UNBONDING_S)
    await client.submit(WithdrawStake(node))
    lines = told(await market.history(node))
    earned = next(line for line in lines if line.startswith("withdrew earned shares"))
    assert earned == "withdrew earned shares: 0.066666 CYX"
    assert [line for line in lines if line.startswith(("added", "registered the", "asked", "withdrew the"))] == [
        "added 30.000000 CYX to the stake",
        "registered the node again",
        "asked for the stake: the unbonding time began",
        "withdrew the stake: 130.000000 CYX",
    ]


async def test_money_that_others_send_is_found_although_they_do_not_name_the_wallet(market: HttpMarket) -> None:
    await market.fund("payer", 10 * MICRO)
    payer, receiver = key("payer"), key("receiver").node_id
    for reference in "ab":
        await transfer_tokens(market.rpc, payer, LOCAL_MINT, receiver, MICRO, reference=reference)
    first, second = reversed(await market.history(receiver))
    received = f"received 1.000000 CYX from {base58(payer.node_id)}"
    assert first.what == ("made the token account of this wallet", received)
    assert second.what == (received,)
    sent = (await market.history(payer.node_id))[0]
    assert sent.what == (f"sent 1.000000 CYX to {base58(receiver)}",)
    assert (sent.micro_cyx, sent.lamports) == (-MICRO, -5_000)


async def test_pages_join_without_gap_or_repetition(market: HttpMarket) -> None:
    job, _, _ = await ended_job(market)
    for address in (job.requester, job.committee[0]):
        whole = [entry.signature for entry in await market.history(address)]
        pages: list[str] = []
        while page := await market.history(address, limit=2, before=pages[-1] if pages else None):
            assert len(page) <= 2
            pages += [entry.signature for entry in page]
        assert pages == whole and len(set(whole)) == len(whole) >= 4


async def test_a_failed_transaction_says_why(market: HttpMarket) -> None:
    await market.fund("node 0", 100 * MICRO)
    client, node = market.client("node 0"), key("node 0")
    await client.submit(Register(CLASS, MicroCyx(100 * MICRO), node.node_id))
    signer = Keypair.from_seed(node.seed)
    program = type(signer.pubkey()).from_bytes(LOCAL_PROGRAM_ID)
    await client.submit(RequestUnstake())
    market.cluster.advance(START_S + 9)
    again = sign(request_unstake(signer.pubkey(), program), [signer], market.cluster.latest_blockhash()[0])
    market.cluster.send(again, preflight=False)
    gift = transfer(TransferParams(from_pubkey=signer.pubkey(), to_pubkey=program, lamports=99 * SOL))
    market.cluster.send(sign([gift], [signer], market.cluster.latest_blockhash()[0]), preflight=False)
    poor, twice = (await market.history(node.node_id))[:2]
    assert twice.error.startswith("the node is unbonding already (fix: ") and twice.fee == 5_000
    assert twice.what == ("asked for the stake: the unbonding time began",)
    assert "custom program error: 0x1" in poor.error and poor.lamports == -5_000


async def test_an_address_without_history(market: HttpMarket) -> None:
    assert await market.history(bytes([9] * 32)) == []
