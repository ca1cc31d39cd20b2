"""The bytes of every message, frozen, sealed in an envelope and alone: a changed byte is a fork of the network.

A failure lists the kinds whose bytes changed, with the new bytes beside the frozen ones. `vectors/messages.json` is
changed by hand, and only when the protocol's version changes with it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cyxnode.protocol import codec
from cyxnode.protocol.bundle import pack
from cyxnode.protocol.envelope import open_as, seal
from cyxnode.protocol.limits import RESPONSE_MAX_BYTES
from cyxnode.protocol.messages import KINDS, Message, kind_of
from cyxnode.protocol.ports import GossipVerdict
from cyxnode.protocol.validation import PRESENCE_KINDS, check_gossip
from sample_messages import GENESIS, INNER, KEY, MESSAGES, NOW_MS

PRESENCE = ("Capability", "Heartbeat")
VECTORS = Path(__file__).parents[2] / "vectors" / "messages.json"


def current() -> dict[str, str]:
    bodies = {f"body.{type(message).__name__}": codec.encode(message).hex() for message in (*MESSAGES, *INNER)}
    sealed = {f"envelope.{kind_of(message)}": seal(KEY, GENESIS, message).hex() for message in MESSAGES}
    gossip = {"gossip.two records": pack([bytes.fromhex(sealed[f"envelope.{kind}"]) for kind in PRESENCE]).hex()}
    return bodies | sealed | gossip


def test_no_byte_of_any_message_has_changed() -> None:
    assert current() == json.loads(VECTORS.read_text())


def test_every_kind_is_frozen() -> None:
    assert {type(message) for message in MESSAGES} == set(KINDS.values())


@pytest.mark.parametrize("message", [*MESSAGES, *INNER], ids=lambda message: type(message).__name__)
def test_frozen_bytes_still_mean_the_same(message: Message) -> None:
    frozen = bytes.fromhex(json.loads(VECTORS.read_text())[f"body.{type(message).__name__}"])
    assert codec.decode(frozen, type(message), max_bytes=RESPONSE_MAX_BYTES) == message


@pytest.mark.parametrize("message", MESSAGES, ids=kind_of)
def test_frozen_envelopes_still_open(message: Message) -> None:
    frozen = bytes.fromhex(json.loads(VECTORS.read_text())[f"envelope.{kind_of(message)}"])
    opened = open_as(frozen, GENESIS, type(message))
    assert (opened.sender, opened.message, opened.raw) == (KEY.node_id, message, frozen)


def test_a_frozen_gossip_message_still_opens() -> None:
    frozen = bytes.fromhex(json.loads(VECTORS.read_text())["gossip.two records"])
    verdict, opened, _ = check_gossip(frozen, GENESIS, PRESENCE_KINDS, NOW_MS)
    assert verdict is GossipVerdict.ACCEPT and [kind_of(one.message) for one in opened] == [*PRESENCE]
