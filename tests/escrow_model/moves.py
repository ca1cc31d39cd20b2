"""Random moves against the escrow program: what an honest client would send next, and what a crooked one would.

A move is a pure function of the ledger and of one number, so a list of numbers is a whole game, and a shorter list
is a shorter game. Honest instructions come from the production encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from cyxnode.protocol import chain
from cyxnode.protocol.chain import ChainConfig, JobAccount, JobState, Verdict
from cyxnode.protocol.committee import draw
from cyxnode.protocol.hashing import QuorumKind, claim_message, quorum_context, quorum_message, settle_digest
from cyxnode.protocol.limits import AMOUNT_MAX, FRAUD_QUORUMS, SEAT_DEADLINE_SLOTS
from cyxnode.protocol.units import MicroCyx, NodeId
from svm_world import key, node_id

from .cast import (
    CLASSES,
    KEYS,
    SUBMITTERS,
    TREASURY,
)
from .ledger import (
    CreateToken,
    Refusal,
    Signed,
    Statements,
    associated,
)
from .node_moves import POOL, Move, NodeMoves, Tick
from .transactions import execute

NODES_WANTED = 11


class Player(NodeMoves):
    """Chooses one move. `ledger` moves on while a transaction of several instructions is put together."""

    def move(self) -> Move:
        """The next move: mostly one instruction, sometimes several or the same one twice in one transaction."""
        first = self._choose()
        if isinstance(first, Tick):
            return first
        chance = self.rng.random()
        if chance < 0.04:
            return first * 2
        if chance > 0.12:
            return first
        after = execute(self.ledger, first)
        if isinstance(after, Refusal):
            return first
        more = Player(after, self.rng.getrandbits(32))._choose()
        return first if isinstance(more, Tick) else first + more

    def _choose(self) -> Move:
        if self.ledger.config() is None or self.rng.random() < 0.004:
            return self._first()
        if self.rng.random() < 0.03:
            return self.spoiler.nuisance()
        return self._usual()

    def _first(self) -> Move:
        """A world stays without Config for a while: that is when anyone can try to be first."""
        if self.rng.random() < 0.03:
            return self._initialise()
        if self.rng.random() < 0.3:
            return self._usual()
        steps = self._initialise()
        return self.spoiler.terms(steps) if self.rng.random() < 0.4 else self.spoiler.spoil(steps, always=True)

    def _usual(self) -> Move:
        kinds: list[tuple[float, Callable[[ChainConfig], Move]]] = [
            (6.0, self._next_of_a_job), (0.5, self._open), (0.7, self._register), (0.3, self._close),
            (0.4, self._refund), (0.25, self._unstake), (0.35, self._withdraw_stake), (0.4, self._withdraw_earned),
            (0.12, self._slash), (0.3, self._settle), (0.15, self._seat), (0.3, self._tick),
        ]  # fmt: skip
        if sum(self._eligible(node) for node in self.nodes) < NODES_WANTED:
            kinds.append((4.0, self._register))
        act = self.rng.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
        return act(self.config)

    def _open(self, config: ChainConfig) -> Move:
        rng, now = self.rng, self.ledger.unix_s
        deadline = now + rng.choices([3600, 1, 0], [8, 1, 0.3])[0]
        earliest, latest = deadline + config.grace_s, now + config.unbonding_s
        refund_at = rng.choices([earliest, latest, earliest - 1, latest + 1], [8, 3, 0.2, 0.2])[0]
        budget = rng.choices([rng.randint(1, 10**9), 1, rng.randint(1, 2000), AMOUNT_MAX], [8, 0.5, 3, 0.5])[0]
        wish = chain.OpenJob(
            nonce=rng.choices([self.seed.to_bytes(32, "little"), bytes(32)], [6, 1])[0],
            spec_hash=sha256(b"spec").digest(),
            execution_class=rng.choices(CLASSES, [15, 1])[0], budget=MicroCyx(budget),
            k=rng.choices([3, 5, 7], [8, 2, 1])[0],
            units_total=rng.choices([10, 1, 3, 2**32 - 1, 0], [8, 2, 2, 1, 0.1])[0], work_deadline_s=deadline,
            refund_at_s=refund_at,
        )  # fmt: skip
        requester = self._pick("r0", "r1", "r2", "n0") if rng.random() < 0.97 else self._pick("poor")
        return self.spoiler.spoil((self._encoded(wish, requester),))

    def _seat(self, config: ChainConfig, job: JobAccount | None = None) -> Move:
        rng, job = self.rng, job or self._job(JobState.OPEN)
        if job is None:
            return self._open(config)
        hash_ = self.ledger.hashes.get(job.open_slot, bytes(32))
        willing = [n.node for n in self.nodes if self._eligible(n, job)]
        if len(willing) < job.k and rng.random() < 0.8:
            return self._register(config)
        if rng.random() < 0.05 or len(willing) < job.k:
            willing = [n.node for n in self.nodes]
        if rng.random() < 0.5 and len(willing) > job.k:
            willing = rng.sample(willing, job.k)  # not the drawn ones: the program cannot see that
        committee = list(draw(hash_, job.job, willing, job.k))
        if rng.random() < 0.04 and committee:
            rng.shuffle(committee)
        if rng.random() < 0.02 and committee:
            committee[-1] = committee[0]
        return self.spoiler.spoil((self._encoded(chain.Seat(job.job, tuple(committee)), self._pick(*SUBMITTERS)),))

    def _worker(self, job: JobAccount) -> bytes:
        honest = [
            n.node for n in self.nodes
            if n.node not in job.committee and n.execution_class == job.execution_class and n.node != job.requester
        ]  # fmt: skip
        if honest and self.rng.random() < 0.93:
            return self.rng.choice(honest)
        return self.rng.choice([*job.committee, job.requester, bytes(32), *(n.node for n in self.nodes), TREASURY])

    def _settle(self, config: ChainConfig, job: JobAccount | None = None) -> Move:
        rng, job = self.rng, job or self._job(JobState.SEATED)
        if job is None:
            return self._open(config)
        left = job.units_total - job.units_paid
        verdict = rng.choices(list(Verdict), [4, 1.5, 1, 1, 5, 2.5])[0]
        if verdict is Verdict.PARTIAL and (left < 2 or job.settlements > 6) and rng.random() < 0.9:
            verdict = Verdict.OK
        pays, named = verdict in (Verdict.OK, Verdict.PARTIAL), verdict not in (Verdict.UNSOLD, Verdict.CANCELLED)
        if verdict is Verdict.FAILED and rng.random() < 0.3:
            named = False
        price = rng.choices([rng.randint(0, job.budget), job.budget, 0, job.budget + 1], [8, 2, 1, 0.3])[0]
        most = max(1, left - (verdict is Verdict.PARTIAL))
        units = rng.choices([rng.randint(1, most), most, 1, 0, left, left + 1], [6, 3, 2, 0.2, 0.3, 0.2])[0]
        wish = chain.Settle(
            job=job.job, verdict=verdict, worker=NodeId(self._worker(job) if named else bytes(32)),
            price=MicroCyx(price if named and (pays or verdict is Verdict.FRAUD or rng.random() < 0.2) else 0),
            units=min(units, 2**32 - 1) if pays else 0, result_hash=sha256(b"result%d" % rng.randrange(3)).digest(),
            fee_mask=rng.randrange(1 << job.k) if rng.random() < 0.98 else 1 << job.k,
            sequence=job.settlements if rng.random() < 0.97 else rng.choice([0, job.settlements + 1, 255]),
            round=rng.choice([0, 1, 65_535]), signatures=(),
        )  # fmt: skip
        if rng.random() < 0.08:
            wish = self._nonsense(wish)
        fraud = wish.verdict is Verdict.FRAUD
        needed = FRAUD_QUORUMS[job.k] if fraud else job.m
        context = quorum_context(config.genesis, self.ledger.program, job.job, job.open_slot)
        digest = settle_digest(
            wish.verdict, wish.worker, price=wish.price, units=wish.units, result_hash=wish.result_hash,
            fee_mask=wish.fee_mask,
        )  # fmt: skip
        message = quorum_message(QuorumKind.SETTLE, wish.sequence, wish.round, context, digest)
        count = rng.choices([needed, job.k, needed - 1], [10, 3, 0.4])[0]
        seats = job.committee or tuple(n.node for n in self.nodes)
        entries = [Signed(member, message) for member in rng.sample(seats, min(count, len(seats)))]
        if fraud:
            signer = wish.worker if wish.worker in KEYS else node_id(key("r0"))
            entries.append(Signed(signer, claim_message(wish.sequence, context, wish.result_hash)))
        call = self._encoded(wish, self._pick(*SUBMITTERS))
        paid = [self.config.treasury, *(n.payout for n in self.nodes if n.node == wish.worker)]
        front = tuple(CreateToken(wallet) for wallet in self._without_account(*paid)) if rng.random() < 0.95 else ()
        return self.spoiler.spoil((*front, Statements(tuple(entries)), call))

    def _nonsense(self, wish: chain.Settle) -> chain.Settle:
        """What even a whole committee cannot decide."""
        others = [n.node for n in self.nodes if n.execution_class != CLASSES[0]]
        change: dict[str, object] = self.rng.choice([
            {"verdict": self.rng.choice([0, 7, 255])}, {"units": 1}, {"price": 1}, {"worker": bytes(32)},
            {"worker": self.rng.choice(others or [wish.worker])},
            {"verdict": self.rng.choice(list(Verdict))},
        ])  # fmt: skip
        return replace(wish, **change)  # type: ignore[arg-type]

    def _without_account(self, *wallets: bytes) -> list[bytes]:
        """Those of the wallets that have no token account now."""
        return [w for w in wallets if associated(w, self.ledger.mint) not in self.ledger.accounts]

    def _ending(self, kind: type[chain.CloseJob] | type[chain.RefundExpired], job: JobAccount) -> Move:
        wallets = self._without_account(job.requester, self.config.treasury)
        front = tuple(CreateToken(wallet) for wallet in wallets) if self.rng.random() < 0.95 else ()
        return self.spoiler.spoil((*front, self._encoded(kind(job.job), self._pick(*SUBMITTERS), job=job)))

    def _close(self, config: ChainConfig, job: JobAccount | None = None) -> Move:
        job = job or self._job(JobState.SETTLED)
        return self._open(config) if job is None else self._ending(chain.CloseJob, job)

    def _refund(self, config: ChainConfig) -> Move:
        expired = [j for j in self.jobs if j.refund_at_s <= self.ledger.unix_s]
        if self.rng.random() < 0.8:
            expired = [j for j in expired if j.state is not JobState.SETTLED]
        job = self.rng.choice(expired) if expired else self._job(JobState.OPEN, JobState.SEATED)
        if job is None:
            return self._open(config)
        if not expired and self.rng.random() < 0.7:
            return Tick(1, max(0, job.refund_at_s - self.ledger.unix_s + self.rng.choice([-1, 0, 0])))
        return self._ending(chain.RefundExpired, job)

    def _next_of_a_job(self, config: ChainConfig) -> Move:
        """What moves one of the youngest jobs on."""
        job = self._job(JobState.OPEN, JobState.SEATED, JobState.SETTLED)
        if job is None or (len(self.jobs) < POOL and self.rng.random() < 0.3) or self.rng.random() < 0.12:
            return self._open(config)
        if job.state is JobState.SETTLED:
            return self._close(config, job)
        if self.ledger.unix_s >= job.refund_at_s and self.rng.random() < 0.9:
            return self._ending(chain.RefundExpired, job)
        if job.state is JobState.OPEN:
            late = self.ledger.slot > job.open_slot + SEAT_DEADLINE_SLOTS
            if self.ledger.slot == job.open_slot or (late and self.rng.random() < 0.9):
                return Tick(1, job.refund_at_s - self.ledger.unix_s if late else 1)
            return self._seat(config, job)
        return self._settle(config, job)

    def _tick(self, config: ChainConfig) -> Move:
        slots = self.rng.choices([1, 2, 399, 400, 401], [6, 3, 0.3, 0.3, 0.3])[0]
        return Tick(slots, self.rng.choices([0, 1, 60, 3600], [3, 3, 2, 0.5])[0])
