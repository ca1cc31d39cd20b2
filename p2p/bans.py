"""Who is banned here, for how long: over restarts, and not for ever.

Rule 1: the first ban lasts BAN_FIRST_MS, each further one of the same peer twice as long, at most BAN_MAX_MS.
Rule 2: what was done is forgotten BAN_MEMORY_MS after the end of a ban.
Rule 3: at most PEERS_BANNED_MAX; the ban that ends soonest gives its place. What the disk says is checked like a peer's
word, and a ban that would end later than any can is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta

from ..protocol import codec
from ..protocol.errors import CyxError, RemoteError
from ..protocol.limits import BAN_FIRST_MS, BAN_MAX_MS, BAN_MEMORY_MS, BAN_RECORD_MAX_BYTES, PEERS_BANNED_MAX
from ..protocol.ports import Journal
from ..protocol.spec import Bytes32
from ..protocol.units import NodeId, base58

PREFIX = b"bans/"
_log = structlog.get_logger()


class Ban(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One peer's last ban: until when (Unix ms), and the how-manieth it is."""

    node: Bytes32
    until_ms: Annotated[int, Meta(ge=0)]
    times: Annotated[int, Meta(ge=1, le=1_000)]


@dataclass(slots=True)
class Bans:
    """The bans of one node; without a journal they end with the process."""

    journal: Journal | None = None
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    """Wall time in Unix milliseconds."""
    _bans: dict[NodeId, Ban] = field(default_factory=dict)
    _places: dict[NodeId, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in list(self.journal.items(PREFIX)) if self.journal is not None else ():
            digits = key.removeprefix(PREFIX)
            ban = self._checked(value)
            if ban is not None and len(digits) == 5 and digits.isdigit() and int(digits) < PEERS_BANNED_MAX:
                self._bans[NodeId(ban.node)], self._places[NodeId(ban.node)] = ban, int(digits)

    def __contains__(self, node: object) -> bool:
        """Whether a peer is banned now."""
        ban = self._bans.get(node)  # type: ignore[call-overload]
        return ban is not None and self.now_ms() < ban.until_ms

    @property
    def nodes(self) -> frozenset[NodeId]:
        """Who is banned now."""
        return frozenset(node for node in self._bans if node in self)

    def add(self, node: NodeId) -> Ban:
        """Ban a peer from now on; one that is banned already stays so."""
        earlier, now_ms = self._bans.get(node), self.now_ms()
        if earlier is not None and now_ms < earlier.until_ms:
            return earlier
        times = earlier.times + 1 if earlier is not None and now_ms < earlier.until_ms + BAN_MEMORY_MS else 1
        ban = Ban(node=node, until_ms=now_ms + _length_ms(times), times=min(times, 1_000))
        place = self._places.get(node)
        place = self._free_place() if place is None else place
        self._bans[node], self._places[node] = ban, place
        self._write(place, ban)
        _log.warning("banned", peer=base58(node), hours=round(_length_ms(times) / 3_600_000, 1), times=times)
        return ban

    def _free_place(self) -> int:
        if len(self._places) >= PEERS_BANNED_MAX:
            soonest = min(self._bans, key=lambda node: (self._bans[node].until_ms, node))
            del self._bans[soonest]
            return self._places.pop(soonest)
        taken = set(self._places.values())
        return next(place for place in range(PEERS_BANNED_MAX) if place not in taken)

    def _write(self, place: int, ban: Ban) -> None:
        if self.journal is None:
            return
        try:
            self.journal.put(PREFIX + b"%05d" % place, codec.encode(ban))
        except CyxError as error:
            _log.warning("a ban could not be kept", peer=base58(ban.node), cause=str(error))

    def _checked(self, value: bytes) -> Ban | None:
        try:
            ban = codec.decode(value, Ban, max_bytes=BAN_RECORD_MAX_BYTES)
        except RemoteError as error:
            _log.warning("a kept ban was dropped", cause=str(error))
            return None
        now_ms = self.now_ms()
        return ban if now_ms - BAN_MEMORY_MS < ban.until_ms <= now_ms + BAN_MAX_MS else None


def _length_ms(times: int) -> int:
    return int(min(BAN_MAX_MS, BAN_FIRST_MS << min(times - 1, 32)))
