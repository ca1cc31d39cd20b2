"""A Solana cluster in this process (LiteSVM with mainnet's features): a clock that tests move, wallets, CYX.

A refused transaction raises `Rejected` with the program's error code; `refused` expects one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from cyxnode.protocol.units import NodeId

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


class Cluster:
    """LiteSVM, its clock and slot hashes, and a mint of which the admin makes as much as a test needs."""

    def __init__(self) -> None:
        self.svm = LiteSVM().with_mainnet_features()
        self.admin = self.wallet("admin")
        self.slot, self.unix_s = START_SLOT, START_S
        self.hashes: dict[int, bytes] = {}
        self.largest: int = 0
        self.advance(slots=0)
        self.mint = self.new_mint("mint")

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

    def patch(self, address: Pubkey, offset: int, value: bytes) -> None:
        """Overwrite bytes of an account behind the program's back, for states that no instruction reaches yet."""
        old = self.svm.get_account(address)
        assert old is not None
        data = bytearray(old.data)
        data[offset : offset + len(value)] = value
        self.svm.set_account(address, Account(old.lamports, bytes(data), old.owner, old.executable, old.rent_epoch))
