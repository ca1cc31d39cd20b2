"""One job's money, through ChainClient, in process and over HTTP: the same test runs against both adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.deploy import deploy_program
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.escrow_layout import PROGRAM_PATH, TOKEN_PROGRAM, associated_token_address
from cyxnode.ledger.faucet import request_airdrop, request_tokens, transfer_lamports, transfer_tokens
from cyxnode.ledger.genesis import ensure_genesis
from cyxnode.ledger.http_rpc import open_http_rpc
from cyxnode.ledger.rpc import TransactionFault
from cyxnode.ledger.sender import send_and_confirm
from cyxnode.protocol.chain import (
    CloseJob,
    JobState,
    RefundExpired,
)
from cyxnode.protocol.errors import ChainRejected, LocalError
from cyxnode.protocol.limits import DEPLOY_CHUNK_BYTES, MICRO
from cyxnode.protocol.units import JobId, MicroCyx, NodeId
from escrow_market import BUDGET, Market, key, open_wish, served, settlement
from ledger_world import SOL, START_S, make_cluster, wallet


@pytest.fixture(params=["direct", "http"])
async def market(request: pytest.FixtureRequest) -> AsyncIterator[Market]:
    cluster = make_cluster()
    await ensure_genesis(cluster)
    if request.param == "direct":
        yield Market(cluster, DirectRpc(cluster))
        return
    async with served(cluster) as url, open_http_rpc(url) as rpc:
        yield Market(cluster, rpc)


@pytest.mark.parametrize(("k", "nodes"), [(3, 5), (7, 8)])
async def test_register_open_seat_settle_close(market: Market, k: int, nodes: int) -> None:
    requester, job, keys = await market.seated_job(k, nodes)
    assert (job.state, len(job.committee)) == (JobState.SEATED, k)
    wish = await settlement(requester, job, keys, 10 * MICRO)
    await requester.submit(wish)
    settled = await requester.job(job.job)
    assert settled is not None
    assert (settled.state, settled.worker, settled.paid) == (JobState.SETTLED, wish.worker, 10 * MICRO)
    await requester.submit(CloseJob(job.job))
    assert await requester.job(job.job) is None
    config = await requester.config()
    worker, treasury, back = [
        (await requester.balance(owner)).micro_cyx for owner in (wish.worker, config.treasury, requester.signer)
    ]
    earned = sum(node.earned for node in await requester.nodes())
    assert worker == 9 * MICRO
    assert worker + treasury + back + earned == BUDGET
    assert earned == pytest.approx(MICRO * config.verifier_share_bps // 10_000, abs=k)


async def test_seven_seats_settle_although_the_worker_closed_its_token_account(market: Market) -> None:
    requester, job, keys = await market.seated_job(7, 8)
    wish = await settlement(requester, job, keys, 10 * MICRO)
    worker, mint = Pubkey.from_bytes(wish.worker), Pubkey.from_bytes((await requester.config()).mint)
    account = associated_token_address(worker, mint)
    accounts = [AccountMeta(account, False, True), AccountMeta(worker, False, True), AccountMeta(worker, True, False)]
    close = Instruction(TOKEN_PROGRAM, b"\x09", accounts)
    await send_and_confirm(market.rpc, [close], [Keypair.from_seed(keys[wish.worker].seed)])
    assert await market.rpc.get_account(bytes(account)) is None
    await requester.submit(wish)
    assert (await requester.balance(wish.worker)).micro_cyx == 9 * MICRO


async def test_a_settlement_is_not_paid_twice_and_forgeries_are_named(market: Market) -> None:
    requester, job, keys = await market.seated_job()
    wish = await settlement(requester, job, keys, 10 * MICRO)
    member, signature = wish.signatures[0]
    forged = replace(wish, signatures=((member, bytes([signature[0] ^ 1]) + signature[1:]), *wish.signatures[1:]))
    with pytest.raises(ChainRejected, match="committee signature does not verify"):
        await requester.submit(forged)
    with pytest.raises(ChainRejected) as lonely:
        await requester.submit(replace(wish, signatures=wish.signatures[:1]))
    assert lonely.value.code is not None
    assert "fix:" in str(lonely.value)
    await requester.submit(wish)
    market.cluster.advance(START_S + 3)
    with pytest.raises(ChainRejected) as replayed:
        await requester.submit(wish)
    assert replayed.value.code is not None
    await requester.submit(CloseJob(job.job))
    with pytest.raises(ChainRejected, match="is not on the chain"):
        await requester.submit(CloseJob(job.job))


async def test_an_unsettled_job_is_refunded_after_its_time(market: Market) -> None:
    requester, job, _ = await market.seated_job()
    with pytest.raises(ChainRejected) as early:
        await requester.submit(RefundExpired(job.job))
    assert early.value.code is not None
    market.cluster.advance(job.refund_at_s)
    await requester.submit(RefundExpired(job.job))
    assert (await requester.balance(requester.signer)).micro_cyx == BUDGET


async def test_an_empty_wallet_is_refused_by_name(market: Market) -> None:
    with pytest.raises(ChainRejected, match=r"no record of a prior credit|Insufficient funds"):
        await market.client("pauper").submit(open_wish(3))
    await request_airdrop(market.rpc, key("pauper").node_id, SOL)
    with pytest.raises(ChainRejected, match=r"token account|CYX") as caught:
        await market.client("pauper").submit(open_wish(3))
    assert caught.value.code is not None


async def test_reading_what_is_not_there(market: Market) -> None:
    client = market.client("reader")
    assert await client.node(NodeId(bytes(32))) is None
    assert await client.job(JobId(bytes([1] * 32))) is None
    assert await client.nodes() == []
    assert await client.balance(bytes([3] * 32)) == type(await client.balance(client.signer))(0, MicroCyx(0))
    time = await client.time()
    assert (time.slot, time.unix_s) == (market.cluster.slot, START_S)
    assert await client.slot_hash(time.slot) is None
    assert await market.rpc.genesis_hash() == market.cluster.genesis_hash == (await client.config()).genesis


async def test_a_program_that_is_not_there_is_a_local_error(market: Market) -> None:
    with pytest.raises(LocalError, match="no initialised escrow program"):
        await ChainClient(market.rpc, key("a"), bytes([8] * 32)).config()


async def test_transfers_and_faucet_bounds(market: Market) -> None:
    await market.fund("payer", 10 * MICRO)
    payer, mint = key("payer"), (await market.client("payer").config()).mint
    for reference in ("first", "second"):
        await transfer_tokens(market.rpc, payer, mint, bytes([3] * 32), MICRO, reference=reference)
        await transfer_lamports(market.rpc, payer, bytes([3] * 32), SOL, reference=reference)
    balance = await market.client("payer").balance(bytes([3] * 32))
    assert (balance.lamports, balance.micro_cyx) == (2 * SOL, 2 * MICRO)
    with pytest.raises(ChainRejected, match="micro-CYX"):
        await request_tokens(market.rpc, payer.node_id, 2**60)
    with pytest.raises(ChainRejected, match="lamports"):
        await request_airdrop(market.rpc, payer.node_id, 2**60)


async def test_a_program_is_deployed_by_the_loader_even_after_an_interruption(market: Market) -> None:
    payer, program, buffer = wallet("deployer"), wallet("program"), wallet("buffer")
    await request_airdrop(market.rpc, bytes(payer.pubkey()), 10 * SOL)
    elf = PROGRAM_PATH.read_bytes()
    with pytest.raises(ChainRejected):
        await deploy_program(market.rpc, payer, program, buffer, elf[:3000] + bytes(len(elf) - 3000))
    assert await market.rpc.get_account(bytes(program.pubkey())) is None, "the loader verifies before it installs"
    transactions = await deploy_program(market.rpc, payer, program, buffer, elf)
    zeros = bytes(DEPLOY_CHUNK_BYTES)
    chunks = [elf[at : at + DEPLOY_CHUNK_BYTES] for at in range(0, len(elf), DEPLOY_CHUNK_BYTES)]
    rest = [chunk for chunk in chunks[3000 // DEPLOY_CHUNK_BYTES :] if not zeros.startswith(chunk)]
    assert transactions == len(rest) + 1, "the buffer was there, and what was right in it"
    market.cluster.advance(START_S + 1)
    with pytest.raises(TransactionFault) as called:
        await send_and_confirm(market.rpc, [Instruction(program.pubkey(), b"\xff", [])], [payer])
    assert called.value.error == {"InstructionError": [0, {"Custom": 100}]}, "it runs, and knows no such instruction"
