"""`Rpc` on a LocalCluster in this process: no socket, no thread, works in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import trio
from solders.account import Account

from ..protocol.chain import ChainTime
from ..protocol.errors import ChainRejected, LocalError
from .account_format import decimals_of
from .cluster import LocalCluster
from .local_faucet import airdrop, give_tokens
from .rpc import AccountData, Blockhash, Simulation, TransactionFault, TransactionStatus
from .send_policy import SendPolicy
from .transaction import TransactionRefused
from .transaction_json import landed_json


class DirectRpc:
    """Every call is a checkpoint, then a direct call into the cluster. Several clients may share one cluster."""

    policy = SendPolicy(priority_fee_max_lamports=0)

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    async def get_account(self, address: bytes) -> AccountData | None:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        return _data(self._cluster.account(address))

    async def get_accounts(self, addresses: Sequence[bytes]) -> list[AccountData | None]:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        return [_data(self._cluster.account(address)) for address in addresses]

    async def get_program_accounts(self, program: bytes, *, tag: int, size: int) -> list[tuple[bytes, AccountData]]:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        return [
            (bytes(address), AccountData(account.data, bytes(account.owner), account.lamports))
            for address, account in self._cluster.program_accounts(program)
            if len(account.data) == size and account.data[:1] == bytes([tag])
        ]

    async def time(self) -> ChainTime:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        return ChainTime(self._cluster.slot, self._cluster.unix_s)

    async def genesis_hash(self) -> bytes:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        return self._cluster.genesis_hash

    async def rent(self, size: int) -> int:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        return self._cluster.rent(size)

    async def latest_blockhash(self) -> Blockhash:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        return Blockhash(self._cluster.latest_blockhash()[0], self._cluster.slot)

    async def blockhash_expired(self, blockhash: Blockhash) -> int | None:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        return None if self._cluster.is_blockhash_valid(blockhash.value) else self._cluster.slot

    async def send(self, transaction: bytes, *, since_slot: int = 0) -> str:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        try:
            return self._cluster.send(transaction)
        except TransactionRefused as refusal:
            raise TransactionFault(refusal.error, message=str(refusal), logs=refusal.logs) from refusal

    async def simulate(self, transaction: bytes) -> Simulation:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        result = self._cluster.simulate(transaction)
        if isinstance(result, TransactionRefused):
            return Simulation(result.error, result.units, result.logs)
        return Simulation(None, result.meta().compute_units_consumed(), tuple(result.meta().logs()))

    async def prioritization_fees(self, addresses: Sequence[bytes]) -> list[int]:
        """See Rpc. Nobody pays any here."""
        await trio.lowlevel.checkpoint()
        return [0]

    async def status(self, signature: str, *, since_slot: int = 0) -> TransactionStatus | None:
        """See Rpc."""
        await trio.lowlevel.checkpoint()
        record = self._cluster.transaction(signature)
        if record is None:
            return None
        return TransactionStatus(record.slot, json.loads(record.error) if record.error else None)

    async def signatures(self, address: bytes, *, limit: int, before: str | None = None) -> list[dict[str, Any]]:
        """See HistoryRpc."""
        await trio.lowlevel.checkpoint()
        records = self._cluster.transactions_of(address, before=before)[:limit]
        return [{"signature": record.signature, "slot": record.slot} for record in records]

    async def transaction(self, signature: str) -> dict[str, Any] | None:
        """See HistoryRpc."""
        await trio.lowlevel.checkpoint()
        record = self._cluster.transaction(signature)
        decimals = decimals_of(self._cluster)
        return landed_json(record, "base64", decimals, newest_version=0) if record is not None else None

    async def request_airdrop(self, address: bytes, lamports: int) -> str:
        """See FaucetRpc."""
        return await self._faucet(airdrop, address, lamports)

    async def request_tokens(self, address: bytes, micro_cyx: int) -> str:
        """See FaucetRpc."""
        return await self._faucet(give_tokens, address, micro_cyx)

    async def _faucet(self, give: Callable[[LocalCluster, bytes, int], str], address: bytes, amount: int) -> str:
        await trio.lowlevel.checkpoint()
        try:
            return give(self._cluster, address, amount)
        except (LocalError, TransactionRefused) as error:
            raise ChainRejected(str(error)) from error


def _data(account: Account | None) -> AccountData | None:
    return AccountData(account.data, bytes(account.owner), account.lamports) if account else None
