"""The real program in LiteSVM beside the model: both play the same moves, and must say and hold the same.

A world serves many sequences of moves, since its nodes and old jobs make the next ones richer. A world that
disagrees is shrunk to the fewest moves that still do.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from solders.account import Account as ChainAccount
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata

from chain_world import PROGRAM
from cyxnode.ledger import escrow_layout as layout
from cyxnode.ledger.addresses import LOADER_PROGRAM
from cyxnode.protocol.chain import Verdict
from svm_world import START_S, START_SLOT, Rejected, key, node_id

from .cast import (
    KEYS,
    NODES,
    REQUESTERS,
    SUBMITTERS,
    TAGS,
    TREASURY,
)
from .ledger import (
    FROZEN,
    TOKEN,
    TOKEN_BYTES,
    Account,
    Call,
    Ledger,
    Mint,
    Other,
    Refusal,
    Step,
    Token,
    associated,
    derived,
    rent,
)
from .moves import Move, Player, Tick
from .transactions import execute
from .wire import MINT, OTHER_MINT, PAYER, decode, describe, instruction_of, token_bytes

RICH, SOL = 10**18, 10**10
HASHES_KEPT = 24
SHORT_GAME = range(2_000, 2_800)
"""Moves in which every verdict comes up, and most refusals."""
TOKEN_2022 = bytes(Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"))


def first_accounts() -> dict[bytes, Account]:
    """Wallets with SOL and CYX, mints, and token accounts that only look right."""
    accounts = {node_id(key(name)): Account(SOL) for name in (*REQUESTERS, *SUBMITTERS, *NODES, "admin")}
    accounts[node_id(key("poor"))] = Account(3_000_000)
    for mint, decimals in ((MINT, 6), (OTHER_MINT, 6), (bytes(key("coarse mint").pubkey()), 2)):
        accounts[mint] = Account(rent(82), TOKEN, Mint(decimals))
    tokens = {associated(wallet, MINT): Token(MINT, wallet, RICH) for wallet in KEYS}
    tokens[associated(node_id(key("poor")), MINT)] = Token(MINT, node_id(key("poor")), 10**9)
    tokens[associated(TREASURY, MINT)] = Token(MINT, TREASURY, 0)
    r0 = node_id(key("r0"))
    tokens[associated(r0, OTHER_MINT)] = Token(OTHER_MINT, r0, RICH)
    tokens[sha256(b"side account").digest()] = Token(MINT, r0, 10**9)
    tokens[sha256(b"frozen").digest()] = Token(MINT, r0, 10**9, FROZEN)
    accounts |= {address: Account(rent(TOKEN_BYTES), TOKEN, token) for address, token in tokens.items()}
    accounts[sha256(b"token 2022").digest()] = Account(rent(TOKEN_BYTES), TOKEN_2022, Other())
    return accounts


@dataclass
class Played:
    """How often each instruction and verdict was accepted, each code refused; the move played last."""

    accepted: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    transactions: int = 0
    last: int = 0

    def count(self, steps: Sequence[Step], said: Ledger | Refusal) -> None:
        self.transactions += 1
        if isinstance(said, Refusal):
            self.refused[said.code] += 1
            return
        for step in steps:
            if isinstance(step, Call):
                self.accepted[TAGS[step.data[0]]] += 1
                if TAGS[step.data[0]] == "settle":
                    self.verdicts[Verdict(step.data[1]).name] += 1


class Machine:
    """One world: LiteSVM and the model, in step."""

    def __init__(self, played: Played) -> None:
        self.svm = LiteSVM().with_mainnet_features().with_sigverify(False).with_transaction_history(0)
        self.svm.add_program(PROGRAM, layout.PROGRAM_PATH.read_bytes())
        self.played = played
        authority = node_id(key("admin"))
        data = struct.pack("<IQB", 3, 0, 1) + authority
        address = derived("program_data", bytes(PROGRAM))
        self.svm.set_account(Pubkey(address), ChainAccount(10**9, data, LOADER_PROGRAM))
        self.svm.set_account(PAYER.pubkey(), ChainAccount(10**15, b"", layout.SYSTEM_PROGRAM))
        accounts = first_accounts()
        for where, account in accounts.items():
            self._place(where, account)
        self.ledger = Ledger(bytes(PROGRAM), MINT, authority, node_id(PAYER), accounts, START_SLOT, START_S, {})
        self.tick(Tick(0, 0))
        self.tokens = self.ledger.tokens()

    def _place(self, address: bytes, account: Account) -> None:
        data = b""
        if isinstance(account.body, Token):
            data = token_bytes(account.body)
        elif isinstance(account.body, Mint):
            data = bytes(44) + bytes([account.body.decimals, 1]) + bytes(36)
        elif isinstance(account.body, Other):
            data = token_bytes(Token(MINT, node_id(key("r0")), 10**9))
        self.svm.set_account(Pubkey(address), ChainAccount(account.lamports, data, Pubkey(account.owner)))

    def tick(self, tick: Tick) -> None:
        """The slot that ends gets its hash; those that are skipped have none."""
        old = self.ledger
        hashes = dict(old.hashes)
        if tick.slots:
            hashes[old.slot] = sha256(b"slot" + struct.pack("<Q", old.slot)).digest()
        hashes = dict(sorted(hashes.items(), reverse=True)[:HASHES_KEPT])
        self.ledger = replace(old, slot=old.slot + tick.slots, unix_s=old.unix_s + tick.seconds, hashes=hashes)
        clock = self.svm.get_clock()
        clock.slot, clock.unix_timestamp = self.ledger.slot, self.ledger.unix_s
        self.svm.set_clock(clock)
        self.svm.set_slot_hashes([(slot, Hash(hash_)) for slot, hash_ in hashes.items()])

    def play(self, move: Move) -> None:
        """Play one move on both sides; AssertionError when they differ."""
        if isinstance(move, Tick):
            self.tick(move)
            return
        before = self.ledger
        expected = execute(before, move)
        actual = self._send(move)
        said = expected if isinstance(expected, Refusal) else None
        assert actual == said, f"the program says {actual}, the model {said}: {describe(move)}"
        self.played.count(move, expected)
        if isinstance(expected, Ledger):
            self.ledger = expected
        self._compare(move)

    def _send(self, steps: Sequence[Step]) -> Refusal | None:
        self.svm.expire_blockhash()
        blockhash = self.svm.latest_blockhash()
        message = Message.new_with_blockhash(
            [instruction_of(step, index) for index, step in enumerate(steps)], PAYER.pubkey(), blockhash
        )
        unsigned = Transaction.new_unsigned(message)
        result = self.svm.send_transaction(unsigned)
        if not isinstance(result, FailedTransactionMetadata):
            return None
        error = Rejected(result)
        assert error.code is not None and error.index is not None, f"{error}: {describe(steps)}"
        return Refusal(error.index, error.code)

    def at(self, address: bytes) -> Account:
        found = self.svm.get_account(Pubkey(address))
        if found is None or not found.lamports:
            return Account()
        owner = bytes(found.owner)
        return Account(found.lamports, owner, decode(owner, bytes(found.data)))

    def _compare(self, steps: Sequence[Step]) -> None:
        touched: set[bytes] = set()
        for index, step in enumerate(steps):
            touched |= {bytes(account.pubkey) for account in instruction_of(step, index).accounts}
        for address in touched - {node_id(PAYER)}:
            expected = self.ledger.at(address)
            if expected == Account() and address not in self.ledger.accounts:
                actual = self.svm.get_account(Pubkey(address))
                known = actual is None or not actual.lamports or bytes(actual.owner) not in (bytes(PROGRAM), TOKEN)
                assert known, f"{address.hex()} should not exist: {describe(steps)}"
                continue
            assert self.at(address) == expected, f"{address.hex()}: {describe(steps)}"

    def compare_all(self) -> None:
        """Everything that the model knows, and no token more or less than there was."""
        for address, expected in self.ledger.accounts.items():
            assert self.at(address) == expected, address.hex()
        assert self.ledger.tokens() == self.tokens
        vault = self.ledger.tokens_at(derived("stake_vault", bytes(PROGRAM)))
        owed = sum(node.stake + node.earned for node in self.ledger.nodes())
        assert vault >= owed, "a stake or a share is not covered"


def play(seeds: Iterable[int], played: Played) -> Machine:
    """A fresh world in which these moves are played."""
    machine = Machine(played)
    for seed in seeds:
        played.last = seed
        machine.play(Player(machine.ledger, seed).move())
    machine.compare_all()
    return machine


def fails(seeds: Sequence[int]) -> AssertionError | None:
    """How the game of these moves goes wrong, if it does."""
    try:
        play(seeds, Played())
    except AssertionError as error:
        return error
    return None


def shrink(seeds: Sequence[int]) -> list[int]:
    """Fewer moves that still fail, by leaving out ever smaller parts."""
    played = Played()
    try:
        play(seeds, played)
    except AssertionError:
        seeds = seeds[: seeds.index(played.last) + 1]
    left, part = list(seeds), len(seeds) // 2
    while part:
        at = 0
        while at < len(left):
            shorter = left[:at] + left[at + part :]
            if fails(shorter):
                left = shorter
            else:
                at += part
        part //= 2
    return left
