"""The messages of circuit relay v2, as libp2p's specification has them, read with bounds.

A message is a varint length and a protobuf. RELAY_MESSAGE_MAX_BYTES bounds it, RELAY_MESSAGE_TIMEOUT_S the wait for all
of it, so that who sends a byte a minute holds nothing. Whatever is wrong with one is a RemoteError.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import trio
from google.protobuf.message import DecodeError, Message
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage

from ..protocol.errors import PeerUnreachable, RemoteError
from ..protocol.limits import RELAY_MESSAGE_MAX_BYTES, RELAY_MESSAGE_TIMEOUT_S
from ..protocol.units import NodeId
from .peer_id import node_of_bytes, peer_id_bytes

HOP, STOP = "/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop"
_LENGTH_BYTES_MAX = 2
_M = TypeVar("_M", bound=Message)

__all__ = ["HOP", "STOP", "HopMessage", "Status", "StopMessage"]


class Bytes(Protocol):
    """What messages are read from and written to."""

    async def read(self, count: int) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


async def read_message(stream: Bytes, kind: type[_M]) -> _M:
    """The next message; not a byte more is read, since what follows is the circuit. RemoteError or PeerUnreachable."""
    with trio.move_on_after(RELAY_MESSAGE_TIMEOUT_S):
        length = shift = 0
        for _ in range(_LENGTH_BYTES_MAX):
            byte = (await _exactly(stream, 1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            raise RemoteError("the message is too long")
        if length > RELAY_MESSAGE_MAX_BYTES:
            raise RemoteError("the message is too long")
        message = kind()
        try:
            message.ParseFromString(await _exactly(stream, length))
        except DecodeError:
            raise RemoteError("the message is malformed") from None
        return message
    raise PeerUnreachable("the peer did not finish its message in time")


async def write_message(stream: Bytes, message: Message) -> None:
    """Send one; PeerUnreachable when the peer does not take it in time."""
    raw = message.SerializeToString()
    head = bytes([len(raw)]) if len(raw) < 0x80 else bytes([len(raw) & 0x7F | 0x80, len(raw) >> 7])
    with trio.move_on_after(RELAY_MESSAGE_TIMEOUT_S):
        await stream.write(head + raw)
        return
    raise PeerUnreachable("the peer did not take a message in time")


async def _exactly(stream: Bytes, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.read(count - len(data))
        if not more:
            raise RemoteError("the peer ended in the middle of a message")
        data += more
    return data


def named(message: HopMessage | StopMessage) -> NodeId:
    """The node that a message names; RemoteError when it names none."""
    node = node_of_bytes(bytes(message.peer.id))
    if node is None:
        raise RemoteError("the message names no node")
    return node


def connect_through(node: NodeId) -> HopMessage:
    """To a relay: connect us with `node`."""
    message = HopMessage(type=HopMessage.CONNECT)
    message.peer.id = peer_id_bytes(node)
    return message


def called_by(node: NodeId, duration_s: int, data_bytes: int) -> StopMessage:
    """To a relay's target: `node` calls, for so long and so much."""
    message = StopMessage(type=StopMessage.CONNECT)
    message.peer.id = peer_id_bytes(node)
    message.limit.duration, message.limit.data = duration_s, data_bytes
    return message
