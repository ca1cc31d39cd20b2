"""Random presence: a model that remembers who spoke freshly when, beside the machine."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cyxnode.protocol.limits import DEAD_AFTER_MS
from cyxnode.protocol.messages import Capability, Heartbeat
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler import presence
from sample_messages import MESSAGES

NODES = [NodeId(bytes([n]) * 32) for n in range(1, 5)]
OFFER = next(message for message in MESSAGES if isinstance(message, Capability))
BEAT = next(message for message in MESSAGES if isinstance(message, Heartbeat))
nodes, sequences = st.sampled_from(NODES), st.integers(0, 6)
silences = st.sampled_from([0, 0, 5_000, 25_000, 29_999, 30_000, 50_000])
pytestmark = pytest.mark.slow


class Members(RuleBasedStateMachine):
    """Four nodes whose messages arrive in any order, repeated, second-hand, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.state = 0, presence.Presence()
        self.newest: dict[tuple[str, NodeId], int] = {}
        self.spoke: dict[NodeId, int] = {}

    def feed(self, stimulus: presence.Stimulus) -> None:
        self.state, effects = presence.step(self.state, stimulus)
        for effect in effects:
            if isinstance(effect, presence.NodeDied):
                assert self.now - self.spoke.pop(effect.node) >= DEAD_AFTER_MS
                self.newest = {key: value for key, value in self.newest.items() if key[1] != effect.node}

    def heard(self, kind: str, node: NodeId, sequence: int, told_ms: int) -> None:
        known = node in self.spoke or told_ms < DEAD_AFTER_MS
        if known and sequence > self.newest.get((kind, node), -1):
            self.newest[kind, node] = sequence
            self.spoke[node] = max(self.spoke.get(node, self.now - told_ms), self.now - told_ms)

    @rule(node=nodes, sequence=sequences, told_ms=silences)
    def beats(self, node: NodeId, sequence: int, told_ms: int) -> None:
        self.heard("beat", node, sequence, told_ms)
        beat = msgspec.structs.replace(BEAT, sequence=sequence)
        self.feed(presence.HeartbeatHeard(node, beat, self.now, told_ms=told_ms))

    @rule(node=nodes, sequence=sequences, told_ms=silences)
    def offers(self, node: NodeId, sequence: int, told_ms: int) -> None:
        self.heard("offer", node, sequence, told_ms)
        record = msgspec.structs.replace(OFFER, sequence=sequence)
        self.feed(presence.CapabilityHeard(node, record, b"raw", self.now, told_ms=told_ms))

    @rule(after=st.integers(0, 40_000))
    def time(self, after: int) -> None:
        self.now += after
        self.feed(presence.TimePassed(self.now))
        assert all(self.now - seen < DEAD_AFTER_MS for seen in self.spoke.values())

    @invariant()
    def whoever_spoke_freshly_is_known_and_nobody_else(self) -> None:
        assert set(self.state.members) == set(self.spoke)
        assert {node: member.seen_at_ms for node, member in self.state.members.items()} == self.spoke
        assert set(self.state.alive()) == {node for kind, node in self.newest if kind == "offer"}


Members.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMembers = Members.TestCase
