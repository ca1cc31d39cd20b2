"""How a client wants accounts: encoding and part of their data, and the filters of program accounts.

Both getProgramAccounts and programSubscribe, and everything else that hands accounts out, read their options here.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any

from solders.account import Account

from ..protocol.limits import ACCOUNT_FILTERS_MAX
from .cluster import LocalCluster
from .escrow_layout import TOKEN_PROGRAM
from .rpc_json import ENCODINGS, Decimals, account_json
from .rpc_params import INVALID_PARAMS, RpcFault, base58_bytes
from .token import read_mint, read_token_account


@dataclass(frozen=True, slots=True)
class AccountFormat:
    """`part` is (offset, length) of the data in bytes; None is all of it."""

    encoding: str
    part: tuple[int, int] | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> AccountFormat:
        """Read `encoding` and `dataSlice`; without an encoding Solana writes bare base58, called binary."""
        encoding = options.get("encoding") or "binary"
        if encoding == "base64+zstd":
            raise RpcFault(INVALID_PARAMS, "Invalid params: encoding: base64+zstd is not served; use base64")
        if encoding not in ENCODINGS:
            known = ", ".join(ENCODINGS)
            raise RpcFault(INVALID_PARAMS, f"Invalid params: encoding: {str(encoding)[:32]!r} is not one of {known}")
        return cls(encoding, _data_slice(options))

    def write(self, account: Account | None, decimals: Decimals) -> Any:
        """UiAccount, None for None; RpcFault when it is too large for base58."""
        return account_json(account, self.encoding, self.part, decimals)


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on the data of an account, all of which must hold."""

    sizes: tuple[int, ...]
    contents: tuple[tuple[int, bytes], ...]
    token_accounts: bool

    @classmethod
    def of(cls, options: dict[str, Any]) -> Filters:
        """Read `filters`: dataSize, memcmp and tokenAccountState, at most ACCOUNT_FILTERS_MAX together."""
        wishes = options.get("filters") or []
        if not isinstance(wishes, list) or len(wishes) > ACCOUNT_FILTERS_MAX:
            raise RpcFault(INVALID_PARAMS, f"Too many filters provided; max {ACCOUNT_FILTERS_MAX}")
        sizes: list[int] = []
        contents: list[tuple[int, bytes]] = []
        token_accounts = False
        for wish in wishes:
            if isinstance(wish, dict) and isinstance(wish.get("dataSize"), int):
                sizes.append(wish["dataSize"])
            elif isinstance(wish, dict) and isinstance(wish.get("memcmp"), dict):
                contents.append(_memcmp(wish["memcmp"]))
            elif wish == "tokenAccountState" or (isinstance(wish, dict) and "tokenAccountState" in wish):
                token_accounts = True
            else:
                raise RpcFault(
                    INVALID_PARAMS, "Invalid params: filters: one is not dataSize, memcmp, tokenAccountState"
                )
        return cls(tuple(sizes), tuple(contents), token_accounts)

    def admit(self, account: Account) -> bool:
        """Whether `account` passes them all."""
        data = bytes(account.data)
        if self.token_accounts and (account.owner != TOKEN_PROGRAM or read_token_account(data) is None):
            return False
        return all(len(data) == size for size in self.sizes) and all(
            data[offset : offset + len(wanted)] == wanted for offset, wanted in self.contents
        )


def decimals_of(cluster: LocalCluster) -> Decimals:
    """Reads decimals from the mints of `cluster`."""

    def look_up(mint: bytes) -> int:
        account = cluster.account(mint)
        minted = read_mint(bytes(account.data)) if account and account.owner == TOKEN_PROGRAM else None
        return minted[1] if minted else 0

    return look_up


def _data_slice(options: dict[str, Any]) -> tuple[int, int] | None:
    wish = options.get("dataSlice")
    if wish is None:
        return None
    try:
        offset, length = wish["offset"], wish["length"]
    except (TypeError, KeyError):
        raise RpcFault(INVALID_PARAMS, "Invalid params: dataSlice needs offset and length") from None
    if not all(isinstance(value, int) and 0 <= value < 2**32 for value in (offset, length)):
        raise RpcFault(INVALID_PARAMS, "Invalid params: dataSlice needs unsigned integers")
    return offset, length


def _memcmp(wish: dict[str, Any]) -> tuple[int, bytes]:
    offset, text = wish.get("offset"), wish.get("bytes")
    if not isinstance(offset, int) or not 0 <= offset < 2**32:
        raise RpcFault(INVALID_PARAMS, "Invalid params: memcmp needs an offset")
    if isinstance(text, list) and len(text) <= 128 and all(isinstance(b, int) and 0 <= b < 256 for b in text):
        return offset, bytes(text)
    if not isinstance(text, str) or len(text) > 256:
        raise RpcFault(INVALID_PARAMS, "Invalid params: memcmp needs at most 128 encoded bytes")
    if wish.get("encoding") == "base64":
        try:
            return offset, b64decode(text, validate=True)
        except Base64Error as error:
            raise RpcFault(INVALID_PARAMS, f"invalid base64 encoding: {error}") from error
    return offset, base58_bytes(text)
