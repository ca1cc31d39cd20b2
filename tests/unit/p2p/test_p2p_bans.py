"""Bans: how long, over restarts, bounded, and a journal that lies."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cyxnode.ledger.journal import MemoryJournal
from cyxnode.p2p import bans
from cyxnode.p2p.bans import PREFIX, Ban, Bans
from cyxnode.protocol import codec
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import BAN_FIRST_MS, BAN_MAX_MS, BAN_MEMORY_MS
from cyxnode.protocol.units import NodeId


@dataclass
class Life:
    """A journal, and lives of one node over it."""

    now_ms: int = 1_800_000_000_000
    journal: MemoryJournal = field(default_factory=MemoryJournal)

    def bans(self) -> Bans:
        return Bans(self.journal, lambda: self.now_ms)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


@pytest.fixture
def life() -> Life:
    return Life()


def test_a_ban_ends_and_outlives_a_restart_until_then(life: Life) -> None:
    life.bans().add(node(1))
    life.now_ms += BAN_FIRST_MS - 1
    assert node(1) in life.bans() and life.bans().nodes == {node(1)} and node(2) not in life.bans()
    life.now_ms += 1
    assert node(1) not in life.bans() and not life.bans().nodes


def test_each_further_ban_is_twice_as_long_up_to_a_bound(life: Life) -> None:
    lengths = []
    for _ in range(12):
        ban = life.bans().add(node(1))
        lengths.append(ban.until_ms - life.now_ms)
        life.now_ms = ban.until_ms
    assert lengths[:3] == [BAN_FIRST_MS, 2 * BAN_FIRST_MS, 4 * BAN_FIRST_MS]
    assert lengths[-1] == BAN_MAX_MS
    life.now_ms += BAN_MEMORY_MS
    assert life.bans().add(node(1)).until_ms == life.now_ms + BAN_FIRST_MS


def test_who_is_banned_already_is_not_banned_for_longer(life: Life) -> None:
    kept = life.bans()
    first = kept.add(node(1))
    life.now_ms += 1
    assert kept.add(node(1)) == first
    assert len(list(life.journal.items(PREFIX))) == 1


def test_the_ban_that_ends_soonest_gives_its_place(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans, "PEERS_BANNED_MAX", 3)
    kept = life.bans()
    for number in range(5):
        life.now_ms += 1
        kept.add(node(number))
    assert kept.nodes == life.bans().nodes == {node(2), node(3), node(4)}
    assert len(list(life.journal.items(PREFIX))) == 3


def test_a_journal_that_lies_is_not_believed(life: Life) -> None:
    lies = [
        b"\xff",
        codec.encode(Ban(node=b"short", until_ms=life.now_ms + 5, times=1)),
        codec.encode(Ban(node=node(1), until_ms=life.now_ms + BAN_MAX_MS + 1, times=1)),
        codec.encode(Ban(node=node(2), until_ms=life.now_ms + 5, times=10_000)),
        bytes(10_000),
    ]
    for place, raw in enumerate(lies):
        life.journal.put(PREFIX + b"%05d" % place, raw)
    life.journal.put(PREFIX + b"99999", codec.encode(Ban(node=node(3), until_ms=life.now_ms + 5, times=1)))
    assert not life.bans().nodes


def test_without_a_disk_or_with_a_full_one_the_ban_holds_all_the_same(life: Life) -> None:
    class FullDisk(MemoryJournal):
        def put(self, key: bytes, value: bytes) -> None:
            raise LocalError("no space", field="data dir", fix="free some disk space")

    for kept in (Bans(None, lambda: life.now_ms), Bans(FullDisk(), lambda: life.now_ms)):
        kept.add(node(1))
        assert node(1) in kept
