"""The switch, and the check before it: the fast path knows one version of the library by the digest of its source.

It overrides some of the library's private functions and relies on what others do. Another version, a patched copy or a
function that somebody has replaced may do something else: then every transport goes the library's own way, and the log
says so once.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

import structlog
from libp2p.io.trio import TrioTCPStream
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import MessageCache
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import PriorityQueue, RpcQueue
from libp2p.security.noise.io import BaseNoiseMsgReadWriter, NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from noise.connection import NoiseConnection

from ...protocol.errors import LocalError
from .. import hardening

SWITCH = "CYXNODE_FAST_GOSSIP"
KNOWN_VERSIONS = {"libp2p": "0.8.1", "noiseprotocol": "0.3.1"}
RELIED_ON: dict[type, tuple[str, ...]] = {
    Yamux: ("__init__", "start", "handle_incoming", "_write_frame", "close", "_cleanup_on_error", "_read_data_body"),
    YamuxStream: ("__init__", "write", "send_window_update", "close", "reset"),
    MuxerMultistream: ("__init__", "new_conn", "_annotate_connection"),
    SecureSession: ("__init__", "_drain", "read", "write", "close"),
    BaseNoiseMsgReadWriter: ("__init__", "write_msg", "close"),
    NoiseTransportReadWriter: ("encrypt", "decrypt"),
    NoiseConnection: ("encrypt", "decrypt"),
    TrioTCPStream: ("__init__", "write", "read", "close"),
    Pubsub: (
        "__init__",
        "continuously_read_stream",
        "stream_handler",
        "handle_sending_messages",
        "handle_subscription",
        "message_all_peers",
        "publish",
        "push_msg",
        "write_msg",
        "_handle_new_peer",
        "_handle_dead_peer",
    ),
    GossipSub: ("__init__", "handle_rpc", "handle_iwant", "publish", "send_rpc", "send_recent_messages", "heartbeat"),
    RpcQueue: ("__init__", "push", "pop", "close", "split_rpc"),
    PriorityQueue: ("push", "pop"),
    MessageCache: ("__init__", "put", "shift"),
}
KNOWN_DIGEST = "4689841de2cf542c38bc3018b174ea8595d23fc3485487c4b1522c5d48b03266"
_log = structlog.get_logger()


def chosen(argument: bool | None) -> bool:
    """Whether a transport shall go the fast path: `argument`, else the environment, else yes; never over internals
    that are not the known ones."""
    wanted = _environment() if argument is None else argument
    if not wanted:
        return False
    reason = doubt()
    if reason is not None:
        _say_once(reason)
    return reason is None


def _environment() -> bool:
    given = os.environ.get(SWITCH, "1")
    if given not in ("0", "1"):
        raise LocalError(
            f"{given[:32]!r} is neither 0 nor 1", field=SWITCH, fix="set it to 0 to switch the fast path off"
        )
    return given == "1"


@cache
def doubt() -> str | None:
    """Why the library must not be gone around; None when it is the known one."""
    for package, known in KNOWN_VERSIONS.items():
        if (found := version(package)) != known:
            return f"{package} is {found}, the fast path was written for {known}"
    try:
        found = digest(_sources())
    except (OSError, TypeError, AttributeError) as error:
        return f"the library's source cannot be read: {error}"
    return None if found == KNOWN_DIGEST else f"the library's functions are others than those known: {found}"


def digest(sources: Iterator[str]) -> str:
    """Of the functions in RELIED_ON, as the library ships them: our own cures are looked through."""
    total = hashlib.sha256()
    for source in sources:
        total.update(source.encode() + b"\0")
    return total.hexdigest()


def _sources() -> Iterator[str]:
    for owner, names in RELIED_ON.items():
        for name in names:
            function: Callable[..., Any] = hardening.original(owner, name)
            yield f"{owner.__module__}.{owner.__qualname__}.{name}\n{inspect.getsource(function)}"


@cache
def _say_once(reason: str) -> None:
    _log.warning("fast_gossip_off", reason=reason, consequence="gossip goes the library's way, at four times the CPU")
