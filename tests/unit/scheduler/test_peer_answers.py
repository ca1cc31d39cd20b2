"""Whom a peer is told of: those it names, its class with its own cell first, some others; and no more than fits."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from cyxnode.protocol.limits import PEER_EXCHANGE_MAX, PEERS_WANTED
from cyxnode.protocol.messages import Capability, PeersRequest
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.cells import place_of
from cyxnode.scheduler.peer_answers import ANSWER_MAX_BYTES, ANSWER_NODES_MAX, packed, whom_to_tell
from cyxnode.scheduler.presence import Member
from sample_messages import MESSAGES

OFFER = next(one for one in MESSAGES if isinstance(one, Capability))
HERE, THERE = b"h" * 32, b"t" * 32
ASKER = NodeId(sha256(b"asker").digest())


def node(number: int) -> NodeId:
    return NodeId(sha256(number.to_bytes(4, "big")).digest())


def member(number: int, execution_class: bytes = HERE, *, silent: bool = False) -> Member:
    """`silent`: it never said what it offers."""
    offer = None if silent else msgspec.structs.replace(OFFER, execution_class=execution_class)
    return Member(1_000, capability=offer, capability_raw=b"" if silent else number.to_bytes(4, "big"))


def told(
    members: dict[NodeId, Member], *, execution_class: bytes = b"", wanted: tuple[NodeId, ...] = (), offers: bool = True
) -> list[int]:
    asked = PeersRequest(
        capability=b"record" if offers else b"", execution_class=execution_class, wanted=wanted, heartbeat=b""
    )
    chosen = whom_to_tell(ASKER, asked, members, lambda nodes: nodes)
    return [int.from_bytes(one.capability_raw, "big") for one in chosen]


MANY = {node(number): member(number, HERE if number % 2 else THERE) for number in range(1, 200)}


def test_who_has_peers_enough_is_told_of_few() -> None:
    assert len(told(MANY)) == PEERS_WANTED
    assert len(told(MANY, offers=False)) == PEER_EXCHANGE_MAX


def test_a_class_is_told_in_full_and_the_askers_cell_first() -> None:
    few = {node(number): member(number, HERE if number % 10 == 0 else THERE) for number in range(1, 100)}
    answer = told(few, execution_class=HERE)
    kin = [number for number in range(1, 100) if number % 10 == 0]
    assert set(kin) <= set(answer) and len(answer) == 2 * PEERS_WANTED
    near = sorted(kin, key=lambda number: place_of(node(number)) ^ place_of(ASKER))
    assert answer[: len(near)] == near[:PEERS_WANTED] + [one for one in kin if one not in near[:PEERS_WANTED]]
    assert len(told(MANY, execution_class=HERE)) == ANSWER_NODES_MAX


def test_who_is_asked_for_by_name_comes_first() -> None:
    assert told(MANY, wanted=(node(77), node(4_000), node(12)))[:2] == [77, 12]


def test_the_asker_and_those_who_offer_nothing_are_left_out() -> None:
    members = {ASKER: member(9), node(1): member(1, silent=True), node(2): member(2)}
    assert told(members, wanted=(ASKER, node(1)), execution_class=HERE) == [2]


def test_an_answer_holds_what_fits_and_how_old_it_is() -> None:
    heard = Member(400, capability_raw=b"c", heartbeat_raw=b"h")
    assert packed((b"mine", b""), [heard], 1_000) == ((b"mine", b"c", b"h"), (0, 600, 600))
    assert packed((), [heard], 100) == ((b"c", b"h"), (0, 0)), "nobody was heard in the future"
    large = Member(400, capability_raw=bytes(ANSWER_MAX_BYTES // 2))
    assert packed((b"mine",), [large, large, heard], 1_000) == ((b"mine", large.capability_raw), (0, 600))
