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

import struct
from dataclasses import dataclass, field
from typing import Any

import trio
from solders.transaction import VersionedTransaction

from ..ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from ..ledger.escrow_layout import JOB_BYTES, JOB_TAG, NODE_BYTES, NODE_TAG, TOKEN_PROGRAM, decode_job, decode_node
from ..ledger.history import TransactionRecord
from ..protocol.chain import JobAccount, JobState, NodeAccount
from ..protocol.limits import (
    BIDS_MAX,
    CLOCK_TRUST_MS,
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
from ..protocol.units import JobId, NodeId, base58
from ..scheduler.job import FINAL
from .market import JobRecord
from .plan import PROFILES, Plan
from .world import Peer, World

AUDIT_INTERVAL_S = 1.0
CHAIN_AUDIT_INTERVAL_S = 10.0
REFUND_PATIENCE_S = 60
"""How long after its refund time a requester that lives may take to fetch the money."""
DEATH_PATIENCE_S = (DEAD_AFTER_MS + CLOCK_TRUST_MS) / 1000
"""How long after a node's end others may take it for alive, where clocks agree: the silence that kills, and by how much
a record may be older than it looks, which is also more than anything is on its way. Where clocks differ, the difference
of the worst two is added (`death_patience_s`)."""
_AMOUNT = struct.Struct("<Q")
_ED25519_PROGRAM = "Ed25519SigVerify111111111111111111111111111"
_SIGNATURE_OFFSETS = struct.Struct("<HHHHHHH")


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant: its number, when (virtual seconds), and what was seen."""

    number: int
    at_s: float
    text: str


@dataclass(slots=True)
class Auditor:
    """Looks at what each transaction touched, at the nodes every AUDIT_INTERVAL_S, and at all at the end."""

    world: World
    violations: list[Violation] = field(default_factory=list)
    seen: dict[JobId, JobAccount] = field(default_factory=dict)
    stakes: dict[NodeId, int] = field(default_factory=dict)
    died_s: dict[NodeId, float] = field(default_factory=dict)
    peers: dict[NodeId, Peer] = field(default_factory=dict)
    _jobs_at: dict[bytes, JobId] = field(default_factory=dict)
    _told: set[tuple[int, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        world = self.world
        self.peers = {peer.node_id: peer for peer in world.peers}
        world.cluster.after_transaction = self._after
        plain = world.network.traffic

        def watched(kind: str, sender: NodeId, receiver: NodeId, topic: str, data: bytes) -> None:
            peer = self.peers.get(sender)
            if peer is not None and is_dead(peer):
                self._broken(8, f"{peer.name} sent {kind} {topic} after its death")
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

    def _broken(self, number: int, text: str) -> None:
        if (number, text) not in self._told:
            self._told.add((number, text))
            self.violations.append(Violation(number, trio.current_time(), text))
            self.world.trace.event("violation", f"{number} {text}")

    # the chain --------------------------------------------------------------------------------------------------------

    def _after(self, record: TransactionRecord) -> None:
        self.world.trace.event("transaction", record.signature)
        if record.error:
            return
        made = _held(record.tokens_after) - _held(record.tokens_before)
        if made and bytes(self.world.cluster.faucet.pubkey()) not in record.addresses:
            self._broken(1, f"transaction {record.signature[:12]} made {made} micro-CYX")
        for address in record.addresses:
            self._look(address, record)

    def _look(self, address: bytes, record: TransactionRecord) -> None:
        account = self.world.cluster.account(address)
        data = account.data if account is not None else b""
        if len(data) == JOB_BYTES and data[:1] == bytes([JOB_TAG]):
            job = decode_job(data)
            before = self.seen.get(job.job)
            self._jobs_at[address] = job.job
            self.check_job(job)
            if job.paid and (before is None or before.paid != job.paid):
                self.check_payment(job, precompile_signers(record.raw))
        elif len(data) == NODE_BYTES and data[:1] == bytes([NODE_TAG]):
            self.check_node(decode_node(data))
        elif not data and address in self._jobs_at:
            self._check_closed(self.seen[self._jobs_at.pop(address)], record)

    def audit(self) -> None:
        """Look at every account, touched or not."""
        self.check_supply()
        for _, account in self.world.cluster.program_accounts(LOCAL_PROGRAM_ID):
            if len(account.data) == JOB_BYTES and account.data[:1] == bytes([JOB_TAG]):
                self.check_job(decode_job(account.data))
            elif len(account.data) == NODE_BYTES and account.data[:1] == bytes([NODE_TAG]):
                self.check_node(decode_node(account.data))

    def check_supply(self) -> None:
        """Invariant 1 over all accounts."""
        mint = self.world.cluster.account(LOCAL_MINT)
        assert mint is not None
        (supply,) = _AMOUNT.unpack_from(mint.data, 36)
        held = sum(
            _AMOUNT.unpack_from(account.data, 64)[0]
            for _, account in self.world.cluster.program_accounts(bytes(TOKEN_PROGRAM))
            if len(account.data) == 165 and account.data[:32] == LOCAL_MINT
        )
        if held != supply:
            self._broken(1, f"{held} micro-CYX are held, {supply} were minted")

    def check_job(self, job: JobAccount) -> None:
        """Invariants 2, 3 and 5 of one account."""
        before, name = self.seen.get(job.job), base58(job.job)[:8]
        if job.paid > job.budget or job.units_paid > job.units_total:
            self._broken(2, f"job {name} paid {job.paid} of {job.budget} for {job.units_paid} units")
        if before is not None and before.paid and (before.worker, before.paid) != (job.worker, job.paid):
            self._broken(2, f"job {name} was paid twice")
        if job.paid and (job.fee_mask.bit_count() < QUORUMS[job.k] or len(job.committee) != job.k):
            self._broken(3, f"job {name} was paid with {job.fee_mask.bit_count()} verdicts of {QUORUMS[job.k]}")
        if job.paid and (job.worker in job.committee or job.worker == job.requester):
            self._broken(3, f"job {name} paid a member or its requester")
        late_s = self.world.cluster.unix_s - job.refund_at_s
        ours = any(peer.node_id == job.requester for peer in self.world.requesters)
        if job.state is not JobState.SETTLED and late_s > REFUND_PATIENCE_S and ours:
            self._broken(5, f"job {name} is {job.state.name} {REFUND_PATIENCE_S} s after its refund time")
        self.seen[job.job] = job

    def check_payment(self, job: JobAccount, keys: set[bytes]) -> None:
        """Invariant 3: `keys` are those whose signatures the chain verified in the paying transaction."""
        members = keys & set(job.committee)
        if len(members) < job.m:
            self._broken(3, f"job {base58(job.job)[:8]} was paid on {len(members)} members' signatures of {job.m}")

    def check_node(self, account: NodeAccount) -> None:
        """Invariant 4."""
        peer, stake = self.peers.get(account.node), self.stakes.get(account.node, 0)
        if peer is not None and not peer.cheat:
            if account.slashed:
                self._broken(4, f"{peer.name} was slashed by {account.slashed}")
            if account.stake < stake:
                self._broken(4, f"{peer.name} lost {stake - account.stake} of its stake")
        self.stakes[account.node] = account.stake

    def _check_closed(self, job: JobAccount, record: TransactionRecord) -> None:
        back = sum(
            sign * token.amount
            for sign, tokens in ((1, record.tokens_after), (-1, record.tokens_before))
            for token in tokens
            if token.mint == LOCAL_MINT and token.owner == job.requester
        )
        self.check_refund(job, back)

    def check_refund(self, job: JobAccount, back: int) -> None:
        """Invariant 6: what a job's requester got `back` when the account was closed; shares are rounded down."""
        owed = job.budget - job.paid
        if not owed <= back <= owed + job.k:
            self._broken(6, f"job {base58(job.job)[:8]} gave back {back} of {owed} micro-CYX")

    def final(self, jobs: list[JobRecord]) -> None:
        """Invariants of the end: every job is over."""
        self.audit()
        self.check_nodes()
        for record in jobs:
            if record.result is None and not record.error:
                self._broken(5, f"job {record.number} never ended; stages {list(record.stages)}")
            elif record.result is not None and record.result.phase not in FINAL:
                self._broken(5, f"job {record.number} ended as {record.result.phase.value}")

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
                    self._broken(7, f"{peer.name} holds {size} {name}, {bound} are allowed")
            believed = peer.node.presence.alive() if gone else {}
            for node in gone:
                if node in believed:
                    self._broken(8, f"{peer.name} takes {self.peers[node].name} for alive, which died long ago")


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
        "bids": (max((len(one.state.commits) for one in auctions if one.state), default=0), BIDS_MAX),
        "queued gossip": (max(waiting, default=0), GOSSIP_QUEUE_MAX),
        "inbound streams": (streams.total(), INBOUND_STREAMS_MAX),
        "inbound streams of one peer": (max(streams.values(), default=0), STREAMS_PER_PEER_MAX),
        "members": (len(presence.members), PEERS_KNOWN_MAX),
        "connections": (len(transport.connected()), 2 * PEERS_CONNECTED_MAX),
        "banned peers": (len(transport._misbehaviour.banned), PEERS_BANNED_MAX),
    }


def _held(tokens: list[Any]) -> int:
    return sum(token.amount for token in tokens if token.mint == LOCAL_MINT)


def precompile_signers(raw: bytes) -> set[bytes]:
    """The keys whose signatures the Ed25519 precompile verified in a transaction that landed."""
    message, keys = VersionedTransaction.from_bytes(raw).message, set()
    for instruction in message.instructions:
        if str(message.account_keys[instruction.program_id_index]) != _ED25519_PROGRAM:
            continue
        data = bytes(instruction.data)
        for number in range(data[0]):
            _, _, key_at, _, _, _, _ = _SIGNATURE_OFFSETS.unpack_from(data, 2 + _SIGNATURE_OFFSETS.size * number)
            keys.add(data[key_at : key_at + 32])
    return keys
