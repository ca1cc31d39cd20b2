"""Moves of nodes, as an honest client would send them: register, leave, withdraw, convict.

Instructions come from the production encoder; what a move is made of stands here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from random import Random

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from cyxnode.ledger import escrow_instructions as build
from cyxnode.ledger import node_instructions
from cyxnode.protocol import chain
from cyxnode.protocol.chain import ChainConfig, JobAccount, JobState, NodeAccount
from cyxnode.protocol.committee import eligible
from cyxnode.protocol.hashing import QuorumKind, quorum_context, quorum_message
from cyxnode.protocol.limits import AMOUNT_MAX, MICRO
from cyxnode.protocol.units import JobId, MicroCyx, NodeId
from svm_world import key, node_id

from .cast import (
    CLASSES,
    NODES,
    SUBMITTERS,
    TREASURY,
    wallet_of_payout,
)
from .ledger import (
    Call,
    CreateToken,
    Ledger,
    Meta,
    Signed,
    Statements,
    Step,
    associated,
)
from .spoiling import Spoiler

POOL = 4


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes between two transactions."""

    slots: int
    seconds: int


Move = Tick | tuple[Step, ...]


PROMISED = ChainConfig(
    node_id(key("admin")), sha256(b"genesis").digest(), bytes(key("mint").pubkey()), TREASURY, 1000, 2000,
    MicroCyx(100 * MICRO), 86_400, 600,
)  # fmt: skip
"""What clients believe before the program is initialised."""


