"""`Rpc` over HTTP on solana-py's AsyncClient, under trio, against any Solana cluster.

solana-py's own confirmation needs asyncio, so confirming is `sender`'s business. Every failure of the transport
becomes ChainUnreachable within CHAIN_REQUEST_TIMEOUT_S; what the cluster refuses becomes ChainRejected.
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import trio
from solana.exceptions import SolanaRpcException
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Commitment, Confirmed
from solana.rpc.core import RPCException, RPCNoResultException
from solana.rpc.jsonrpc import JsonRpcRequest, SolanaJsonRpcError
from solana.rpc.models import MemcmpOpts
from solders.account import Account
from solders.errors import SerdeJSONError
from solders.pubkey import Pubkey
from solders.rpc.errors import (
    InternalErrorMessage,
    MinContextSlotNotReachedMessage,
    NodeUnhealthyMessage,
)
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from ..protocol.chain import ChainTime
from ..protocol.errors import ChainRejected, ChainUnreachable, CyxError, LocalError
from ..protocol.limits import CHAIN_REQUEST_TIMEOUT_S
from ..protocol.units import base58, parse_id
from .addresses import CLOCK_SYSVAR
from .rpc import AccountData, Blockhash, Simulation, TransactionFault, TransactionStatus
from .send_policy import LEVELS, SendPolicy

A = TypeVar("A")
T = TypeVar("T")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_METHOD_NOT_FOUND, _PREFLIGHT_FAILURE = -32601, -32002
_UNWELL = {
    -32603: "is not well",
    -32005: "is not well",
    -32004: "is behind",
    -32014: "is behind",
    -32016: "is behind",
}
"""Codes after which the same call may succeed, here or on another server behind the same URL."""
_SOLDERS_CODES = {InternalErrorMessage: -32603, NodeUnhealthyMessage: -32005, MinContextSlotNotReachedMessage: -32016}
_CLOCK = struct.Struct("<QqQQq")


@asynccontextmanager
async def open_http_rpc(url: str, policy: SendPolicy | None = None) -> AsyncIterator[HttpRpc]:
    """An HttpRpc whose connections close with the context. LocalError when `url` is not one."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LocalError(f"{url!r} is not a URL of an RPC server", field="rpc", fix="write http://127.0.0.1:8899")
    policy = policy or SendPolicy()
    client = AsyncClient(url, commitment=Commitment(policy.commitment), timeout=CHAIN_REQUEST_TIMEOUT_S, http2=False)
    if parts.hostname in _LOOPBACK:
        # A proxy of the environment must not stand between this machine and itself.
        client._provider.session = httpx2.AsyncClient(timeout=CHAIN_REQUEST_TIMEOUT_S, trust_env=False, verify=False)
    async with client:
        yield HttpRpc(client, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", policy)


class HttpRpc:
    """See Rpc and HistoryRpc. Also FaucetRpc on the local chain and, for SOL alone, on Solana's test networks.

    `name` stands for the server in messages: its URL without what may be secret, like the key of a provider.
    """

    def __init__(self, client: AsyncClient, name: str, policy: SendPolicy) -> None:
        self._client = client
        self._name = name
        self.policy = policy

    async def get_account(self, address: bytes) -> AccountData | None:
        """See Rpc."""
        asked = self._client.get_account_info(Pubkey.from_bytes(address))
        return await self._ask(asked, lambda response: _data(response.value))

    async def get_accounts(self, addresses: Sequence[bytes]) -> list[AccountData | None]:
        """See Rpc."""
        keys = [Pubkey.from_bytes(address) for address in addresses]
        asked = self._client.get_multiple_accounts(keys)
        return await self._ask(asked, lambda response: [_data(account) for account in response.value])

    async def get_program_accounts(self, program: bytes, *, tag: int, size: int) -> list[tuple[bytes, AccountData]]:
        """See Rpc."""
        filters: list[int | MemcmpOpts] = [size, MemcmpOpts(offset=0, bytes=base58(bytes([tag])))]
        key = Pubkey.from_bytes(program)
        asked = self._client.get_program_accounts(key, encoding="base64", filters=filters)
        found = await self._ask(asked, lambda response: [(bytes(x.pubkey), _data(x.account)) for x in response.value])
        return [(address, data) for address, data in found if data is not None]

    async def time(self) -> ChainTime:
        """See Rpc."""
        account = await self.get_account(bytes(CLOCK_SYSVAR))
        if account is None or len(account.data) < _CLOCK.size:
            raise ChainUnreachable(f"{self._name} has no readable Clock")
        slot, _, _, _, unix_s = _CLOCK.unpack_from(account.data)
        return ChainTime(slot, unix_s)

    async def genesis_hash(self) -> bytes:
        """See Rpc."""
        return self._hash(await self._call("getGenesisHash", [], str))

    async def rent(self, size: int) -> int:
        """See Rpc."""
        asked = self._client.get_minimum_balance_for_rent_exemption(size)
        return await self._ask(asked, lambda response: int(response.value))

    async def latest_blockhash(self) -> Blockhash:
        """See Rpc."""
        answer = await self._call("getLatestBlockhash", [{"commitment": "confirmed"}], dict[str, Any])
        context, value = answer.get("context"), answer.get("value")
        slot = context.get("slot") if isinstance(context, dict) else None
        if not isinstance(slot, int) or not isinstance(value, dict):
            raise self._strange()
        return Blockhash(self._hash(value.get("blockhash")), slot)

    async def blockhash_expired(self, blockhash: Blockhash) -> int | None:
        """See Rpc."""
        options = {"commitment": "confirmed", "minContextSlot": blockhash.slot}
        answer = await self._call("isBlockhashValid", [base58(blockhash.value), options], dict[str, Any])
        context = answer.get("context")
        slot = context.get("slot") if isinstance(context, dict) else None
        if not isinstance(slot, int) or slot < blockhash.slot:
            raise ChainUnreachable(f"{self._name} is behind slot {blockhash.slot}")
        return None if answer.get("value") is True else slot

    async def send(self, transaction: bytes, *, since_slot: int = 0) -> str:
        """See Rpc."""
        options = {"encoding": "base64", "preflightCommitment": "confirmed", "minContextSlot": since_slot}
        return await self._call("sendTransaction", [b64encode(transaction).decode(), options], str)

    async def simulate(self, transaction: bytes) -> Simulation:
        """See Rpc."""
        parsed = VersionedTransaction.from_bytes(transaction)
        asked = self._client.simulate_transaction(parsed, commitment=Confirmed)
        outcome = await self._ask(asked, lambda response: json.loads(response.value.to_json()))
        logs = tuple(str(line) for line in outcome.get("logs") or ())
        return Simulation(outcome.get("err"), int(outcome.get("unitsConsumed") or 0), logs)

    async def status(self, signature: str, *, since_slot: int = 0) -> TransactionStatus | None:
        """See Rpc."""
        name = Signature.from_string(signature)
        asked = self._client.get_signature_statuses([name], search_transaction_history=True)
        slot, found = await self._ask(asked, _status)
        if slot < since_slot:
            raise ChainUnreachable(f"{self._name} is behind slot {since_slot}")
        if found is None:
            return None
        level = found.get("confirmationStatus")
        return TransactionStatus(int(found["slot"]), found.get("err"), level if level in LEVELS else "processed")

    async def prioritization_fees(self, addresses: Sequence[bytes]) -> list[int]:
        """See Rpc."""
        keys = [Pubkey.from_bytes(address) for address in addresses]
        asked = self._client.get_recent_prioritization_fees(keys)
        return await self._ask(asked, lambda response: [fee.prioritization_fee for fee in response.value])

    async def request_airdrop(self, address: bytes, lamports: int) -> str:
        """See FaucetRpc."""
        asked = self._client.request_airdrop(Pubkey.from_bytes(address), lamports)
        return await self._ask(asked, lambda response: str(response.value))

    async def request_tokens(self, address: bytes, micro_cyx: int) -> str:
        """See FaucetRpc."""
        try:
            return await self._call("cyx_requestTokens", [base58(address), micro_cyx], str)
        except ChainRejected as error:
            if isinstance(error.__cause__, SolanaJsonRpcError) and error.__cause__.code == _METHOD_NOT_FOUND:
                text = f"{self._name} gives no CYX away: only a local chain does"
                raise LocalError(text, field="cyx", fix="ask for SOL alone: --cyx 0") from error
            raise

    async def signatures(
        self, address: bytes, *, limit: int, before: str | None = None, until: str | None = None
    ) -> list[dict[str, Any]]:
        """See HistoryRpc. Without `until` and what is older."""
        bounds = {name: value for name, value in (("before", before), ("until", until)) if value}
        options = {"limit": limit, "commitment": "confirmed", **bounds}
        return await self._call("getSignaturesForAddress", [base58(address), options], list[dict[str, Any]])

    async def transaction(self, signature: str) -> dict[str, Any] | None:
        """See HistoryRpc."""
        options = {"encoding": "base64", "commitment": "confirmed", "maxSupportedTransactionVersion": 0}
        return await self._call("getTransaction", [signature, options], dict[str, Any] | None)  # type: ignore[arg-type]

    async def _call(self, method: str, params: list[Any], kind: type[T]) -> T:
        request = JsonRpcRequest(method=method, params=params)
        return await self._ask(self._client.send_rpc_request(request, kind), lambda result: result)

    async def _ask(self, answer: Awaitable[A], read: Callable[[A], T]) -> T:
        """What `read` makes of an answer. solders reads some fields late, and panics over what it does not expect."""
        try:
            with trio.fail_after(CHAIN_REQUEST_TIMEOUT_S):
                return read(await answer)
        except trio.TooSlowError:
            text = f"no answer from {self._name} within {CHAIN_REQUEST_TIMEOUT_S:.0f} s"
            raise ChainUnreachable(text) from None
        except SolanaRpcException as error:
            raise ChainUnreachable(f"{self._name} {_transport_failure(error)}") from error
        except (RPCException, SolanaJsonRpcError) as error:
            raise self._refusal(error) from error
        except (RPCNoResultException, SerdeJSONError, ValueError, AttributeError, TypeError, LookupError) as error:
            # What solders makes of a strange answer may be of any type, and lack what it should have.
            raise self._strange() from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # a BaseException, which nobody can import
                raise
            raise self._strange() from error

    def _hash(self, text: object) -> bytes:
        """32 bytes in base58."""
        try:
            return parse_id(str(text), field="hash")
        except LocalError:
            raise self._strange() from None

    def _strange(self) -> ChainUnreachable:
        return ChainUnreachable(f"{self._name} answered something else than Solana's JSON-RPC")

    def _refusal(self, error: RPCException | SolanaJsonRpcError) -> CyxError:
        """Read an error, which solana-py gives as its own or, where it knows the code, as one of solders' messages."""
        if isinstance(error, SolanaJsonRpcError):
            code, text, data = error.code, error.message, error.data
        else:
            detail = error.args[0] if error.args else ""
            code = next((number for kind, number in _SOLDERS_CODES.items() if isinstance(detail, kind)), 0)
            text, data = str(getattr(detail, "message", detail)), None
        if code in _UNWELL:
            return ChainUnreachable(f"{self._name} {_UNWELL[code]}: {text}")
        if code == _PREFLIGHT_FAILURE and isinstance(data, dict):
            logs = tuple(str(line) for line in data.get("logs") or ())
            return TransactionFault(data.get("err"), logs=logs)
        return ChainRejected(text)


def _status(response: Any) -> tuple[int, dict[str, Any] | None]:
    """(The slot that the server has seen, the status of the one signature that was asked for)."""
    found = json.loads(response.value[0].to_json()) if response.value and response.value[0] else None
    return response.context.slot, found


def _data(account: Account | None) -> AccountData | None:
    return AccountData(bytes(account.data), bytes(account.owner), account.lamports) if account else None


def _transport_failure(error: BaseException) -> str:
    """What went wrong below JSON-RPC, without the URL, in which a provider's key may stand."""
    while error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, httpx2.HTTPStatusError):
        return f"did not answer: {error or type(error).__name__}"
    code = error.response.status_code
    hint = _HTTP_HINTS.get(code, "")
    return f"answered HTTP {code}{hint and ': ' + hint}"


_HTTP_HINTS = {
    401: "it does not know this client; check the key in --rpc",
    403: "it refuses this client; check the key in --rpc",
    404: "there is nothing at this path; check --rpc",
    413: "the request is too large for it; choose another RPC server",
    429: "it limits how often one may ask; wait, or choose another RPC server",
}
