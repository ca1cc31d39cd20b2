"""What gossip remembers is bounded by age and by size."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p import libp2p_quiet  # noqa: F401

# isort: split

from libp2p.pubsub.pb import rpc_pb2

from cyxnode.p2p.fast_gossip.seen import BoundedCache, SeenIds
from cyxnode.protocol.limits import GOSSIP_CACHE_MAX_BYTES, GOSSIP_SEEN_IDS_MAX, GOSSIP_SEEN_S


def test_names_are_known_for_their_time_and_forgotten_after_twice_that() -> None:
    now = [0.0]
    seen = SeenIds(lambda: now[0])
    assert seen.add(b"a")
    assert not seen.add(b"a")
    now[0] = GOSSIP_SEEN_S
    seen.add(b"b")
    assert seen.has(b"a")
    now[0] = 2 * GOSSIP_SEEN_S
    seen.add(b"c")
    assert not seen.has(b"a")
    assert seen.has(b"b")
    now[0] = 9 * GOSSIP_SEEN_S
    seen.add(b"d")
    assert seen.length() == 1


def test_a_flood_of_names_is_bounded_and_the_newest_stay() -> None:
    seen = SeenIds(lambda: 0.0)
    for number in range(2 * GOSSIP_SEEN_IDS_MAX):
        seen.add(b"%d" % number)
    assert seen.length() <= GOSSIP_SEEN_IDS_MAX
    assert all(seen.has(b"%d" % number) for number in range(2 * GOSSIP_SEEN_IDS_MAX - 100, 2 * GOSSIP_SEEN_IDS_MAX))


def test_the_cache_takes_no_more_than_its_bytes_and_has_room_again_after_its_heartbeats() -> None:
    cache = BoundedCache(2, 3)

    def message(number: int) -> rpc_pb2.Message:
        data = bytes(GOSSIP_CACHE_MAX_BYTES // 4)
        return rpc_pb2.Message(from_id=b"me", seqno=b"%d" % number, data=data, topicIDs=["t"])

    for number in range(6):
        cache.put(message(number))
    assert len(cache.msgs) == 4
    for _ in range(3):
        cache.shift()
    assert not cache.msgs
    cache.put(message(9))
    assert cache.window("t") == [b"me9"]
