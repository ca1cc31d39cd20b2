"""Transports that misbehave for one node: its own messages are changed, copied, held back or lost on their way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from cyxnode.protocol.envelope import open_any, seal
from cyxnode.protocol.errors import PeerUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import Message
from cyxnode.protocol.ports import Transport
from cyxnode.protocol.units import NodeId

Change = Callable[[NodeId, NodeId, str, Any], Message | None]
"""(from, to, protocol, message) -> what is sent instead; None for nothing."""


@dataclass
class Sabotage:
    """Changes outgoing requests with `change`, signed anew with the key of the node that sends them."""

    genesis: bytes
    keys: dict[NodeId, KeyPair]
    change: Change

    def __call__(self, transport: Transport) -> Transport:
        return Tampering(transport, self)


class Tampering:
    """A transport with a hand in its requests."""

    def __init__(self, honest: Transport, sabotage: Sabotage) -> None:
        self._honest, self._sabotage = honest, sabotage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    async def request(self, node: NodeId, protocol: str, payload: bytes, *, timeout_s: float) -> bytes:
        """As the honest one, with the changed payload."""
        sabotage, me = self._sabotage, self._honest.node_id
        message = open_any(payload, sabotage.genesis).message
        changed = sabotage.change(me, node, protocol, message)
        if changed is None:
            raise PeerUnreachable("the saboteur sends nothing")
        if changed is not message:
            payload = seal(sabotage.keys[me], sabotage.genesis, changed)
        return await self._honest.request(node, protocol, payload, timeout_s=timeout_s)


def replaced(message: Any, **changes: Any) -> Any:
    """A copy of a message with other fields."""
    return msgspec.structs.replace(message, **changes)
