"""What bytes of strangers must never do, for each decoder that takes them whole. See targets.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any
from unittest import mock

from cyxnode.bootstrap import seed_list
from cyxnode.bootstrap.dns_seeds import resolve_dnsaddr
from cyxnode.bootstrap.seed_list import SeedList, open_seed_list
from cyxnode.executor.graph import parse_graph
from cyxnode.executor.tensors import BadTensors, read_tensors
from cyxnode.ledger.escrow_layout import decode_config, decode_job, decode_node
from cyxnode.ledger.past_transaction import decode_transaction
from cyxnode.ledger.precompile import statements_in
from cyxnode.p2p.addresses import parse_address
from cyxnode.p2p.frame_cutter import FrameCutter, Signal, framed
from cyxnode.protocol import codec
from cyxnode.protocol.bundle import pack, weight
from cyxnode.protocol.envelope import Envelope, open_any
from cyxnode.protocol.errors import CyxError, LocalError, RemoteError, TransientError
from cyxnode.protocol.limits import (
    ADDRESS_MAX_CHARS,
    FRAME_MAX_BYTES,
    GOSSIP_RECORD_BYTES,
    RESPONSE_MAX_BYTES,
    SEED_LOOKUPS_MAX,
    SEED_RECORDS_MAX,
    SEEDS_MAX,
)
from cyxnode.protocol.messages import KINDS
from cyxnode.protocol.ports import GossipVerdict
from cyxnode.protocol.receipt import load_receipt, verify_receipt
from cyxnode.protocol.validation import MARKET_KINDS, PRESENCE_KINDS, check_gossip
from sample_messages import GENESIS, INNER, KEY, NOW_MS

DECODED = [*KINDS.values(), *(type(message) for message in INNER)]
NOW_S = NOW_MS // 1000


def refused(decode: Callable[[], Any], *errors: type[Exception]) -> Any:
    """What `decode` gives, or None when it raised one of the documented errors, with a text that fits a log."""
    try:
        return decode()
    except errors as error:
        assert len(str(error)) < 1_000, "an error must not carry the stranger's bytes along"
        return None


def message(data: bytes) -> None:
    """The first byte names a kind; what decodes as it has exactly these bytes."""
    kind, rest = DECODED[data[0] % len(DECODED)] if data else DECODED[0], data[1:]
    found = refused(lambda: codec.decode(rest, kind, max_bytes=RESPONSE_MAX_BYTES), RemoteError)
    assert found is None or codec.encode(found) == rest


def envelope(data: bytes) -> None:
    """Opens as itself or not at all."""
    found = refused(lambda: open_any(data, GENESIS), RemoteError)
    if found is not None:
        parsed = codec.decode(data, Envelope, max_bytes=RESPONSE_MAX_BYTES)
        assert found.raw == data and codec.encode(parsed) == data and codec.encode(found.message) == parsed.body


def bundle(data: bytes) -> None:
    """Gossip is judged without an error, whatever it is, and what is accepted has exactly these bytes."""
    for kinds in (MARKET_KINDS, PRESENCE_KINDS):
        verdict, opened, reason = check_gossip(data, GENESIS, kinds, NOW_MS)
        assert (verdict is GossipVerdict.ACCEPT) == bool(opened) == (reason == "")
        assert not opened or pack([one.raw for one in opened]) == data
    assert weight(data, GOSSIP_RECORD_BYTES) >= 1


def _cut(data: bytes, size: int) -> tuple[list[bytes | Signal], int, bool]:
    """(What was cut, bytes left over, whether the stream was given up), fed `size` bytes at a time."""
    cutter, found = FrameCutter(), list[bytes | Signal]()
    for start in range(0, len(data), size):
        cutter.add(data[start : start + size])
        try:
            found.extend(iter(cutter.take, None))
        except RemoteError:
            return found, len(cutter), True
        assert len(cutter) <= FRAME_MAX_BYTES + 4
    return found, len(cutter), False


def frames(data: bytes) -> None:
    """The first byte says how the stream is split, which changes nothing; what is taken has the bytes it had."""
    size, data = (data[0] + 1 if data else 1), data[1:]
    found, left, given_up = _cut(data, size)
    whole, whole_left, whole_given_up = _cut(data, max(1, len(data)))
    assert found == whole and given_up == whole_given_up
    again = b"".join(one.value if isinstance(one, Signal) else framed(one) for one in found)
    assert data.startswith(again)
    assert given_up or (left == whole_left == len(data) - len(again))


def seeds(data: bytes) -> None:
    """A list is opened only as its publisher wrote it; after an odd first byte signatures count as right, so that what
    lies behind them is reached as well."""
    odd, raw = bool(data) and data[0] % 2 == 1, data[1:]
    with mock.patch.object(seed_list, "verify", lambda *_: True) if odd else nullcontext():
        found = refused(lambda: open_seed_list(raw, KEY.node_id, NOW_S), LocalError)
    assert found is None or (isinstance(found, SeedList) and 0 < len(found.addresses) <= SEEDS_MAX)


def dns(data: bytes) -> None:
    """Lines are the TXT records of every name there is: the search ends, within bounds, in addresses or an error."""
    records, asked = data.decode(errors="replace").split("\n"), list[str]()

    def resolver(host: str) -> Iterable[str]:
        asked.append(host)
        if len(asked) % 7 == 6:
            raise TransientError("nobody answers")
        return [one.replace("*", str(len(asked))) for one in records]

    found = refused(lambda: resolve_dnsaddr("/dnsaddr/seeds.example.org", resolver), LocalError, TransientError)
    assert len(asked) <= SEED_LOOKUPS_MAX and len(set(asked)) == len(asked)
    for one in found or ():
        assert len(parse_address(one).node) == 32
    assert len(found or ()) <= min(SEEDS_MAX, SEED_LOOKUPS_MAX * SEED_RECORDS_MAX)


def address(data: bytes) -> None:
    """An address, or LocalError; written out, it reads as itself."""
    text = data.decode(errors="surrogateescape")
    found = refused(lambda: parse_address(text), LocalError)
    if found is not None:
        assert len(text) <= ADDRESS_MAX_CHARS and parse_address(str(found)) == found and 0 < found.port < 65536


def receipt(data: bytes) -> None:
    """A stranger's receipt says which of its fields does not hold."""
    found = refused(lambda: load_receipt(data), LocalError)
    if found is not None:
        refused(lambda: verify_receipt(found), LocalError)


def graph(data: bytes) -> None:
    """A model's graph in a stranger's spec."""
    refused(lambda: parse_graph(data), LocalError)


def tensors(data: bytes) -> None:
    """A blob of tensors: views of its bytes, all of them and none twice."""
    found = refused(lambda: read_tensors(data), BadTensors)
    if found is not None:
        assert sum(one.nbytes for one in found.values()) <= len(data)


def accounts(data: bytes) -> None:
    """What an RPC server says an account holds, and a precompile's data."""
    for decode in (decode_config, decode_node, decode_job):
        refused(lambda decode=decode: decode(data), CyxError)
    refused(lambda: statements_in(data), CyxError)


def transaction(data: bytes) -> None:
    """What an RPC server says a transaction was: `{"signature": …, "answer": …}`."""
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(asked, dict) and isinstance(asked.get("answer"), dict):
        refused(lambda: decode_transaction(str(asked.get("signature")), asked["answer"]), RemoteError)
