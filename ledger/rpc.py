"""The seam between the chain client and a cluster: a small part of Solana's JSON-RPC, as typed calls.

Two adapters: `http_rpc.HttpRpc` speaks to any cluster over HTTP, `direct_rpc.DirectRpc` to a `LocalCluster` in this
process, which is what virtual time needs. Addresses, hashes and owners are 32 raw bytes; signatures are base58 text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..protocol.chain import ChainTime
from ..protocol.errors import ChainRejected
from .send_policy import Level, SendPolicy
from .transaction import error_text


@dataclass(frozen=True, slots=True)
class AccountData:
    """An account as read."""

    data: bytes
    owner: bytes
    lamports: int


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """A transaction that landed. `error` is Solana's error as JSON, None when it succeeded."""

    slot: int
    error: Any
    level: Level = "finalized"


@dataclass(frozen=True, slots=True)
class Blockhash:
    """A blockhash (32 bytes) and the slot in which the cluster named it."""

    value: bytes
    slot: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do now. `error` as in TransactionStatus; `units` of computation."""

    error: Any
    units: int
    logs: tuple[str, ...]


class TransactionFault(ChainRejected):
    """A transaction was refused before it landed, or landed and failed. `error` is Solana's error as JSON."""

    def __init__(self, error: Any, *, message: str = "", logs: tuple[str, ...] = (), code: int | None = None) -> None:
        self.error = error
        super().__init__(message or error_text(error), code=code, logs=logs)


class Rpc(Protocol):
    """What the chain client asks of a cluster. Every call raises ChainUnreachable when there is no answer."""

    @property
    def policy(self) -> SendPolicy:
        """How transactions are confirmed and priced on this cluster."""

    async def get_account(self, address: bytes) -> AccountData | None:
        """One account; None where there is none."""

    async def get_accounts(self, addresses: Sequence[bytes]) -> list[AccountData | None]:
        """At most RPC_ACCOUNTS_MAX accounts, read in one slot."""

    async def get_program_accounts(self, program: bytes, *, tag: int, size: int) -> list[tuple[bytes, AccountData]]:
        """Accounts of `program` whose first byte is `tag` and whose length is `size` bytes."""

    async def time(self) -> ChainTime:
        """Slot and Unix seconds of the Clock sysvar, as a program would read them."""

    async def genesis_hash(self) -> bytes:
        """Names the cluster."""

    async def rent(self, size: int) -> int:
        """Lamports that exempt an account of `size` bytes from rent."""

    async def latest_blockhash(self) -> Blockhash:
        """A blockhash to sign on."""

    async def blockhash_expired(self, blockhash: Blockhash) -> int | None:
        """The slot by which no transaction on `blockhash` could land any more; None while one can.

        Raises ChainUnreachable when the server is behind the slot of `blockhash`, and may not know it yet.
        """

    async def send(self, transaction: bytes, *, since_slot: int = 0) -> str:
        """Check and forward; returns the signature. Raises TransactionFault when the preflight fails.

        Raises ChainUnreachable when the server is behind `since_slot`: its preflight would see an old chain.
        """

    async def simulate(self, transaction: bytes) -> Simulation:
        """Execute without keeping anything."""

    async def status(self, signature: str, *, since_slot: int = 0) -> TransactionStatus | None:
        """The outcome of a transaction at whatever level; None while it is unknown.

        Raises ChainUnreachable when the server is behind `since_slot`: several may stand behind one URL.
        """

    async def prioritization_fees(self, addresses: Sequence[bytes]) -> list[int]:
        """Micro-lamports a compute unit, the least that landed in each recent slot that wrote all `addresses`."""


class FaucetRpc(Rpc, Protocol):
    """A cluster that gives play money away: the local chain. The signature returned has landed or is about to."""

    async def request_airdrop(self, address: bytes, lamports: int) -> str:
        """SOL for fees. Raises ChainRejected when the faucet refuses the amount."""

    async def request_tokens(self, address: bytes, micro_cyx: int) -> str:
        """CYX into the associated account, which is created. Raises ChainRejected when the faucet refuses."""


class HistoryRpc(Rpc, Protocol):
    """A cluster that remembers transactions. Answers are JSON as the server wrote it: hostile until decoded."""

    async def signatures(self, address: bytes, *, limit: int, before: str | None = None) -> list[dict[str, Any]]:
        """At most `limit` transactions that name `address`, newest first, older than `before`."""

    async def transaction(self, signature: str) -> dict[str, Any] | None:
        """A confirmed transaction as getTransaction writes it with encoding `base64`; None where it is not known."""
