"""The three kinds of failure, told apart because they are answered differently.

LocalError: we, or our user, got it wrong: fix the named field. RemoteError: a peer misbehaved: it is scored.
TransientError: try again later. Each carries one line that names the cause, and where there is one, the fix.
"""

from __future__ import annotations


class CyxError(Exception):
    """Root of every error that cyxnode raises on purpose. `str(error)` is one line for a person."""

    exit_code = 1


class LocalError(CyxError):
    """Bad input or misuse on this side. `field` names what is wrong, `fix` says what to do."""

    exit_code = 2

    def __init__(self, message: str, *, field: str = "", fix: str = "") -> None:
        self.message, self.field, self.fix = message, field, fix
        text = f"{field}: {message}" if field else message
        super().__init__(f"{text} (fix: {fix})" if fix else text)


class RemoteError(CyxError):
    """A peer broke the protocol. `peer` is its 32-byte id, or empty when it is not known."""

    exit_code = 3

    def __init__(self, message: str, *, peer: bytes = b"") -> None:
        self.peer = peer
        super().__init__(message)


class Refusal(RemoteError):
    """A peer, or the chain, answered no. A request handler raises it to send the text to the asker."""


class TransientError(CyxError):
    """The network or the chain did not answer; the same call may succeed later."""

    exit_code = 4


class PeerUnreachable(TransientError):
    """No connection to the peer could be made, or it broke before a clean end."""


class ChainUnreachable(TransientError):
    """The RPC server did not answer."""


class ChainRejected(CyxError):
    """The cluster executed a transaction and it failed. `code` is the program's custom error, if any."""

    exit_code = 5

    def __init__(self, message: str, *, code: int | None = None, logs: tuple[str, ...] = ()) -> None:
        self.code, self.logs = code, logs
        super().__init__(message)


class ExecutionFailed(CyxError):
    """The computation itself failed: out of memory, diverged to NaN, killed, or the worker process died."""

    exit_code = 6
