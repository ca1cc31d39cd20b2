"""The cures of py-libp2p 0.8.1, under one `apply()`.

The library is sound on a good day, but one malformed message, one cancelled write or one slow reader of a stranger
could end a node. Each cure names one weakness and replaces as little of the library as it takes; docs/p2p.md lists
weakness, cure and test. What can be cured by configuration (Noise and yamux only, the gossip heartbeat) stands in
host.py and gossip.py instead.
"""

from __future__ import annotations

from . import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import structlog

from ..protocol.errors import LocalError
from . import hardening_gossip, hardening_streams, pulse

KNOWN_VERSION = "0.8.1"
_log = structlog.get_logger()
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Cure:
    """One weakness, in a few words, and how it is patched: `install(patches)`."""

    name: str
    weakness: str
    install: Callable[[Patches], None]


class Patches:
    """Replaced attributes of the library, so that a test can take them back."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []
        self._replaced: dict[tuple[Any, str], Any] = {}

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace `owner.name`."""
        self._originals.append((owner, name, getattr(owner, name, _ABSENT)))
        if isinstance(owner, type):
            self._replaced[owner, name] = value
        setattr(owner, name, value)

    def original(self, owner: type, name: str) -> Any:
        """`owner.name` as it was before it was replaced here; what somebody else has put there since is no original."""
        now = getattr(owner, name)
        if self._replaced.get((owner, name)) is now:
            return next(value for patched, attribute, value in self._originals if (patched, attribute) == (owner, name))
        return now

    def revert(self) -> None:
        """Put every original back, the last replaced first."""
        while self._originals:
            owner, name, value = self._originals.pop()
            if value is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


CURES = (
    Cure("stream_errors", "an exception in a stream handler ends the host", hardening_streams.contain_errors),
    Cure(
        "whole_writes", "a cancelled write leaves half an encrypted frame on the wire", hardening_streams.whole_writes
    ),
    Cure("window_wait", "a reader that pauses for 5 s breaks the stream", hardening_streams.patient_writes),
    Cure("window_updates", "every read sends a window update", hardening_streams.fewer_updates),
    Cure("window_overrun", "a sender that ignores the window fills our memory", hardening_streams.enforce_window),
    Cure("silent_peers", "a peer that vanished stays connected for ever", pulse.notice_silence),
    Cure("close_sockets", "sockets stay open after the host has ended", hardening_streams.close_sockets),
    Cure("dial_wait", "every dial waits 250 ms", hardening_streams.no_dial_wait),
    Cure("exclusive_port", "two processes may listen on one port", hardening_streams.exclusive_port),
    Cure("quiet_logs", "the library configures and fills the root logger", hardening_streams.quiet_logs),
    Cure("rpc_errors", "a malformed gossip RPC ends the host", hardening_gossip.contain_rpc_errors),
    Cure(
        "message_errors", "a malformed key or a raising validator ends gossip", hardening_gossip.contain_message_errors
    ),
    Cure("control_bounds", "one control message asks for more than memory holds", hardening_gossip.bound_control),
    Cure("queues", "a burst of 32 messages overflows the outbound queue", hardening_gossip.longer_queues),
    Cure("sender_record", "every message carries a signed record that is verified again", hardening_gossip.no_records),
)
_applied: Patches | None = None


def apply(*, without: Collection[str] = ()) -> None:
    """Install all cures, once per process. `without` leaves some out; only tests of a cure need that."""
    global _applied
    if _applied is not None:
        return
    unknown = set(without) - {cure.name for cure in CURES}
    if unknown:
        raise LocalError(f"unknown cures: {sorted(unknown)}", field="without")
    found = version("libp2p")
    if found != KNOWN_VERSION:
        _log.warning("libp2p_version_unknown", found=found, cures_written_for=KNOWN_VERSION)
    _applied = Patches()
    for cure in CURES:
        if cure.name not in without:
            cure.install(_applied)


def original(owner: type, name: str) -> Any:
    """A function of the library as it ships, whatever cures are applied."""
    return getattr(owner, name) if _applied is None else _applied.original(owner, name)


def revert() -> None:
    """Take all cures back; for tests. No host may be running."""
    global _applied
    if _applied is not None:
        _applied.revert()
    _applied = None
