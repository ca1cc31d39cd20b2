"""Accounts, steps of a transaction, and one instruction at work: the values of the model.

Amounts are Python's integers, addresses those of `escrow_layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from solders.pubkey import Pubkey

from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol.chain import ChainConfig, JobAccount, NodeAccount

SYSTEM, TOKEN = bytes(layout.SYSTEM_PROGRAM), bytes(layout.TOKEN_PROGRAM)
TOKEN_BYTES, LAMPORTS_PER_BYTE = 165, 6_960
INITIALISED, FROZEN = 1, 2


@dataclass(frozen=True, slots=True)
class Token:
    """A token account: `amount` in micro-CYX, `owner` the wallet that may spend it."""

    mint: bytes
    owner: bytes
    amount: int
    state: int = INITIALISED


@dataclass(frozen=True, slots=True)
class Mint:
    decimals: int = 6


@dataclass(frozen=True, slots=True)
class Other:
    """Bytes of which the program knows nothing: a sysvar, a program."""


Body = ChainConfig | NodeAccount | JobAccount | Token | Mint | Other


@dataclass(frozen=True, slots=True)
class Account:
    """`owner` is the program that may write it; no body is a wallet, or nothing at all."""

    lamports: int = 0
    owner: bytes = SYSTEM
    body: Body | None = None


NOTHING = Account()


@dataclass(frozen=True, slots=True)
class Meta:
    """An account of an instruction, as the instruction asks for it."""

    address: bytes
    signer: bool = False
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """An instruction of the escrow program."""

    data: bytes
    metas: tuple[Meta, ...]


@dataclass(frozen=True, slots=True)
class Signed:
    """One entry of the precompile; `within` unless it points into another instruction; `valid` unless forged."""

    signer: bytes
    message: bytes
    within: bool = True
    valid: bool = True


@dataclass(frozen=True, slots=True)
class Statements:
    """The Ed25519 precompile."""

    entries: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """Lamports from a wallet to any address."""

    source: bytes
    to: bytes
    lamports: int


@dataclass(frozen=True, slots=True)
class Donate:
    """Tokens from a wallet's associated account to any token account."""

    source: bytes
    to: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class CreateToken:
    """The associated token account of a wallet, made when it is missing."""

    wallet: bytes


@dataclass(frozen=True, slots=True)
class CloseToken:
    """A wallet closes its associated token account."""

    wallet: bytes


@dataclass(frozen=True, slots=True)
class Noise:
    """An instruction that does nothing here: a compute budget."""


Step = Call | Statements | Transfer | Donate | CreateToken | CloseToken | Noise


@dataclass(frozen=True, slots=True)
class Refusal:
    """Custom(code) of the instruction at `index`."""

    index: int
    code: int


class Refused(Exception):
    """Inside the model: the instruction ends here. `execute` turns it into a value."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"{code}: {layout.ERRORS.get(code, 'of another program')}")


def require(condition: object, code: int) -> None:
    if not condition:
        raise Refused(code)


@lru_cache(maxsize=4096)
def derived(kind: str, program: bytes, about: bytes = b"") -> bytes:
    """Address of an account of ours: config, stake_vault, program_data, or of a node, job or vault."""
    where = getattr(layout, f"{kind}_address")
    return bytes(where(Pubkey(program), about) if about else where(Pubkey(program)))


@lru_cache(maxsize=4096)
def associated(wallet: bytes, mint: bytes) -> bytes:
    return bytes(layout.associated_token_address(Pubkey(wallet), Pubkey(mint)))


def rent(length: int) -> int:
    return (128 + length) * LAMPORTS_PER_BYTE


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that the program can see. `hashes`: what SlotHashes holds; `authority` may upgrade the program."""

    program: bytes
    mint: bytes
    authority: bytes
    payer: bytes
    accounts: Mapping[bytes, Account]
    slot: int
    unix_s: int
    hashes: Mapping[int, bytes]

    def at(self, address: bytes) -> Account:
        return self.accounts.get(address, NOTHING)

    def tokens_at(self, address: bytes) -> int:
        body = self.at(address).body
        return body.amount if isinstance(body, Token) else 0

    def tokens(self) -> int:
        """All micro-CYX that exist."""
        return sum(a.body.amount for a in self.accounts.values() if isinstance(a.body, Token))

    def nodes(self) -> list[NodeAccount]:
        return [a.body for a in self.accounts.values() if isinstance(a.body, NodeAccount)]

    def job(self, job: bytes) -> JobAccount | None:
        body = self.at(derived("job", self.program, job)).body
        return body if isinstance(body, JobAccount) else None

    def config(self) -> ChainConfig | None:
        body = self.at(derived("config", self.program)).body
        return body if isinstance(body, ChainConfig) else None


class Work:
    """One instruction at work on a copy of the accounts."""

    def __init__(self, ledger: Ledger, metas: tuple[Meta, ...], data: bytes, before: Step | None) -> None:
        self.ledger, self.metas, self.data, self.before = ledger, metas, data, before
        self.accounts = dict(ledger.accounts)
        self.program = ledger.program

    def account(self, i: int) -> Account:
        return self.accounts.get(self.metas[i].address, NOTHING)

    def put(self, address: bytes, account: Account) -> None:
        if account.lamports:
            self.accounts[address] = account
        else:
            self.accounts.pop(address, None)

    def write(self, i: int, body: Body) -> None:
        self.put(self.metas[i].address, replace(self.account(i), body=body))

    def move_lamports(self, source: bytes, to: bytes, lamports: int) -> None:
        paying = self.accounts.get(source, NOTHING)
        require(paying.lamports >= lamports, 1)
        self.put(source, replace(paying, lamports=paying.lamports - lamports))
        paid = self.accounts.get(to, NOTHING)
        self.put(to, replace(paid, lamports=paid.lamports + lamports))

    def move_tokens(self, source: bytes, to: bytes, amount: int) -> None:
        paying = self.accounts[source]
        assert isinstance(paying.body, Token)
        require(paying.body.amount >= amount, 1)
        self.put(source, replace(paying, body=replace(paying.body, amount=paying.body.amount - amount)))
        paid = self.accounts[to]
        assert isinstance(paid.body, Token)
        self.put(to, replace(paid, body=replace(paid.body, amount=paid.body.amount + amount)))