class NodeMoves:
    """The dice, the ledger, and what a player sees in it."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.ledger, self.rng, self.seed = ledger, Random(seed), seed
        self.spoiler = Spoiler(ledger, self.rng)
        self.config = ledger.config() or PROMISED
        self.nodes = ledger.nodes()
        bodies = (account.body for account in ledger.accounts.values())
        jobs = sorted((b for b in bodies if isinstance(b, JobAccount)), key=lambda job: (job.open_slot, job.job))
        self.jobs = jobs

    def _eligible(self, node: NodeAccount, job: JobAccount | None = None) -> bool:
        return eligible(
            node, execution_class=job.execution_class if job else CLASSES[0],
            open_slot=job.open_slot if job else self.ledger.slot + 1, requester=job.requester if job else b"",
            minimum_stake=self.config.minimum_stake,
        )  # fmt: skip

    def _call(self, instruction: Instruction) -> Call:
        metas = tuple(Meta(bytes(a.pubkey), a.is_signer, a.is_writable) for a in instruction.accounts)
        return Call(bytes(instruction.data), metas)

    def _encoded(self, wish: chain.Instruction, signer: bytes, *, job: JobAccount | None = None) -> Call:
        """Only the escrow instruction; what stands in front of it is made here."""
        paid = getattr(wish, "node", None) or getattr(wish, "worker", b"")
        payout = next((n.payout for n in self.nodes if n.node == paid), paid)
        if isinstance(wish, chain.Settle):
            return self._call(build.settle_instruction(
                wish, signer=Pubkey(signer), program=Pubkey(self.ledger.program), config=self.config,
                payout=Pubkey(payout) if any(payout) else Pubkey(signer),
            ))  # fmt: skip
        return self._call(build.encode(
            wish, signer=Pubkey(signer), program=Pubkey(self.ledger.program), config=self.config, job=job,
            payout=Pubkey(payout) if any(payout) else None,
        )[-1])  # fmt: skip

    def _pick(self, *names: str) -> bytes:
        return node_id(key(self.rng.choice(names)))

    def _job(self, *states: JobState) -> JobAccount | None:
        """One of the youngest jobs, rarely any; of these states if there is one."""
        fitting = [job for job in self.jobs if job.state in states] or self.jobs
        alive = [job for job in fitting if job.refund_at_s > self.ledger.unix_s or job.state is JobState.SETTLED]
        if self.rng.random() < 0.9:
            fitting = alive or fitting
        if not fitting:
            return None
        return self.rng.choice(fitting if self.rng.random() < 0.1 else fitting[-POOL:])

    def _initialise(self) -> tuple[Step, ...]:
        rng = self.rng
        instruction = node_instructions.initialise(
            Pubkey(self.ledger.program), key("admin").pubkey() if rng.random() < 0.95 else key("s0").pubkey(),
            Pubkey(self.ledger.mint), Pubkey(TREASURY), genesis=sha256(b"genesis").digest(),
            fee_bps=rng.choices([0, 1, 999, 1000], [1, 1, 2, 8])[0],
            verifier_share_bps=rng.choices([0, 1, 2000, 9_999, 10_000], [1, 1, 8, 2, 2])[0],
            minimum_stake=rng.choice([1, 100 * MICRO, 100 * MICRO, 10**12]), unbonding_s=rng.choice([86_400, 20_000]),
            grace_s=rng.choice([0, 600]),
        )[-1]  # fmt: skip
        return (self._call(instruction),)

    def _register(self, config: ChainConfig) -> Move:
        rng = self.rng
        weak = [n.node for n in self.nodes if not self._eligible(n) and not n.retired]
        known = {n.node for n in self.nodes}
        new = [node_id(key(name)) for name in NODES if node_id(key(name)) not in known]
        if (weak and rng.random() < 0.6) or not new:
            node = rng.choice(weak or sorted(known))
        else:
            node = rng.choice([*new[:2], self._pick("r0", "n0")] if rng.random() < 0.1 else new[:1])
        least = config.minimum_stake
        stake = rng.choices([least, 0, least - 1, least + 7, 3 * least, AMOUNT_MAX + 1], [8, 1.5, 0.5, 2, 1, 0.2])[0]
        payout = rng.choices([wallet_of_payout(node), node, TREASURY, bytes(32)], [10, 1, 1, 0.2])[0]
        class_ = rng.choices([*CLASSES, bytes(32)], [12, 1, 0.2])[0]
        wish = chain.Register(class_, MicroCyx(stake), payout)
        return self.spoiler.spoil((CreateToken(payout), self._encoded(wish, node)) if any(payout) and rng.random() < 0.5
                            else (self._encoded(wish, node),))  # fmt: skip

    def _unstake(self, config: ChainConfig) -> Move:
        if not self.nodes:
            return self._register(config)
        return self.spoiler.spoil((self._encoded(chain.RequestUnstake(), self.rng.choice(self.nodes).node),))

    def _withdraw_stake(self, config: ChainConfig) -> Move:
        leaving = [node for node in self.nodes if node.unbonding_at_s]
        if not self.nodes:
            return self._register(config)
        node = self.rng.choice(leaving or self.nodes)
        if leaving and node.unbonding_at_s > self.ledger.unix_s and self.rng.random() < 0.6:
            return Tick(1, max(0, node.unbonding_at_s - self.ledger.unix_s + self.rng.choice([-1, 0])))
        return self._withdrawal(chain.WithdrawStake(node.node), node)

    def _withdraw_earned(self, config: ChainConfig) -> Move:
        if not self.nodes:
            return self._register(config)
        node = self.rng.choice([node for node in self.nodes if node.earned] or self.nodes)
        return self._withdrawal(chain.WithdrawEarned(node.node), node)

    def _withdrawal(self, wish: chain.WithdrawStake | chain.WithdrawEarned, node: NodeAccount) -> Move:
        call = self._encoded(wish, self._pick(*SUBMITTERS))
        there = associated(node.payout, self.ledger.mint) in self.ledger.accounts
        return self.spoiler.spoil((call,) if there else (CreateToken(node.payout), call))

    def _slash(self, config: ChainConfig) -> Move:
        job, rng = self._job(*JobState), self.rng
        if job is None or not self.nodes:
            return self._register(config)
        liar = rng.choice(self.nodes).node
        kind, sequence, round_ = QuorumKind(rng.choice([1, 2, 3, 3, 4])), rng.randrange(3), rng.randrange(3)
        context = quorum_context(config.genesis, self.ledger.program, job.job, job.open_slot)
        one = sha256(b"one").digest()
        other = one if rng.random() < 0.05 else sha256(b"other").digest()
        entries = tuple(Signed(liar, quorum_message(kind, sequence, round_, context, d)) for d in (one, other))
        wish = chain.SlashEquivocation(
            NodeId(liar), JobId(job.job), job.open_slot, kind, sequence, round_, (one, other), (bytes(64), bytes(64))
        )  # fmt: skip
        return self.spoiler.spoil((Statements(entries), self._encoded(wish, self._pick(*SUBMITTERS))))
