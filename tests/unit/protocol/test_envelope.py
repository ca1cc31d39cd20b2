"""Envelopes: nothing forged, altered, or replayed on another network, as another kind or sender, ever opens."""

from __future__ import annotations

import msgpack
import msgspec
import pytest

from cyxnode.protocol import codec
from cyxnode.protocol.envelope import OVERHEAD_BYTES, Envelope, open_any, open_as, seal
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.hashing import envelope_message
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import ROUNDS_MAX
from cyxnode.protocol.messages import Bid, BidCommit, Message, SettleVote, VerdictCommit, kind_of
from sample_messages import GENESIS, JOB, KEY, MESSAGES, run

COMMIT = BidCommit(job=JOB, commitment=run(7))
SEALED = seal(KEY, GENESIS, COMMIT)
OTHER = KeyPair(b"o" * 32)


def changed(**fields: object) -> bytes:
    """The sealed commit with fields of its envelope replaced, still canonical."""
    return codec.encode(msgspec.structs.replace(msgspec.msgpack.decode(SEALED, type=Envelope), **fields))


def refused(data: bytes, why: str, genesis: bytes = GENESIS) -> RemoteError:
    with pytest.raises(RemoteError, match=why) as caught:
        open_any(data, genesis)
    return caught.value


@pytest.mark.parametrize("message", MESSAGES, ids=kind_of)
def test_what_was_sealed_opens(message: Message) -> None:
    sealed = seal(KEY, GENESIS, message)
    opened = open_any(sealed, GENESIS)
    assert (opened.sender, opened.message, opened.raw) == (KEY.node_id, message, sealed)
    assert len(sealed) - len(codec.encode(message)) < OVERHEAD_BYTES


def test_another_network_refuses_it() -> None:
    error = refused(SEALED, "another network", genesis=b"x" * 32)
    assert error.peer == KEY.node_id


def test_another_kind_with_the_same_fields_refuses_it() -> None:
    twin = VerdictCommit(job=COMMIT.job, commitment=COMMIT.commitment)
    assert codec.encode(twin) == codec.encode(COMMIT)
    refused(changed(kind="VerdictCommit"), "signature is wrong")


def test_another_sender_cannot_claim_it() -> None:
    refused(changed(sender=OTHER.node_id), "signature is wrong")


def test_another_body_is_not_covered() -> None:
    body = codec.encode(BidCommit(job=JOB, commitment=run(8)))
    refused(changed(body=body), "signature is wrong")


@pytest.mark.parametrize("signature", [bytes(64), OTHER.sign(b""), KEY.sign(codec.encode(COMMIT))])
def test_a_signature_over_something_else(signature: bytes) -> None:
    refused(changed(signature=signature), "signature is wrong")


def test_every_flipped_bit_is_noticed() -> None:
    for index in range(len(SEALED)):
        forged = bytearray(SEALED)
        forged[index] ^= 1 << index % 8
        refused(bytes(forged), ".")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"version": 0}, "version"),
        ({"version": 2}, "version"),
        ({"kind": "x" * 33}, "kind"),
        ({"kind": "Nonsense"}, "unknown kind 'Nonsense'"),
        ({"kind": "Bid"}, "unknown kind 'Bid'"),
        ({"kind": "Message"}, "unknown kind"),
        ({"kind": ""}, "unknown kind ''"),
        ({"sender": b"s" * 31}, "sender"),
        ({"signature": b"s" * 63}, "signature"),
        ({"body": b""}, "BidCommit"),
        ({"body": b"\x80"}, "BidCommit: .*job"),
    ],
)
def test_a_broken_envelope_is_named(fields: dict[str, object], why: str) -> None:
    refused(changed(**fields), why)


def test_a_validly_signed_invalid_message_is_refused() -> None:
    body = msgpack.packb({"job": JOB, "round": 10**6, "signature": run(1, 64)})
    assert ROUNDS_MAX < 10**6
    signature = KEY.sign(envelope_message(GENESIS, "SettleVote", body))
    sealed = codec.encode(Envelope(1, "SettleVote", KEY.node_id, body, signature))
    refused(sealed, r"SettleVote: .*\$\.round")


def test_the_expected_kind_is_insisted_upon() -> None:
    assert open_as(SEALED, GENESIS, BidCommit).message == COMMIT
    with pytest.raises(RemoteError, match="expected SettleVote, got BidCommit") as caught:
        open_as(SEALED, GENESIS, SettleVote)
    assert caught.value.peer == KEY.node_id


def test_the_size_is_bounded() -> None:
    assert open_any(SEALED, GENESIS, max_bytes=len(SEALED)).message == COMMIT
    with pytest.raises(RemoteError, match="at most"):
        open_any(SEALED, GENESIS, max_bytes=len(SEALED) - 1)


def test_what_does_not_travel_in_an_envelope_cannot_be_sealed() -> None:
    bid = Bid(price=1, estimated_ms=1, device="cpu", memory_mb=1, queue_length=0, region="", datasets=())
    with pytest.raises(TypeError, match="Bid does not travel"):
        seal(KEY, GENESIS, bid)
