"""A small world around the real escrow program in LiteSVM: a mint, wallets, nodes, and a clock that tests move.

Every step goes through `escrow_instructions.encode`, as in production. A refused transaction raises `Rejected` with
the program's error code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256

from solders.account import Account
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata
from solders.transaction_status import InstructionErrorCustom, TransactionErrorInstructionError

from cyxnode.ledger import escrow_instructions as build
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import ChainConfig, JobAccount, NodeAccount, Verdict
from cyxnode.protocol.committee import draw
from cyxnode.protocol.hashing import QuorumKind, job_id, quorum_context, quorum_message, settle_digest
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import JobId, MicroCyx, NodeId

GENESIS = sha256(b"genesis").digest()
CLASS = sha256(b"class").digest()
PROGRAM = Pubkey.from_string("CyxEscrow1111111111111111111111111111111111")
MINIMUM_STAKE = 100 * MICRO
GRACE_S = 600
NOBODY = NodeId(bytes(32))
RESULT = sha256(b"result").digest()
START_SLOT, START_S = 1_000, 1_700_000_000


class Rejected(Exception):
    """A transaction failed. `code` is Custom(code) of instruction `index`, or None for any other error."""

    def __init__(self, failure: FailedTransactionMetadata) -> None:
        error = failure.err()
        self.code: int | None = None
        self.index: int | None = None
        if isinstance(error, TransactionErrorInstructionError):
            self.index = error.index
            if isinstance(error.err, InstructionErrorCustom):
                self.code = error.err.code
        self.logs = tuple(failure.meta().logs())
        super().__init__(f"{error} {layout.ERRORS.get(self.code or 0, '')} {self.logs[-2:]}")


@contextmanager
def refused(code: int | None, *, index: int | None = None) -> Iterator[None]:
    """The block must be rejected with this code (and by this instruction)."""
    try:
        yield
    except Rejected as error:
        assert error.code == code, f"refused with {error}, not {code}"
        assert index is None or error.index == index, f"instruction {error.index} refused, not {index}"
    else:
        raise AssertionError(f"accepted, not refused with {code}")


def key(name: str) -> Keypair:
    """The same key for the same name, in every run."""
    return Keypair.from_seed(sha256(name.encode()).digest())


def node_id(keypair: Keypair) -> NodeId:
    return NodeId(bytes(keypair.pubkey()))


class World:
    """LiteSVM with mainnet's features, the escrow program initialised, and `nodes` registered nodes n0, n1, ..."""

    def __init__(
        self, nodes: int = 0, *, fee_bps: int = 1000, verifier_share_bps: int = 2000, initialise: bool = True
    ) -> None:
        self.svm = LiteSVM().with_mainnet_features()
        self.program = PROGRAM
        self.svm.add_program(self.program, layout.PROGRAM_PATH.read_bytes())
        self.admin, self.treasury, self.requester = self.wallet("admin"), key("treasury"), self.wallet("requester")
        self.slot, self.unix_s = START_SLOT, START_S
        self.hashes: dict[int, bytes] = {}
        self.largest: int = 0
        self.advance(slots=0)
        self.mint = self.new_mint("mint")
        self.nodes: list[Keypair] = []
        if initialise:
            self.send(self.initialise_instructions(fee_bps, verifier_share_bps), [self.admin])
        for index in range(nodes):
            self.add_node(f"n{index}")
        self.advance()

    def initialise_instructions(self, fee_bps: int = 1000, verifier_share_bps: int = 2000) -> list[Instruction]:
        return build.initialise(
            self.program, self.admin.pubkey(), self.mint, self.treasury.pubkey(), genesis=GENESIS, fee_bps=fee_bps,
            verifier_share_bps=verifier_share_bps, minimum_stake=MINIMUM_STAKE, unbonding_s=86_400, grace_s=GRACE_S,
        )  # fmt: skip

    # the cluster

    def advance(self, *, slots: int = 1, seconds: int = 0) -> None:
        """Let slots and seconds pass; every slot gets its hash."""
        for slot in range(self.slot, self.slot + slots):
            self.hashes[slot] = sha256(b"slot" + struct.pack("<Q", slot)).digest()
        self.slot, self.unix_s = self.slot + slots, self.unix_s + seconds
        clock = self.svm.get_clock()
        clock.slot, clock.unix_timestamp = self.slot, self.unix_s
        self.svm.set_clock(clock)
        newest = sorted(self.hashes, reverse=True)[:512]
        self.svm.set_slot_hashes([(slot, Hash(self.hashes[slot])) for slot in newest])

    def send(self, instructions: Sequence[Instruction], signers: Sequence[Keypair]) -> TransactionMetadata:
        """Execute one transaction; the first signer pays. Raises Rejected."""
        self.svm.expire_blockhash()
        blockhash = self.svm.latest_blockhash()
        message = Message.new_with_blockhash(list(instructions), signers[0].pubkey(), blockhash)
        transaction = Transaction(list(signers), message, blockhash)
        self.largest = max(self.largest, len(bytes(transaction)))
        result = self.svm.send_transaction(transaction)
        if isinstance(result, FailedTransactionMetadata):
            raise Rejected(result)
        return result

    def wallet(self, name: str, lamports: int = 10**11) -> Keypair:
        """A key with SOL."""
        keypair = key(name)
        self.svm.airdrop(keypair.pubkey(), lamports)
        return keypair

    def new_mint(self, name: str, decimals: int = 6) -> Pubkey:
        """An SPL mint of the admin."""
        mint = key(name)
        rent = self.svm.minimum_balance_for_rent_exemption(82)
        create = create_account(
            CreateAccountParams(
                from_pubkey=self.admin.pubkey(), to_pubkey=mint.pubkey(), lamports=rent, space=82,
                owner=layout.TOKEN_PROGRAM,
            )
        )  # fmt: skip
        data = bytes([20, decimals]) + bytes(self.admin.pubkey()) + b"\0"
        start = Instruction(layout.TOKEN_PROGRAM, data, [AccountMeta(mint.pubkey(), False, True)])
        self.send([create, start], [self.admin, mint])
        return mint.pubkey()

    def ata(self, owner: Pubkey, mint: Pubkey | None = None) -> Pubkey:
        return layout.associated_token_address(owner, mint or self.mint)

    def pay(self, owner: Pubkey, amount: int, mint: Pubkey | None = None) -> None:
        """Mint tokens to a wallet's associated account."""
        mint = mint or self.mint
        accounts = [
            AccountMeta(mint, False, True),
            AccountMeta(self.ata(owner, mint), False, True),
            AccountMeta(self.admin.pubkey(), True, False),
        ]
        mint_to = Instruction(layout.TOKEN_PROGRAM, b"\x07" + struct.pack("<Q", amount), accounts)
        self.send([build.create_associated(self.admin.pubkey(), owner, mint), mint_to], [self.admin])

    # reading

    def data(self, address: Pubkey) -> bytes | None:
        """Bytes of an account; None when it is gone or empty."""
        account = self.svm.get_account(address)
        return bytes(account.data) if account is not None and len(account.data) else None

    def lamports(self, address: Pubkey) -> int:
        return self.svm.get_balance(address) or 0

    def tokens_at(self, address: Pubkey) -> int:
        data = self.data(address)
        return struct.unpack_from("<Q", data, 64)[0] if data else 0

    def tokens(self, owner: Pubkey) -> int:
        return self.tokens_at(self.ata(owner))

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

    def patch(self, address: Pubkey, offset: int, value: bytes) -> None:
        """Overwrite bytes of an account behind the program's back, for states that no instruction reaches yet."""
        old = self.svm.get_account(address)
        assert old is not None
        data = bytearray(old.data)
        data[offset : offset + len(value)] = value
        self.svm.set_account(address, Account(old.lamports, bytes(data), old.owner, old.executable, old.rent_epoch))

    # the steps of a job's life

    def encode(
        self, wish: chain.Instruction, signer: Keypair, *, job: JobAccount | None = None, payout: Pubkey | None = None
    ) -> list[Instruction]:
        if job is None and isinstance(wish, chain.Settle | chain.CloseJob | chain.RefundExpired):
            job = self.job(wish.job)
        if payout is None and isinstance(wish, chain.Settle) and any(wish.worker):
            data = self.data(layout.node_address(self.program, wish.worker))
            payout = Pubkey(layout.decode_node(data).payout) if data else Pubkey(wish.worker)
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

    def signed(self, job: JobAccount, wish: chain.Settle, signers: Sequence[Keypair] | None = None) -> chain.Settle:
        """The wish with signatures, by the first m members unless others are named."""
        signers = self.members(job)[: job.m] if signers is None else signers
        message = self.message(job, wish)
        return replace(wish, signatures=tuple((node_id(s), bytes(s.sign_message(message))) for s in signers))

    def settlement(self, job: JobAccount, verdict: Verdict = Verdict.OK, worker: Keypair | None = None) -> chain.Settle:
        """An unsigned settlement with plain values: OK pays 40 CYX for all units to a node outside the committee."""
        ok = verdict is Verdict.OK
        if ok and worker is None:
            worker = self.outsider(job)
        return chain.Settle(
            job=JobId(job.job), verdict=verdict, worker=node_id(worker) if worker else NOBODY,
            price=MicroCyx(40 * MICRO if ok else 0), units=job.units_total if ok else 0, result_hash=RESULT,
            fee_mask=(1 << job.m) - 1, sequence=0, round=0, signatures=(),
        )  # fmt: skip

    def settle(self, job: JobAccount, verdict: Verdict = Verdict.OK, worker: Keypair | None = None) -> JobAccount:
        """Settle by the first m members; returns the account after it."""
        self.submit(self.signed(job, self.settlement(job, verdict, worker)))
        settled = self.job(job.job)
        assert settled is not None
        return settled
