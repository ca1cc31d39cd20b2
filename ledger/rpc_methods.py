"""The methods of the local chain's JSON-RPC: those that solana-py, wallets and our own client call.

The chain is final at once, so every commitment level is honoured. Not served: votes, stakes, leader schedules.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from solders.message import from_bytes_versioned
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from ..protocol.errors import LocalError
from ..protocol.limits import SIGNATURE_STATUSES_MAX, SIGNATURES_PAGE_MAX
from ..protocol.units import base58
from .account_format import AccountFormat, decimals_of
from .addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from .cluster import LocalCluster
from .local_faucet import airdrop, give_tokens
from .rpc_chain_methods import CORE_VERSION, ChainMethods
from .rpc_json import Json, status_json, token_amount
from .rpc_params import INVALID_PARAMS, METHOD_NOT_FOUND, PREFLIGHT_FAILURE, Params, RpcFault, require_context
from .rpc_token_methods import TokenMethods
from .transaction import TransactionRefused
from .transaction_json import landed_json, transaction_encoding

LAMPORTS_PER_SIGNATURE = 5000


class RpcMethods:
    """Answers calls from a cluster. `call` raises RpcFault for what the client has to hear."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._decimals = decimals_of(cluster)
        tokens = TokenMethods(cluster)
        self._methods: dict[str, Callable[[Params], Any]] = {
            **ChainMethods(cluster).table,
            "getLatestBlockhash": self._latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            "getBalance": self._balance,
            "getAccountInfo": self._account_info,
            "getMultipleAccounts": self._multiple_accounts,
            "getProgramAccounts": tokens.program_accounts,
            "getTokenAccountBalance": tokens.account_balance,
            "getTokenAccountsByOwner": tokens.accounts_by_owner,
            "getTokenLargestAccounts": tokens.largest_accounts,
            "getTokenSupply": tokens.supply,
            "getMinimumBalanceForRentExemption": lambda params: cluster.rent(min(params.natural(0), 2**32)),
            "getFeeForMessage": self._fee_for_message,
            "getRecentPrioritizationFees": lambda _: [{"slot": cluster.slot, "prioritizationFee": 0}],
            "simulateTransaction": self._simulate,
            "sendTransaction": self._send,
            "getSignatureStatuses": self._signature_statuses,
            "getSignaturesForAddress": self._signatures_for_address,
            "getTransaction": self._transaction,
            "requestAirdrop": lambda params: _faucet(airdrop, cluster, params),
            "cyx_requestTokens": lambda params: _faucet(give_tokens, cluster, params),
            "cyx_info": self._info,
        }

    def call(self, method: str, params: Any) -> Any:
        """The result of one call; RpcFault for everything that the caller got wrong."""
        handler = self._methods.get(method)
        if handler is None:
            raise RpcFault(METHOD_NOT_FOUND, f"Method not found: {method[:64]}. {self._hint(method[:64])}")
        require_context(params, self._cluster.slot)
        return handler(Params(params))

    def _hint(self, method: str) -> str:
        if method.endswith(("Subscribe", "Unsubscribe")):
            return "Subscribe over a websocket: ws:// on this port or the next one"
        near = get_close_matches(method, self._methods, 1)
        return f"Did you mean {near[0]}?" if near else f"Served: {', '.join(sorted(self._methods))}"

    def _with_context(self, value: Any) -> Json:
        return {"context": {"slot": self._cluster.slot, "apiVersion": CORE_VERSION}, "value": value}

    def _latest_blockhash(self, _: Params) -> Json:
        blockhash, last = self._cluster.latest_blockhash()
        return self._with_context({"blockhash": base58(blockhash), "lastValidBlockHeight": last})

    def _is_blockhash_valid(self, params: Params) -> Json:
        return self._with_context(self._cluster.is_blockhash_valid(params.address(0)))

    def _balance(self, params: Params) -> Json:
        account = self._cluster.account(params.address(0))
        return self._with_context(account.lamports if account else 0)

    def _account_info(self, params: Params) -> Json:
        form = AccountFormat.of(params.options(1))
        return self._with_context(form.write(self._cluster.account(params.address(0)), self._decimals))

    def _multiple_accounts(self, params: Params) -> Json:
        form = AccountFormat.of(params.options(1))
        accounts = (self._cluster.account(address) for address in params.addresses(0))
        return self._with_context([form.write(account, self._decimals) for account in accounts])

    def _fee_for_message(self, params: Params) -> Json:
        raw = params.transaction(0, "base64")
        try:
            message = from_bytes_versioned(raw)
        except ValueError as error:
            raise RpcFault(INVALID_PARAMS, f"invalid message: {error}") from error
        if not self._cluster.is_blockhash_valid(bytes(message.recent_blockhash)):
            return self._with_context(None)
        signatures = message.header.num_required_signatures
        unsigned = VersionedTransaction.populate(message, [Signature.default()] * signatures)
        result = self._cluster.simulate(bytes(unsigned), verify=False)
        if isinstance(result, TransactionRefused):
            return self._with_context(LAMPORTS_PER_SIGNATURE * signatures)
        return self._with_context(result.meta().fee())

    def _simulate(self, params: Params) -> Json:
        options = params.options(1)
        raw = params.transaction(0, options.get("encoding"))
        replace = bool(options.get("replaceRecentBlockhash"))
        result = self._cluster.simulate(raw, verify=bool(options.get("sigVerify")), check_blockhash=not replace)
        blockhash, last = self._cluster.latest_blockhash()
        replacement = {"blockhash": base58(blockhash), "lastValidBlockHeight": last} if replace else None
        if isinstance(result, TransactionRefused):
            _malformed(result)
            return self._with_context(_simulation(result.error, list(result.logs), result.units, replacement))
        meta = result.meta()
        value = _simulation(None, meta.logs(), meta.compute_units_consumed(), replacement)
        wanted = options.get("accounts")
        if isinstance(wanted, dict):
            after = {str(address): account for address, account in result.post_accounts()}
            names = Params([wanted.get("addresses")]).texts(0)
            form = AccountFormat.of({"encoding": wanted.get("encoding") or "base64"})
            value["accounts"] = [form.write(after.get(str(name)), self._decimals) for name in names]
        returned = meta.return_data()
        if returned.data:
            data = [b64encode(bytes(returned.data)).decode(), "base64"]
            value["returnData"] = {"programId": str(returned.program_id), "data": data}
        return self._with_context(value)

    def _send(self, params: Params) -> str:
        options = params.options(1)
        raw = params.transaction(0, options.get("encoding"))
        try:
            return self._cluster.send(raw, preflight=not options.get("skipPreflight"))
        except TransactionRefused as refusal:
            _malformed(refusal)
            data = _simulation(refusal.error, list(refusal.logs), refusal.units, None)
            raise RpcFault(PREFLIGHT_FAILURE, f"Transaction simulation failed: {refusal}", data) from refusal

    def _signature_statuses(self, params: Params) -> Json:
        names = params.texts(0, SIGNATURE_STATUSES_MAX)
        records = [self._cluster.transaction(name) if isinstance(name, str) else None for name in names]
        return self._with_context([status_json(record) if record else None for record in records])

    def _signatures_for_address(self, params: Params) -> list[Json]:
        options = params.options(1)
        before, until = options.get("before"), options.get("until")
        limit = SIGNATURES_PAGE_MAX if options.get("limit") is None else options["limit"]
        if not isinstance(limit, int) or not 1 <= limit <= SIGNATURES_PAGE_MAX:
            raise RpcFault(INVALID_PARAMS, f"Invalid limit; max {SIGNATURES_PAGE_MAX}")
        if not isinstance(before, str | None):
            raise RpcFault(INVALID_PARAMS, "Invalid param: before is not a signature")
        records = self._cluster.transactions_of(params.address(0), before=before)
        names = [record.signature for record in records]
        last = names.index(until) if until in names else len(names)
        return [
            {
                "signature": record.signature, "slot": record.slot, "blockTime": record.unix_s, "memo": None,
                "err": status_json(record)["err"], "confirmationStatus": "finalized",
            }
            for record in records[:last][:limit]
        ]  # fmt: skip

    def _transaction(self, params: Params) -> Json | None:
        wish = params.at(1, object, {})
        options: dict[str, Any] = wish if isinstance(wish, dict) else {"encoding": wish}
        encoding, newest = transaction_encoding(options.get("encoding")), options.get("maxSupportedTransactionVersion")
        record = self._cluster.transaction(params.at(0, str))
        return landed_json(record, encoding, self._decimals, newest_version=newest) if record else None

    def _info(self, _: Params) -> Json:
        mint = self._cluster.account(LOCAL_MINT)
        supply = int.from_bytes(bytes(mint.data)[36:44], "little") if mint else 0
        return {
            "program": base58(LOCAL_PROGRAM_ID), "mint": base58(LOCAL_MINT),
            "genesis": base58(self._cluster.genesis_hash),
            "faucet": str(self._cluster.faucet.pubkey()), "slot": self._cluster.slot,
            "unixTimestamp": self._cluster.unix_s, "supply": token_amount(supply),
        }  # fmt: skip


def _faucet(give: Callable[[LocalCluster, bytes, int], str], cluster: LocalCluster, params: Params) -> str:
    address, amount = params.address(0), params.natural(1)
    try:
        return give(cluster, address, amount)
    except (LocalError, TransactionRefused) as error:
        raise RpcFault(INVALID_PARAMS, f"Invalid request: {error}") from error


def _malformed(refusal: TransactionRefused) -> None:
    if refusal.error == "":
        raise RpcFault(INVALID_PARAMS, f"failed to deserialize transaction: {refusal}") from refusal


def _simulation(error: Any, logs: list[str], units: int, replacement: Json | None) -> Json:
    return {
        "err": error, "logs": logs, "accounts": None, "unitsConsumed": units, "returnData": None,
        "innerInstructions": None, "replacementBlockhash": replacement, "loadedAccountsDataSize": None, "fee": None,
        "loadedAddresses": None, "preBalances": None, "postBalances": None, "preTokenBalances": None,
        "postTokenBalances": None,
    }  # fmt: skip
