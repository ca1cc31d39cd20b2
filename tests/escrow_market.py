"""Nodes and a requester of known keys on one local chain, and one job brought as far as a test wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

import trio

from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.faucet import request_airdrop, request_tokens
from cyxnode.ledger.genesis import GRACE_S, MINIMUM_STAKE_MICRO_CYX
from cyxnode.ledger.rpc import FaucetRpc
from cyxnode.ledger.rpc_methods import RpcMethods
from cyxnode.ledger.rpc_server import open_rpc_listeners, serve_rpc
from cyxnode.protocol.chain import JobAccount, OpenJob, Register, Seat, Settle, Verdict
from cyxnode.protocol.committee import draw
from cyxnode.protocol.hashing import QuorumKind, job_id, quorum_context, quorum_message, settle_digest
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.ports import Chain
from cyxnode.protocol.units import MicroCyx, NodeId
from ledger_world import SOL, START_S

CLASS = sha256(b"class").digest()
BUDGET = MicroCyx(20 * MICRO)


def key(name: str) -> KeyPair:
    return KeyPair(sha256(name.encode()).digest())


@asynccontextmanager
async def served(cluster: LocalCluster) -> AsyncIterator[str]:
    """The URL of an RPC server on `cluster`, whose slots the test ticks."""
    listeners, port = await open_rpc_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_rpc, RpcMethods(cluster).call, listeners)
        yield f"http://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


@dataclass(slots=True)
class Market:
    """A founded chain, a way to reach it, and the clients of five nodes and one requester."""

    cluster: LocalCluster
    rpc: FaucetRpc

    def client(self, name: str) -> ChainClient:
        return ChainClient(self.rpc, key(name), LOCAL_PROGRAM_ID)

    async def fund(self, name: str, micro_cyx: int) -> None:
        await request_airdrop(self.rpc, key(name).node_id, 10 * SOL)
        await request_tokens(self.rpc, key(name).node_id, micro_cyx)

    async def seated_job(self, k: int = 3, nodes: int = 5) -> tuple[ChainClient, JobAccount, dict[NodeId, KeyPair]]:
        """Registered nodes, an opened and seated job; (requester's client, job, nodes by id)."""
        keys = {key(f"node {number}").node_id: key(f"node {number}") for number in range(nodes)}
        for number, node in enumerate(keys):
            await self.fund(f"node {number}", MINIMUM_STAKE_MICRO_CYX)
            client = self.client(f"node {number}")
            await client.submit(Register(CLASS, MicroCyx(MINIMUM_STAKE_MICRO_CYX), node))
        self.cluster.advance(START_S + 1)
        await self.fund("requester", BUDGET)
        requester = self.client("requester")
        wish = open_wish(k)
        await requester.submit(wish)
        name = job_id(requester.signer, wish.nonce, wish.spec_hash)
        opened = await requester.job(name)
        assert opened is not None
        assert await requester.slot_hash(opened.open_slot) is None, "nobody knows it within the slot"
        self.cluster.advance(START_S + 2)
        slot_hash = await requester.slot_hash(opened.open_slot)
        assert slot_hash is not None
        registered = [node.node for node in await requester.nodes()]
        await requester.submit(Seat(name, draw(slot_hash, name, registered, k)))
        job = await requester.job(name)
        assert job is not None
        return requester, job, keys


def open_wish(k: int) -> OpenJob:
    return OpenJob(
        nonce=sha256(b"nonce").digest(), spec_hash=sha256(b"spec").digest(), execution_class=CLASS, budget=BUDGET,
        k=k, units_total=10, work_deadline_s=START_S + 100, refund_at_s=START_S + 100 + 2 * GRACE_S,
    )  # fmt: skip


async def settlement(client: Chain, job: JobAccount, keys: dict[NodeId, KeyPair], price: int) -> Settle:
    """OK by the whole committee, for a worker that is not on it."""
    worker = next(node for node in keys if node not in job.committee)
    result, mask = sha256(b"result").digest(), (1 << job.k) - 1
    config = await client.config()
    context = quorum_context(config.genesis, client.program, job.job, job.open_slot)
    digest = settle_digest(Verdict.OK, worker, price, job.units_total, result, mask)
    message = quorum_message(QuorumKind.SETTLE, 0, 0, context, digest)
    signatures = tuple((member, keys[member].sign(message)) for member in job.committee)
    return Settle(
        job=job.job, verdict=Verdict.OK, worker=worker, price=MicroCyx(price), units=job.units_total,
        result_hash=result, fee_mask=mask, sequence=0, round=0, signatures=signatures,
    )  # fmt: skip
