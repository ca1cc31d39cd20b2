"""Feeds the split-network alarm of a node in a cell, and says in the log what it says (DESIGN 3)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, assert_never

import structlog

from ..protocol.limits import SPLIT_MEMORY_MS
from ..protocol.messages import Heartbeat
from ..protocol.units import NodeId
from . import split

if TYPE_CHECKING:
    from .presence_service import PresenceService

log = structlog.get_logger()


@dataclass(slots=True)
class SplitWatch:
    """Of one PresenceService. `raised` counts alarms since the start."""

    presence: PresenceService
    state: split.Split = field(init=False)
    raised: int = 0

    def __post_init__(self) -> None:
        self.state = split.whole(self.presence.wire.me)

    @property
    def alarm(self) -> str:
        """What is wrong, in words; empty while the cell looks whole."""
        return self.state.alarm.cause if self.state.alarm is not None else ""

    def begin_anew(self) -> None:
        """We are in another cell, and what was said in the old one does not count; an alarm still has to be cleared."""
        self.state = replace(split.whole(self.presence.wire.me), alarm=self.state.alarm)

    def hear(self, node: NodeId, heartbeat: Heartbeat, *, told: bool) -> None:
        """A heartbeat of a node of our cell that is newer than what we had."""
        clock, cell = self.presence.wire.clock, self.presence.cell
        if cell is not None and clock.unix_ms() - heartbeat.sent_at_ms < SPLIT_MEMORY_MS:
            digest = heartbeat.membership_digest if heartbeat.shards == cell.shards else None
            self._apply(split.DigestHeard(node, digest, told, clock.monotonic_ms()))

    def fell(self, node: NodeId, *, ours: bool) -> None:
        """A member died."""
        self._apply(split.NodeFell(node, ours, self.presence.wire.clock.monotonic_ms()))

    def review(self) -> None:
        """Judge; as often as we speak."""
        self._apply(split.TimeCame(self.presence.wire.clock.monotonic_ms()))

    def _apply(self, stimulus: split.Stimulus) -> None:
        self.state, effects = split.step(self.state, stimulus)
        for effect in effects:
            match effect:
                case split.AlarmRaised(cause):
                    self.raised += 1
                    log.warning("network may be split", cause=cause, members=len(self.presence.state.members))
                case split.AlarmCleared(lasted_ms):
                    log.warning(
                        "network whole again", after_s=lasted_ms // 1000, members=len(self.presence.state.members)
                    )
                case _:
                    assert_never(effect)
