"""Acquaintances on disk: bounds, expiry, old friends first, and a journal that lies."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cyxnode.ledger.journal import MemoryJournal
from cyxnode.protocol import codec
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import (
    ADDRESSES_MAX,
    CLOCK_SKEW_MS,
    PEER_EXPIRES_MS,
    PEER_STALE_MS,
    PEERS_KEPT_MAX,
    PEERS_WRITE_MS,
)
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.known_peers import PREFIX, KnownPeer, KnownPeers

CLASS = b"c" * 32


@dataclass
class SetClock:
    now_ms: int = 1_800_000_000_000

    def unix_ms(self) -> int:
        return self.now_ms

    def monotonic_ms(self) -> int:
        return self.now_ms


class CountingJournal(MemoryJournal):
    puts = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.puts += 1
        super().put(key, value)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def address(number: int) -> tuple[str, ...]:
    return (f"/ip4/10.0.0.1/tcp/{number + 1}/p2p/x",)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def test_who_answered_is_known_in_the_next_life_the_latest_first(clock: SetClock) -> None:
    journal = MemoryJournal()
    peers = KnownPeers(journal, clock)
    for number in (3, 1, 2):
        clock.now_ms += 1
        peers.met(node(number), address(number), CLASS)
    again = KnownPeers(journal, clock).latest()
    assert [peer.node for peer in again] == [node(2), node(1), node(3)]
    assert again[0].addresses == address(2) and again[0].execution_class == CLASS
    assert again[0].seen_at_ms == clock.now_ms


def test_the_disk_is_written_when_something_changed_else_seldom(clock: SetClock) -> None:
    journal = CountingJournal()
    peers = KnownPeers(journal, clock)
    for _ in range(5):
        peers.met(node(1), address(1), CLASS)
    assert journal.puts == 1
    peers.met(node(1), address(2), CLASS)
    assert journal.puts == 2
    clock.now_ms += PEERS_WRITE_MS
    peers.met(node(1), address(2), CLASS)
    assert journal.puts == 3
    assert len(list(journal.items(PREFIX))) == 1


def test_a_crowd_of_fresh_keys_does_not_crowd_out_old_friends(clock: SetClock) -> None:
    journal = MemoryJournal()
    peers = KnownPeers(journal, clock)
    for number in range(PEERS_KEPT_MAX):
        peers.met(node(number), address(number), CLASS)
    for number in range(1_000, 2_000):
        peers.met(node(number), address(number), CLASS)
    friends = {node(number) for number in range(PEERS_KEPT_MAX)}
    assert {peer.node for peer in peers.latest()} == friends
    assert {peer.node for peer in KnownPeers(journal, clock).latest()} == friends


def test_a_newcomer_takes_the_place_of_the_longest_silent(clock: SetClock) -> None:
    journal = MemoryJournal()
    peers = KnownPeers(journal, clock)
    for number in range(PEERS_KEPT_MAX):
        peers.met(node(number), address(number), CLASS)
    clock.now_ms += PEER_STALE_MS
    for number in range(1, PEERS_KEPT_MAX):
        peers.met(node(number), address(number), CLASS)
    peers.met(node(999), address(999), CLASS)
    peers.met(node(1_000), address(1_000), CLASS)
    known = {peer.node for peer in KnownPeers(journal, clock).latest()}
    assert known == {node(number) for number in range(1, PEERS_KEPT_MAX)} | {node(999)}
    assert len(list(journal.items(PREFIX))) == PEERS_KEPT_MAX


def test_who_is_silent_for_a_month_is_not_dialled(clock: SetClock) -> None:
    journal = MemoryJournal()
    peers = KnownPeers(journal, clock)
    peers.met(node(1), address(1), CLASS)
    clock.now_ms += PEER_EXPIRES_MS - 1
    assert len(KnownPeers(journal, clock).latest()) == 1
    clock.now_ms += 1
    assert peers.latest() == [] and len(KnownPeers(journal, clock)) == 0


def record(number: int, **changes: object) -> bytes:
    fields = {"node": node(number), "addresses": address(number), "execution_class": CLASS, "seen_at_ms": 0}
    return codec.encode(KnownPeer(**{**fields, **changes}))  # type: ignore[arg-type]


def test_a_journal_that_lies_is_not_believed(clock: SetClock) -> None:
    journal, now_ms = MemoryJournal(), clock.now_ms
    lies = [
        b"\xff" * 40,
        b"\x80",
        record(1, seen_at_ms=now_ms, node=b"short"),
        record(2, seen_at_ms=now_ms, addresses=("/x" * 1000,)),
        record(3, seen_at_ms=now_ms, addresses=()),
        record(4, seen_at_ms=now_ms, addresses=address(4) * (ADDRESSES_MAX + 1)),
        record(5, seen_at_ms=now_ms + CLOCK_SKEW_MS + 1),
        record(6, seen_at_ms=now_ms) + b"\0",
        b"\0" * 100_000,
    ]
    for place, value in enumerate(lies):
        journal.put(PREFIX + b"%05d" % place, value)
    for key in (b"x", b"99999", b"-0001", b"00012/3", "²²²²²".encode()):
        journal.put(PREFIX + key, record(7, seen_at_ms=now_ms))
    peers = KnownPeers(journal, clock)
    assert peers.latest() == []
    peers.met(node(8), address(8), CLASS)
    assert [peer.node for peer in KnownPeers(journal, clock).latest()] == [node(8)]


def test_of_two_records_of_a_peer_the_later_counts(clock: SetClock) -> None:
    journal, now_ms = MemoryJournal(), clock.now_ms
    journal.put(PREFIX + b"00000", record(1, seen_at_ms=now_ms, addresses=address(5)))
    journal.put(PREFIX + b"00001", record(1, seen_at_ms=now_ms - 5))
    (peer,) = KnownPeers(journal, clock).latest()
    assert peer.addresses == address(5)


def test_a_full_disk_costs_the_memory_of_a_peer_and_no_more(clock: SetClock) -> None:
    class FullDisk(MemoryJournal):
        def put(self, key: bytes, value: bytes) -> None:
            raise LocalError("no space", field="data dir", fix="free some disk space")

    peers = KnownPeers(FullDisk(), clock)
    peers.met(node(1), address(1), CLASS)
    assert [peer.node for peer in peers.latest()] == [node(1)]


def test_who_has_no_address_is_not_kept(clock: SetClock) -> None:
    peers = KnownPeers(MemoryJournal(), clock)
    peers.met(node(1), (), CLASS)
    peers.met(node(2), ("/" * 300,), CLASS)
    assert peers.latest() == []
