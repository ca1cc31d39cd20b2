"""The JSON-RPC methods that search accounts: by program with filters, and SPL Token accounts by owner or mint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey

from ..protocol.limits import LARGEST_ACCOUNTS_MAX
from .account_format import AccountFormat, Filters, decimals_of
from .cluster import LocalCluster
from .escrow_layout import TOKEN_PROGRAM
from .rpc_json import Json, token_amount
from .rpc_params import INVALID_PARAMS, Params, RpcFault, address
from .token import TokenAccount, read_mint, read_token_account


class TokenMethods:
    """Handlers for `RpcMethods`."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._decimals = decimals_of(cluster)

    def program_accounts(self, params: Params) -> Any:
        """getProgramAccounts: accounts of a program that pass every filter."""
        options = params.options(1)
        filters, form = Filters.of(options), AccountFormat.of(options)
        found = [
            (key, account)
            for key, account in self._cluster.program_accounts(params.address(0))
            if filters.admit(account)
        ]
        keyed = self._keyed(found, form)
        return self._with_context(keyed) if options.get("withContext") else keyed

    def accounts_by_owner(self, params: Params) -> Json:
        """getTokenAccountsByOwner: by mint, or all of the token program."""
        owner, choice, form = params.address(0), params.options(1), AccountFormat.of(params.options(2))
        mint = address(choice["mint"]) if "mint" in choice else None
        if mint is None and address(choice.get("programId")) != bytes(TOKEN_PROGRAM):
            return self._with_context([])
        found = [
            (key, account)
            for key, account, held in self._token_accounts()
            if held.owner == owner and mint in (None, held.mint)
        ]
        return self._with_context(self._keyed(found, form))

    def largest_accounts(self, params: Params) -> Json:
        """getTokenLargestAccounts: at most LARGEST_ACCOUNTS_MAX of a mint."""
        mint = params.address(0)
        _, decimals = self._mint(mint)
        held = [(account.amount, str(key)) for key, _, account in self._token_accounts() if account.mint == mint]
        largest = sorted(held, key=lambda one: (-one[0], one[1]))[:LARGEST_ACCOUNTS_MAX]
        return self._with_context([{"address": key, **token_amount(amount, decimals)} for amount, key in largest])

    def account_balance(self, params: Params) -> Json:
        """getTokenAccountBalance."""
        account = self._cluster.account(params.address(0))
        held = read_token_account(bytes(account.data)) if account and account.owner == TOKEN_PROGRAM else None
        if held is None:
            raise RpcFault(INVALID_PARAMS, "Invalid param: could not find account")
        return self._with_context(token_amount(held.amount, self._decimals(held.mint)))

    def supply(self, params: Params) -> Json:
        """getTokenSupply."""
        return self._with_context(token_amount(*self._mint(params.address(0))))

    def _mint(self, mint: bytes) -> tuple[int, int]:
        account = self._cluster.account(mint)
        minted = read_mint(bytes(account.data)) if account and account.owner == TOKEN_PROGRAM else None
        if minted is None:
            raise RpcFault(INVALID_PARAMS, "Invalid param: could not find mint")
        return minted

    def _token_accounts(self) -> Iterator[tuple[Pubkey, Account, TokenAccount]]:
        for key, account in self._cluster.program_accounts(bytes(TOKEN_PROGRAM)):
            held = read_token_account(bytes(account.data))
            if held is not None:
                yield key, account, held

    def _keyed(self, accounts: list[tuple[Pubkey, Account]], form: AccountFormat) -> list[Json]:
        return [{"pubkey": str(key), "account": form.write(account, self._decimals)} for key, account in accounts]

    def _with_context(self, value: Any) -> Json:
        return {"context": {"slot": self._cluster.slot}, "value": value}
