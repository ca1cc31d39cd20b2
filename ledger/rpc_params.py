"""Hostile JSON-RPC parameters, turned into values or refused with -32602."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any

from solders.pubkey import Pubkey
from solders.signature import Signature

from ..protocol.errors import CyxError, LocalError
from ..protocol.limits import RPC_ACCOUNTS_MAX, TRANSACTION_MAX_BYTES
from ..protocol.units import parse_id

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, PREFLIGHT_FAILURE, MIN_CONTEXT_SLOT = -32603, -32002, -32016
BLOCK_CLEANED_UP, BLOCK_NOT_AVAILABLE, VERSION_UNSUPPORTED = -32001, -32004, -32015
COMMITMENTS = ("processed", "confirmed", "finalized")
_BASE58_TEXT_MAX_CHARS = 2 * TRANSACTION_MAX_BYTES


class RpcFault(CyxError):
    """A JSON-RPC error: what the client gets instead of a result."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        self.code, self.data = code, data
        super().__init__(message)


def require_context(params: Any, slot: int) -> None:
    """Check `commitment` and `minContextSlot` wherever they are given: the chain is final at once and honours any."""
    for options in params if isinstance(params, list) else ():
        if not isinstance(options, dict):
            continue
        for name in ("commitment", "preflightCommitment"):
            level = options.get(name)
            if level is not None and level not in COMMITMENTS:
                text = f"Invalid params: {name}: {str(level)[:32]!r} is not one of {', '.join(COMMITMENTS)}"
                raise RpcFault(INVALID_PARAMS, text)
        least = options.get("minContextSlot")
        if least is None:
            continue
        if not isinstance(least, int) or isinstance(least, bool):
            raise RpcFault(INVALID_PARAMS, "Invalid params: minContextSlot must be an unsigned integer")
        if least > slot:
            raise RpcFault(MIN_CONTEXT_SLOT, "Minimum context slot has not been reached", {"contextSlot": slot})


class Params:
    """The positional parameters of one call."""

    __slots__ = ("_values",)

    def __init__(self, values: Any) -> None:
        if values is None:
            values = []
        if not isinstance(values, list):
            raise RpcFault(INVALID_PARAMS, "params must be an array")
        self._values: list[Any] = values

    def at(self, index: int, kind: type[Any], default: Any = None) -> Any:
        """Parameter `index` of JSON type `kind`; `default` when it is absent or null, unless that is None."""
        value = self._values[index] if index < len(self._values) else None
        if value is None and default is not None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise RpcFault(INVALID_PARAMS, f"Invalid params: parameter {index} must be a {kind.__name__}")
        return value

    def options(self, index: int) -> dict[str, Any]:
        """The configuration object at `index`, or an empty one."""
        value: dict[str, Any] = self.at(index, dict, {})
        return value

    def natural(self, index: int) -> int:
        """An unsigned 64-bit integer."""
        value: int = self.at(index, int)
        if not 0 <= value < 2**64:
            raise RpcFault(INVALID_PARAMS, f"Invalid params: parameter {index} must be an unsigned integer")
        return value

    def address(self, index: int) -> bytes:
        """A base58 address as 32 bytes."""
        return address(self.at(index, str))

    def signature(self, index: int) -> str:
        """A transaction's signature in base58, 64 bytes."""
        try:
            return str(Signature.from_string(self.at(index, str)))
        except ValueError as error:
            raise RpcFault(INVALID_PARAMS, f"Invalid param: {error}") from error

    def addresses(self, index: int) -> list[bytes]:
        """At most RPC_ACCOUNTS_MAX addresses."""
        return [address(value) for value in self.texts(index)]

    def texts(self, index: int, most: int = RPC_ACCOUNTS_MAX) -> list[Any]:
        """An array of at most `most` values."""
        values: list[Any] = self.at(index, list)
        if len(values) > most:
            raise RpcFault(INVALID_PARAMS, f"Too many inputs provided; max {most}")
        return values

    def transaction(self, index: int, encoding: Any) -> bytes:
        """Bytes of a transaction or message in base64, or base58 when `encoding` says nothing."""
        text: str = self.at(index, str)
        if encoding not in (None, "base58", "base64"):
            raise RpcFault(INVALID_PARAMS, f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
        if len(text) > _BASE58_TEXT_MAX_CHARS:
            raise RpcFault(INVALID_PARAMS, f"{encoding} encoded transaction too large: {len(text)} characters")
        if encoding == "base64":
            try:
                return b64decode(text, validate=True)
            except Base64Error as error:
                raise RpcFault(INVALID_PARAMS, f"invalid base64 encoding: {error}") from error
        return base58_bytes(text)


def address(text: Any) -> bytes:
    """A base58 address as 32 bytes."""
    try:
        return bytes(Pubkey.from_string(text)) if isinstance(text, str) else parse_id("", field="address")
    except (ValueError, LocalError) as error:
        raise RpcFault(INVALID_PARAMS, f"Invalid param: {error}") from error


def base58_bytes(text: str) -> bytes:
    """Decode bounded base58 of any length."""
    number = 0
    for char in text:
        digit = _DIGITS.get(char)
        if digit is None:
            raise RpcFault(INVALID_PARAMS, f"invalid base58 encoding: {char!r}")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


_DIGITS = {char: value for value, char in enumerate("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")}
