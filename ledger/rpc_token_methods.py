"""The JSON-RPC methods that search accounts: by program with filters, and SPL Token accounts by owner or mint."""

from __future__ import annotations

from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey

from .cluster import LocalCluster
from .escrow_layout import TOKEN_PROGRAM
from .rpc_json import Json, account_json, token_amount
from .rpc_params import INVALID_PARAMS, Params, RpcFault, account_filters, address, data_slice
from .token import read_mint, read_token_account


class TokenMethods:
    """Handlers for `RpcMethods`."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    def program_accounts(self, params: Params) -> Any:
        """getProgramAccounts: accounts of a program that pass every filter."""
        options = params.options(1)
        filters = account_filters(options)
        found = [
            (key, account)
            for key, account in self._cluster.program_accounts(params.address(0))
            if _passes(bytes(account.data), filters)
        ]
        keyed = _keyed(found, options)
        return self._with_context(keyed) if options.get("withContext") else keyed

    def accounts_by_owner(self, params: Params) -> Json:
        """getTokenAccountsByOwner: by mint, or all of the token program."""
        owner, choice, options = params.address(0), params.options(1), params.options(2)
        mint = address(choice["mint"]) if "mint" in choice else None
        if mint is None and address(choice.get("programId")) != bytes(TOKEN_PROGRAM):
            return self._with_context([])
        found: list[tuple[Pubkey, Account]] = []
        for key, account in self._cluster.program_accounts(bytes(TOKEN_PROGRAM)):
            held = read_token_account(bytes(account.data))
            if held and held.owner == owner and mint in (None, held.mint):
                found.append((key, account))
        return self._with_context(_keyed(found, options))

    def account_balance(self, params: Params) -> Json:
        """getTokenAccountBalance."""
        account = self._cluster.account(params.address(0))
        held = read_token_account(bytes(account.data)) if account and account.owner == TOKEN_PROGRAM else None
        if held is None:
            raise RpcFault(INVALID_PARAMS, "Invalid param: could not find account")
        return self._with_context(token_amount(held.amount, self._decimals(held.mint)))

    def supply(self, params: Params) -> Json:
        """getTokenSupply."""
        account = self._cluster.account(params.address(0))
        minted = read_mint(bytes(account.data)) if account and account.owner == TOKEN_PROGRAM else None
        if minted is None:
            raise RpcFault(INVALID_PARAMS, "Invalid param: could not find mint")
        return self._with_context(token_amount(*minted))

    def _decimals(self, mint: bytes) -> int:
        account = self._cluster.account(mint)
        minted = read_mint(bytes(account.data)) if account else None
        return minted[1] if minted else 0

    def _with_context(self, value: Any) -> Json:
        return {"context": {"slot": self._cluster.slot}, "value": value}


def _passes(data: bytes, filters: list[tuple[int, bytes | None]]) -> bool:
    return all(
        len(data) == number if wanted is None else data[number : number + len(wanted)] == wanted
        for number, wanted in filters
    )


def _keyed(accounts: list[tuple[Pubkey, Account]], options: dict[str, Any]) -> list[Json]:
    encoding, part = options.get("encoding", "base64"), data_slice(options)
    return [{"pubkey": str(key), "account": account_json(account, encoding, part)} for key, account in accounts]
