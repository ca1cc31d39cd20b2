"""The registered nodes as the chain has them, read at most every REFRESH_MS, and jobs read fresh.

Reading the chain costs a round trip; scores and eligibility need the same records again and again within one auction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..protocol.chain import ChainConfig, NodeAccount
from ..protocol.limits import CELL_LINGER_S, SLOT_MS
from ..protocol.ports import Chain, Clock
from ..protocol.units import NodeId

REFRESH_MS = 5_000


@dataclass(slots=True)
class Registry:
    """A cache of the program's Node accounts and of its Config."""

    chain: Chain
    clock: Clock
    _nodes: dict[NodeId, NodeAccount] = field(default_factory=dict)
    _read_at_ms: int | None = None
    _config: ChainConfig | None = None

    async def config(self) -> ChainConfig:
        """The Config account; it does not change while a node runs."""
        if self._config is None:
            self._config = await self.chain.config()
        return self._config

    async def nodes(self, *, fresh: bool = False) -> dict[NodeId, NodeAccount]:
        """All registered nodes by key."""
        now_ms = self.clock.monotonic_ms()
        if fresh or self._read_at_ms is None or now_ms - self._read_at_ms > REFRESH_MS:
            self._nodes = {account.node: account for account in await self.chain.nodes()}
            self._read_at_ms = now_ms
        return self._nodes

    async def size_of(self, execution_class: bytes) -> int:
        """How many nodes of a class are registered."""
        return sum(1 for account in (await self.nodes()).values() if account.execution_class == execution_class)

    async def growth_of(self, execution_class: bytes) -> tuple[int, int]:
        """How many nodes of a class are registered, and how many of them have been for CELL_LINGER_S at least."""
        kin = [one for one in (await self.nodes()).values() if one.execution_class == execution_class]
        since = (await self.chain.time()).slot - int(CELL_LINGER_S * 1000) // SLOT_MS
        return len(kin), sum(1 for account in kin if account.active_since_slot <= since)
