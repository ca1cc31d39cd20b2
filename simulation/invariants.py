"""What must hold in every world, whatever happens (DESIGN 13). Numbered; each names what it saw when it fails.

1. Tokens are conserved: no transaction but the faucet's makes or burns any, and all accounts add up to the supply.
2. At most one worker is paid per unit of a job, and never more than the budget.
3. Nobody is paid without signatures of m distinct members of the job's own committee, nor is one of its parties.
4. No honest node is slashed, nor loses stake.
5. Every job reaches an end state by its deadline.
6. The requester gets back all that was not paid.
7. Every queue stays within its bound.
8. No message of a dead node is acted upon: it sends nothing, and does not live on in the minds of others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import trio

from ..ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from ..ledger.escrow_layout import JOB_BYTES, JOB_TAG, NODE_BYTES, NODE_TAG, TOKEN_PROGRAM, decode_job, decode_node
from ..ledger.history import TransactionRecord
from ..ledger.token import read_mint, read_token_account
from ..protocol.limits import (
    CLOCK_TRUST_MS,
    COMMITS_MAX,
    DEAD_AFTER_MS,
    EARLY_MESSAGES_MAX,
    GOSSIP_QUEUE_MAX,
    INBOUND_STREAMS_MAX,
    JOBS_OPEN_MAX,
    JOBS_REFUSED_MAX,
    PEERS_BANNED_MAX,
    PEERS_CONNECTED_MAX,
    PEERS_KNOWN_MAX,
    QUORUMS,
    STREAMS_PER_PEER_MAX,
)
from ..protocol.units import JobId, NodeId
from .desk import JobRecord
from .judge import Bench, Judge, Violation, gained, precompile_signers
from .plan import PROFILES, Plan
from .world import Peer, World

AUDIT_INTERVAL_S = 1.0
CHAIN_AUDIT_INTERVAL_S = 10.0
DEATH_PATIENCE_S = (DEAD_AFTER_MS + CLOCK_TRUST_MS) / 1000
"""How long after a node's end others may take it for alive, where clocks agree: the silence that kills, and by how much
a record may be older than it looks, which is also more than anything is on its way. Where clocks differ, the difference
of the worst two is added (`death_patience_s`)."""


@dataclass(slots=True)
class Auditor:
    """Looks at what each transaction touched, at the nodes every AUDIT_INTERVAL_S, and at all at the end."""

    world: World
    judge: Judge = field(init=False)
    died_s: dict[NodeId, float] = field(default_factory=dict)
    peers: dict[NodeId, Peer] = field(default_factory=dict)
    _jobs_at: dict[bytes, JobId] = field(default_factory=dict)

    def __post_init__(self) -> None:
        world = self.world
        self.judge = Judge(
            Bench(
                now_s=trio.current_time,
                chain_s=lambda: world.cluster.unix_s,
                honest=self._honest,
                orders=lambda node: any(peer.node_id == node for peer in world.requesters),
                tell=self._tell,
            )
        )
        self.peers = {peer.node_id: peer for peer in world.peers}
        world.cluster.after_transaction = self._after
        plain = world.network.traffic

        def watched(kind: str, sender: NodeId, receiver: NodeId, topic: str, data: bytes) -> None:
            peer = self.peers.get(sender)
            if peer is not None and is_dead(peer):
                self.judge.broken(8, f"{peer.name} sent {kind} {topic} after its death")
            plain(kind, sender, receiver, topic, data)

        world.network.traffic = watched

    async def watch(self) -> None:
        """Audit what moves without transactions, until the world ends."""
        last_s = 0.0
        while True:
            await trio.sleep(AUDIT_INTERVAL_S)
            self.check_nodes()
            if trio.current_time() - last_s >= CHAIN_AUDIT_INTERVAL_S:
                last_s = trio.current_time()
                self.audit()

    def _honest(self, node: NodeId) -> str | None:
        peer = self.peers.get(node)
        return peer.name if peer is not None and not peer.cheat else None

    def _tell(self, violation: Violation) -> None:
        self.world.trace.event("violation", f"{violation.number} {violation.text}")

    # the chain --------------------------------------------------------------------------------------------------------

    def _after(self, record: TransactionRecord) -> None:
        self.world.trace.event("transaction", record.signature)
        if record.error:
            return
        self.judge.check_transaction(record, bytes(self.world.cluster.faucet.pubkey()))
        for address in record.addresses:
            self._look(address, record)

    def _look(self, address: bytes, record: TransactionRecord) -> None:
        account = self.world.cluster.account(address)
        data = account.data if account is not None else b""
        if len(data) == JOB_BYTES and data[:1] == bytes([JOB_TAG]):
            job = decode_job(data)
            before = self.judge.seen.get(job.job)
            self._jobs_at[address] = job.job
            self.judge.check_job(job)
            if job.paid and (before is None or before.paid != job.paid):
                self.judge.check_payment(job, precompile_signers(record.raw))
        elif len(data) == NODE_BYTES and data[:1] == bytes([NODE_TAG]):
            self.judge.check_node(decode_node(data))
        elif not data and address in self._jobs_at:
            job = self.judge.seen[self._jobs_at.pop(address)]
            self.judge.check_refund(job, gained(record, job.requester))

    def audit(self) -> None:
        """Look at every account, touched or not."""
        self.check_supply()
        for _, account in self.world.cluster.program_accounts(LOCAL_PROGRAM_ID):
            if len(account.data) == JOB_BYTES and account.data[:1] == bytes([JOB_TAG]):
                self.judge.check_job(decode_job(account.data))
            elif len(account.data) == NODE_BYTES and account.data[:1] == bytes([NODE_TAG]):
                self.judge.check_node(decode_node(account.data))

    def check_supply(self) -> None:
        """Invariant 1 over all accounts."""
        mint = self.world.cluster.account(LOCAL_MINT)
        minted = read_mint(bytes(mint.data)) if mint is not None else None
        assert minted is not None
        tokens = self.world.cluster.program_accounts(bytes(TOKEN_PROGRAM))
        accounts = (read_token_account(bytes(account.data)) for _, account in tokens)
        held = sum(one.amount for one in accounts if one is not None and one.mint == LOCAL_MINT)
        self.judge.check_supply(held, minted[0])

    def final(self, jobs: list[JobRecord]) -> None:
        """Invariants of the end: every job is over."""
        self.audit()
        self.check_nodes()
        self.judge.check_ends(jobs)

    # the nodes --------------------------------------------------------------------------------------------------------

    def check_nodes(self) -> None:
        """Invariants 7 and 8 of all that live."""
        now_s = trio.current_time()
        for peer in self.world.peers:
            if is_dead(peer):
                self.died_s.setdefault(peer.node_id, now_s)
            else:
                self.died_s.pop(peer.node_id, None)
        patience_s = death_patience_s(self.world.plan)
        gone = [node for node, died_s in self.died_s.items() if now_s - died_s > patience_s]
        for peer in self.world.peers:
            if peer.node is None:
                continue
            for name, (size, bound) in queues(peer).items():
                if size > bound:
                    self.judge.broken(7, f"{peer.name} holds {size} {name}, {bound} are allowed")
            believed = peer.node.presence.alive() if gone else {}
            for node in gone:
                if node in believed:
                    self.judge.broken(8, f"{peer.name} takes {self.peers[node].name} for alive, which died long ago")


def death_patience_s(plan: Plan) -> float:
    """DEATH_PATIENCE_S with the clocks of a plan: an author's may be fast and a listener's slow."""
    return DEATH_PATIENCE_S + 2 * PROFILES[plan.faults].skew_ms / 1000


def is_dead(peer: Peer) -> bool:
    """Whether the power of a peer that has lived is off."""
    return peer.node is None and peer.scope is not None and peer.scope.cancel_called


def queues(peer: Peer) -> dict[str, tuple[int, int]]:
    """Everything of a living node that grows with what others send: name -> (size, bound)."""
    assert peer.node is not None
    transport: Any = peer.node.context.wire.transport
    rooms, presence = peer.node.market.rooms, peer.node.presence.state
    auctions = [room.auction for room in rooms.by_job.values()]
    topics, streams = transport._subscriptions._topics.values(), transport._inbound._open
    waiting = [topic.send.statistics().current_buffer_used for topic in topics]
    return {
        "rooms": (len(rooms.by_job), JOBS_OPEN_MAX),
        "refused jobs": (len(rooms._refused), JOBS_REFUSED_MAX),
        "early messages": (max((len(one._early) for one in auctions), default=0), EARLY_MESSAGES_MAX),
        "early certificates": (max((len(one._early_certificates) for one in auctions), default=0), len(QUORUMS)),
        "bids": (max((len(one.state.commits) for one in auctions if one.state), default=0), COMMITS_MAX),
        "queued gossip": (max(waiting, default=0), GOSSIP_QUEUE_MAX),
        "inbound streams": (streams.total(), INBOUND_STREAMS_MAX),
        "inbound streams of one peer": (max(streams.values(), default=0), STREAMS_PER_PEER_MAX),
        "members": (len(presence.members), PEERS_KNOWN_MAX),
        "connections": (len(transport.connected()), 2 * PEERS_CONNECTED_MAX),
        "banned peers": (len(transport._bans.nodes), PEERS_BANNED_MAX),
    }
