"""What a relay gives to whom, and that it comes back."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cyxnode.p2p import relay_quota
from cyxnode.p2p.relay_quota import RelayQuota
from cyxnode.protocol.limits import (
    RELAY_BYTES_PER_S,
    RELAY_CIRCUITS_MAX,
    RELAY_CIRCUITS_PER_SOURCE,
    RELAY_CIRCUITS_PER_TARGET,
    RELAY_RESERVATION_S,
    RELAY_RESERVATIONS_MAX,
    RELAY_RESERVATIONS_PER_HOST,
)
from cyxnode.protocol.units import NodeId


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def test_reservations_are_bounded_by_host_and_in_all_and_renewed_in_their_place() -> None:
    quota = RelayQuota()
    for number in range(RELAY_RESERVATIONS_PER_HOST):
        assert quota.reserve(node(number), "a", 0) == ""
    assert quota.reserve(node(999), "a", 0) == "host"
    assert quota.reserve(node(0), "a", 1) == ""
    for number in range(RELAY_RESERVATIONS_PER_HOST, RELAY_RESERVATIONS_MAX):
        assert quota.reserve(node(number), f"host {number}", 1) == ""
    assert quota.reserve(node(999), "b", 1) == "total"
    quota.cancel(node(5))
    assert quota.reserve(node(999), "b", 1) == ""
    assert quota.holders(RELAY_RESERVATION_S) == [node(0), *map(node, range(8, RELAY_RESERVATIONS_MAX)), node(999)]
    assert quota.holders(RELAY_RESERVATION_S + 1) == []


def test_circuits_lead_to_holders_only() -> None:
    quota = RelayQuota()
    assert quota.open_circuit(node(1), node(2), 0) == "reservation"
    quota.reserve(node(2), "a", 0)
    assert quota.open_circuit(node(1), node(2), 0) == ""
    assert quota.open_circuit(node(1), node(2), RELAY_RESERVATION_S) == "reservation"
    assert quota.circuits == 1


def test_circuits_are_bounded_by_source_by_target_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    quota = RelayQuota()
    for number in range(8):
        quota.reserve(node(number), f"host {number}", 0)
    for number in range(RELAY_CIRCUITS_PER_SOURCE):
        assert quota.open_circuit(node(100), node(number % 8), 0) == ""
    assert quota.open_circuit(node(100), node(0), 0) == "source"
    for number in range(RELAY_CIRCUITS_PER_TARGET - 1):
        assert quota.open_circuit(node(200 + number), node(0), 0) == ""
    assert quota.open_circuit(node(300), node(0), 0) == "target"
    monkeypatch.setattr(relay_quota, "RELAY_CIRCUITS_MAX", quota.circuits)
    assert quota.open_circuit(node(300), node(1), 0) == "total"
    quota.close_circuit(node(100), node(0))
    assert quota.open_circuit(node(300), node(1), 0) == ""


def test_bytes_wait_for_the_rate_that_all_share() -> None:
    quota = RelayQuota()
    assert quota.delay_s(RELAY_BYTES_PER_S, 100) == 0
    assert quota.delay_s(RELAY_BYTES_PER_S, 100) == pytest.approx(1)
    assert quota.delay_s(RELAY_BYTES_PER_S, 101) == pytest.approx(1)
    assert quota.delay_s(1, 200) == 0


class Books(RuleBasedStateMachine):
    """Whatever comes in whatever order, no bound is passed and what is closed is free again."""

    def __init__(self) -> None:
        super().__init__()
        self.quota, self.now_s = RelayQuota(), 0.0
        self.open: list[tuple[NodeId, NodeId]] = []

    @rule(number=st.integers(0, 90), host=st.sampled_from("abcdefghij"))
    def reserve(self, number: int, host: str) -> None:
        self.quota.reserve(node(number), host, self.now_s)

    @rule(source=st.integers(100, 110), holder=st.integers(0, 90))
    def connect(self, source: int, holder: int) -> None:
        if not self.quota.open_circuit(node(source), node(holder), self.now_s):
            self.open.append((node(source), node(holder)))

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.open:
            self.quota.close_circuit(*self.open.pop(data.draw(st.integers(0, len(self.open) - 1))))

    @rule(seconds=st.floats(0, RELAY_RESERVATION_S))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def bounded(self) -> None:
        assert len(self.quota.holders(self.now_s)) <= RELAY_RESERVATIONS_MAX
        assert self.quota.circuits == len(self.open) <= RELAY_CIRCUITS_MAX
        sources = [source for source, _ in self.open]
        assert all(sources.count(one) <= RELAY_CIRCUITS_PER_SOURCE for one in sources)


TestBooks = Books.TestCase
