"""A small world around the real escrow program in LiteSVM: a treasury, a requester, nodes, and the steps of a job.

Every step goes through `escrow_instructions.encode`, as in production.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from solders.account import Account
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction_metadata import TransactionMetadata

from cyxnode.ledger import escrow_instructions as build
from cyxnode.ledger import escrow_layout as layout
from cyxnode.ledger import node_instructions
from cyxnode.ledger.addresses import LOADER_PROGRAM
from cyxnode.ledger.precompile import Statement, ed25519
from cyxnode.protocol import chain
from cyxnode.protocol.chain import ChainConfig, JobAccount, NodeAccount, Verdict
from cyxnode.protocol.committee import draw
from cyxnode.protocol.hashing import (
    QuorumKind,
    claim_message,
    job_id,
    quorum_context,
    quorum_message,
    settle_digest,
)
from cyxnode.protocol.limits import FRAUD_QUORUMS, MICRO, SETTLEMENTS_MAX
from cyxnode.protocol.units import JobId, MicroCyx, NodeId
from svm_world import START_S, START_SLOT, Cluster, Rejected, key, node_id, refused

__all__ = [
    "CLASS", "GENESIS", "GRACE_S", "MINIMUM_STAKE", "NOBODY", "PROGRAM", "RESULT", "START_S", "START_SLOT",
    "UNBONDING_S", "Rejected", "World", "deposit", "key", "node_id", "refused",
]  # fmt: skip

GENESIS = sha256(b"genesis").digest()
CLASS = sha256(b"class").digest()
PROGRAM = Pubkey.from_string("CyxEscrow1111111111111111111111111111111111")
MINIMUM_STAKE = 100 * MICRO
GRACE_S = 600
UNBONDING_S = 86_400
NOBODY = NodeId(bytes(32))
RESULT = sha256(b"result").digest()
PRICED = (Verdict.OK, Verdict.PARTIAL, Verdict.FRAUD)


def deposit(k: int) -> int:
    """Lamports that open_job puts beside the rent of a job with `k` seats, to give back to submitters."""
    return 5_000 * (2 + SETTLEMENTS_MAX * (k + 3))


class World(Cluster):
    """The escrow program, initialised, and `nodes` registered nodes n0, n1, ..."""

    def __init__(
        self, nodes: int = 0, *, fee_bps: int = 1000, verifier_share_bps: int = 2000, initialise: bool = True
    ) -> None:
        super().__init__()
        self.program = PROGRAM
        self.svm.add_program(self.program, layout.PROGRAM_PATH.read_bytes())
        self.set_authority(self.admin.pubkey())
        self.treasury, self.requester = key("treasury"), self.wallet("requester")
        self.nodes: list[Keypair] = []
        if initialise:
            self.send(self.initialise_instructions(fee_bps, verifier_share_bps), [self.admin])
        for index in range(nodes):
            self.add_node(f"n{index}")
        self.advance()

    def initialise_instructions(self, fee_bps: int = 1000, verifier_share_bps: int = 2000) -> list[Instruction]:
        return node_instructions.initialise(
            self.program, self.admin.pubkey(), self.mint, self.treasury.pubkey(), genesis=GENESIS, fee_bps=fee_bps,
            verifier_share_bps=verifier_share_bps, minimum_stake=MINIMUM_STAKE, unbonding_s=UNBONDING_S,
            grace_s=GRACE_S,
        )  # fmt: skip

    def set_authority(self, authority: Pubkey | None) -> None:
        """Write who may upgrade the program, as the loader does when it deploys one."""
        address = layout.program_data_address(self.program)
        data = struct.pack("<IQB", 3, 0, authority is not None) + (bytes(authority) if authority else bytes(32))
        lamports = self.svm.minimum_balance_for_rent_exemption(len(data))
        self.svm.set_account(address, Account(lamports, data, LOADER_PROGRAM))

    # reading

    def vault(self, job: bytes) -> int:
        return self.tokens_at(layout.vault_address(self.program, job))

    def stakes(self) -> int:
        return self.tokens_at(layout.stake_vault_address(self.program))

    def config(self) -> ChainConfig:
        data = self.data(layout.config_address(self.program))
        assert data is not None
        return layout.decode_config(data)

    def job(self, job: bytes) -> JobAccount | None:
        data = self.data(layout.job_address(self.program, job))
        return None if data is None else layout.decode_job(data)

    def node(self, keypair: Keypair) -> NodeAccount:
        data = self.data(layout.node_address(self.program, bytes(keypair.pubkey())))
        assert data is not None
        return layout.decode_node(data)

    # the steps of a job's life

    def encode(
        self, wish: chain.Instruction, signer: Keypair, *, job: JobAccount | None = None, payout: Pubkey | None = None
    ) -> list[Instruction]:
        if job is None and isinstance(wish, chain.Settle | chain.CloseJob | chain.RefundExpired):
            job = self.job(wish.job)
        paid = wish.worker if isinstance(wish, chain.Settle) else getattr(wish, "node", NOBODY)
        if payout is None and any(paid):
            data = self.data(layout.node_address(self.program, paid))
            payout = Pubkey(layout.decode_node(data).payout) if data else Pubkey(paid)
        return build.encode(
            wish, signer=signer.pubkey(), program=self.program, config=self.config(), job=job, payout=payout
        )

    def submit(self, wish: chain.Instruction, signer: Keypair | None = None) -> TransactionMetadata:
        """Encode and execute; the admin pays unless another signer is named."""
        signer = signer or self.admin
        return self.send(self.encode(wish, signer), [signer])

    def add_node(self, name: str, *, stake: int = MINIMUM_STAKE, execution_class: bytes = CLASS) -> Keypair:
        """Fund and register a node; its payout wallet is `<name>/payout`."""
        keypair = self.wallet(name)
        self.pay(keypair.pubkey(), stake)
        payout = bytes(key(f"{name}/payout").pubkey())
        self.submit(chain.Register(execution_class, MicroCyx(stake), payout), keypair)
        self.nodes.append(keypair)
        return keypair

    def open_job_wish(self, *, nonce: bytes = b"\x01" * 32, budget: int = 50 * MICRO, k: int = 3) -> chain.OpenJob:
        return chain.OpenJob(
            nonce=nonce, spec_hash=sha256(b"spec").digest(), execution_class=CLASS, budget=MicroCyx(budget), k=k,
            units_total=10, work_deadline_s=self.unix_s + 3600, refund_at_s=self.unix_s + 3600 + GRACE_S,
        )  # fmt: skip

    def open_job(self, wish: chain.OpenJob | None = None) -> JobAccount:
        """Fund the requester and open a job."""
        wish = wish or self.open_job_wish()
        self.pay(self.requester.pubkey(), wish.budget)
        self.submit(wish, self.requester)
        return self.job_of(wish)

    def job_of(self, wish: chain.OpenJob) -> JobAccount:
        """The account that the requester's wish made."""
        job = self.job(job_id(node_id(self.requester), wish.nonce, wish.spec_hash))
        assert job is not None
        return job

    def draw(self, job: JobAccount) -> tuple[NodeId, ...]:
        """The committee that the lottery names among all registered nodes."""
        hash_ = self.hashes[job.open_slot]
        return draw(hash_, job.job, [node_id(n) for n in self.nodes if n != self.requester], job.k)

    def seated_job(self, wish: chain.OpenJob | None = None) -> JobAccount:
        """Open a job, let a slot pass, seat its committee."""
        opened = self.open_job(wish)
        self.advance()
        self.submit(chain.Seat(opened.job, self.draw(opened)))
        job = self.job(opened.job)
        assert job is not None
        return job

    def members(self, job: JobAccount) -> list[Keypair]:
        """Keys of the committee, in seat order."""
        by_id = {node_id(n): n for n in self.nodes}
        return [by_id[member] for member in job.committee]

    def outsider(self, job: JobAccount) -> Keypair:
        """A registered node that does not sit on the committee."""
        return next(n for n in self.nodes if node_id(n) not in job.committee and n != self.requester)

    def message(
        self, job: JobAccount, wish: chain.Settle, *, genesis: bytes = GENESIS, program: Pubkey | None = None,
        open_slot: int | None = None, kind: QuorumKind = QuorumKind.SETTLE,
    ) -> bytes:  # fmt: skip
        """The 40 bytes that a member signs for a settlement."""
        slot = job.open_slot if open_slot is None else open_slot
        context = quorum_context(genesis, bytes(program or self.program), job.job, slot)
        digest = settle_digest(wish.verdict, wish.worker, wish.price, wish.units, wish.result_hash, wish.fee_mask)
        return quorum_message(kind, wish.sequence, wish.round, context, digest)

    def signed(
        self, job: JobAccount, wish: chain.Settle, signers: Sequence[Keypair] | None = None,
        worker: Keypair | None = None,
    ) -> chain.Settle:  # fmt: skip
        """The wish with signatures, by as many of the first members as it needs unless others are named."""
        fraud = wish.verdict is Verdict.FRAUD
        needed = FRAUD_QUORUMS[job.k] if fraud else job.m
        signers = self.members(job)[:needed] if signers is None else signers
        message = self.message(job, wish)
        claim = self.claim(job, wish, worker) if fraud else b""
        signatures = tuple((node_id(s), bytes(s.sign_message(message))) for s in signers)
        return replace(wish, signatures=signatures, claim_signature=claim)

    def claim(self, job: JobAccount, wish: chain.Settle, worker: Keypair | None = None) -> bytes:
        """The signature of the wish's worker over its claim."""
        context = quorum_context(GENESIS, bytes(self.program), job.job, job.open_slot)
        signer = worker or next((n for n in self.nodes if node_id(n) == wish.worker), self.requester)
        return bytes(signer.sign_message(claim_message(wish.sequence, context, wish.result_hash)))

    def claim_statement(self, job: JobAccount, wish: chain.Settle, signer: Keypair) -> Statement:
        """Somebody's claim of the wish's result, as the precompile takes it."""
        context = quorum_context(GENESIS, bytes(self.program), job.job, job.open_slot)
        message = claim_message(wish.sequence, context, wish.result_hash)
        return Statement(bytes(signer.pubkey()), self.claim(job, wish, signer), message)

    def with_claim(self, job: JobAccount, wish: chain.Settle, claim: Statement) -> Instruction:
        """The precompile of a FRAUD settlement, with any claim behind the members' signatures."""
        message = self.message(job, wish)
        members = [Statement(member, signature, message) for member, signature in wish.signatures]
        return ed25519([*members, claim])

    def contradiction(
        self, job: JobAccount, liar: Keypair, *, kind: QuorumKind = QuorumKind.AWARD, sequence: int = 0, round_: int = 1
    ) -> chain.SlashEquivocation:
        """Two statements of one key that differ only in what they say."""
        context = quorum_context(GENESIS, bytes(self.program), job.job, job.open_slot)
        digests = (sha256(b"one").digest(), sha256(b"other").digest())
        first, second = (
            bytes(liar.sign_message(quorum_message(kind, sequence, round_, context, digest))) for digest in digests
        )
        return chain.SlashEquivocation(
            node=node_id(liar), job=job.job, open_slot=job.open_slot, kind=kind, sequence=sequence, round=round_,
            digests=digests, signatures=(first, second),
        )  # fmt: skip

    def precompile(self, message: bytes, signatures: Sequence[tuple[NodeId, bytes]]) -> Instruction:
        """The precompile over one message, whoever signed it."""
        return ed25519([Statement(signer, signature, message) for signer, signature in signatures])

    def statement(
        self, job: JobAccount, signer: Keypair, digest: bytes, signature: bytes, *, kind: int = 1, round_: int = 1
    ) -> Statement:
        """A statement about a job, with a signature made beforehand."""
        context = quorum_context(GENESIS, bytes(self.program), job.job, job.open_slot)
        return Statement(
            bytes(signer.pubkey()), signature, quorum_message(QuorumKind(kind), 0, round_, context, digest)
        )

    def settlement(self, job: JobAccount, verdict: Verdict = Verdict.OK, worker: Keypair | None = None) -> chain.Settle:
        """An unsigned settlement with plain values: 40 CYX for what is left, to a node outside the committee."""
        ok = verdict is Verdict.OK
        if worker is None and verdict in (Verdict.OK, Verdict.PARTIAL, Verdict.FRAUD):
            worker = self.outsider(job)
        return chain.Settle(
            job=JobId(job.job), verdict=verdict, worker=node_id(worker) if worker else NOBODY,
            price=MicroCyx(40 * MICRO if verdict in PRICED else 0),
            units=job.units_total - job.units_paid if ok else 0, result_hash=RESULT,
            fee_mask=(1 << job.m) - 1, sequence=job.settlements, round=0, signatures=(),
        )  # fmt: skip

    def settle(self, job: JobAccount, verdict: Verdict = Verdict.OK, worker: Keypair | None = None) -> JobAccount:
        """Settle by the first m members; returns the account after it."""
        self.submit(self.signed(job, self.settlement(job, verdict, worker), worker=worker))
        settled = self.job(job.job)
        assert settled is not None
        return settled
