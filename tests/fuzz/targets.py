"""The decoders of strangers' bytes, the laws they obey, and inputs to begin with.

A target is a function of bytes that raises when a law is broken: it ends in a value or in the documented error, takes
time and memory in proportion to its input, what it accepts is what the accepted value encodes to (where an encoding is
canonical: messages, envelopes, frames; not JSON, nor the protobuf of gossip). `test_corpus.py` runs all of them over
the committed inputs, `atheris_run.py` looks for new ones.
"""

from __future__ import annotations

from cyxnode.p2p import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.yamux import yamux

from cyxnode.bootstrap.seed_list import sign_seed_list
from cyxnode.executor.tensors import write_tensors
from cyxnode.ledger.escrow_layout import (
    CONFIG_BYTES,
    CONFIG_TAG,
    JOB_BYTES,
    JOB_TAG,
    LAYOUT_VERSION,
    NODE_BYTES,
    NODE_TAG,
)
from cyxnode.p2p.fast_gossip.reader import HEADER
from cyxnode.p2p.frame_cutter import Signal, framed
from cyxnode.protocol import codec
from cyxnode.protocol.bundle import pack
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.messages import BlobHeader, BlobRequest
from fuzz import byte_targets, machine_targets
from gossip_world import TOPIC, frame, key, publishing, signed
from sample_messages import ADDRESS, CID, GENESIS, INNER, KEY, MESSAGES

Target = Callable[[bytes], None]
END = Signal.END.value


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A target, valid inputs of it, and words of its language for the fuzzer."""

    run: Target
    seeds: tuple[bytes, ...] = ()
    words: tuple[bytes, ...] = ()


def _messages() -> Iterable[bytes]:
    for one in (*MESSAGES, *INNER):
        yield bytes([byte_targets.DECODED.index(type(one))]) + codec.encode(one)


def _bundles() -> Iterable[bytes]:
    sealed = [seal(KEY, GENESIS, one) for one in MESSAGES]
    yield from (pack([one]) for one in sealed)
    yield pack(sealed[:3])
    yield pack([])


def _gossip() -> Iterable[bytes]:
    control = rpc_pb2.RPC()
    control.control.graft.add(topicID=TOPIC)
    control.control.prune.add(topicID=TOPIC, backoff=2**40)
    control.control.ihave.add(topicID=TOPIC, messageIDs=[b"a", b"b"])
    control.control.iwant.add(messageIDs=[b"a", b"a"])
    control.control.idontwant.add(messageIDs=[b"a"])
    control.subscriptions.add(subscribe=True, topicid=TOPIC)
    yield b"\0" + publishing(signed(key(77), b"data", 1), signed(key(77), b"more", 2))
    yield b"\3" + publishing(signed(key(78), b"data", 1)) + frame(control)
    yield b"\1" + publishing(rpc_pb2.Message(topicIDs=[TOPIC, TOPIC], data=b"x", from_id=b"y", seqno=b"z"))


def _yamux() -> Iterable[bytes]:
    def one(kind: int, flags: int, stream: int, body: bytes = b"", length: int | None = None) -> bytes:
        return HEADER.pack(0, kind, flags, stream, len(body) if length is None else length) + body

    window = one(yamux.TYPE_WINDOW_UPDATE, 0, 2, length=1 << 17)
    yield b"\x05" + one(yamux.TYPE_DATA, 0, 1, b"data") + window + one(yamux.TYPE_DATA, 0, 3, b"sunk")
    yield b"\xff" + one(yamux.TYPE_PING, yamux.FLAG_SYN, 0, length=7) + one(yamux.TYPE_DATA, 0, 9, b"nobody's")
    yield b"\xff" + one(yamux.TYPE_DATA, yamux.FLAG_SYN, 4, b"opening") + one(yamux.TYPE_GO_AWAY, 0, 0, length=0)


def _rpc_answers() -> Iterable[bytes]:
    account = {
        "data": ["AAAA", "base64"],
        "executable": False,
        "lamports": 1,
        "owner": "1" * 32,
        "rentEpoch": 0,
        "space": 3,
    }
    about = {"context": {"slot": 7, "apiVersion": "2.0"}}
    keyed = [{"pubkey": "1" * 32, "account": account}]
    blockhash = {"blockhash": "1" * 32, "lastValidBlockHeight": 9}
    status = {"slot": 7, "confirmations": None, "err": None, "status": {"Ok": None}, "confirmationStatus": "finalized"}
    values: tuple[object, ...] = (
        about | {"value": account}, about | {"value": [account, None]}, keyed, about | {"value": account},
        "1" * 32, 890_880,
        about | {"value": blockhash}, about | {"value": True}, "1" * 64, about | {"value": [status]},
        [{"slot": 7, "prioritizationFee": 3}], [{"signature": "1" * 64, "slot": 7, "err": None, "blockTime": 1}],
        {"slot": 7, "transaction": ["AA==", "base64"], "meta": {"err": None, "fee": 5}},
    )  # fmt: skip
    for number, value in enumerate(values):
        yield bytes([number]) + json.dumps({"jsonrpc": "2.0", "id": 0, "result": value}).encode()
    refusals = ((-32002, {"err": {"InstructionError": [0, {"Custom": 1}]}, "logs": ["a"]}), (-32005, None), (-1, "x"))
    for code, data in refusals:
        yield (
            b"\x08"
            + json.dumps({"jsonrpc": "2.0", "id": 0, "error": {"code": code, "message": "m", "data": data}}).encode()
        )


def _accounts() -> Iterable[bytes]:
    for tag, size in ((CONFIG_TAG, CONFIG_BYTES), (NODE_TAG, NODE_BYTES), (JOB_TAG, JOB_BYTES)):
        yield bytes([tag, LAYOUT_VERSION]) + bytes(size - 2)
    yield struct.pack("<BB7H", 1, 0, 48, 65535, 16, 65535, 112, 4, 65535) + bytes(100)


def _tensors() -> bytes:
    return write_tensors({"a": np.zeros((2, 3), "float32"), "b": np.zeros(1, "int64")})


def _streams() -> Iterable[bytes]:
    for size in (0, 5, 255):
        yield bytes([size]) + framed(b"\0payload") + Signal.KEEPALIVE.value + framed(b"") + END
        yield bytes([size]) + framed(b"\1why not") + END


def _blobs() -> Iterable[bytes]:
    yield b"\xff" + framed(codec.encode(BlobHeader(size=8))) + framed(b"four") + framed(b"four") + END
    yield b"\xff" + framed(codec.encode(BlobHeader(size=-1))) + END
    yield b"\x03" + framed(codec.encode(BlobRequest(cid=CID, job=b"", state=0))) + END


_EXAMPLES = Path(__file__).parents[2] / "examples"
_GRAPHS = tuple((_EXAMPLES / name).read_bytes() for name in ("digits_cnn.json", "tiny_lm.json"))
_JSON = (b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"-1", b"1e9", b"\\u0000", b"9" * 20)
_PACK = (
    b"\xc4",
    b"\xd9",
    b"\xdc\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc0",
    b"\xcb",
    b"\xcf",
    b"\x90",
    b"\x80",
    b"\xc7",
)
_STREAM = (END, Signal.KEEPALIVE.value, b"\0\4\0\0", b"\0\4\0\1", b"\0\0\0\0")
_SEED_FILE = sign_seed_list(KEY, [ADDRESS], byte_targets.NOW_S, 3600)
_DNS = f"dnsaddr={ADDRESS}\ndnsaddr=/dnsaddr/x*.example.org\nother=1".encode()

TARGETS: dict[str, Fuzzed] = {
    "message": Fuzzed(byte_targets.message, tuple(_messages()), _PACK),
    "envelope": Fuzzed(byte_targets.envelope, tuple(seal(KEY, GENESIS, one) for one in MESSAGES), _PACK),
    "bundle": Fuzzed(byte_targets.bundle, tuple(_bundles()), _PACK),
    "frames": Fuzzed(byte_targets.frames, tuple(_streams()), _STREAM),
    "frame_reader": Fuzzed(machine_targets.frame_reader, tuple(_yamux())),
    "gossip": Fuzzed(machine_targets.gossip, tuple(_gossip()), (TOPIC.encode(),)),
    "answer": Fuzzed(machine_targets.answer, tuple(_streams()), _STREAM),
    "question": Fuzzed(machine_targets.question, tuple(_streams()), _STREAM),
    "blob": Fuzzed(machine_targets.blob, tuple(_blobs()), _STREAM),
    "seeds": Fuzzed(byte_targets.seeds, (b"\0" + _SEED_FILE, b"\1" + _SEED_FILE), _JSON),
    "dns": Fuzzed(byte_targets.dns, (_DNS,), (b"dnsaddr=", b"/dnsaddr/", b"/p2p/", b"\n", b"*")),
    "address": Fuzzed(byte_targets.address, (ADDRESS.encode(), b"/dns4/a.example/tcp/1/p2p/"), (b"/ip6/", b"::", b"%")),
    "receipt": Fuzzed(byte_targets.receipt, (), _JSON),
    "graph": Fuzzed(byte_targets.graph, _GRAPHS, _JSON),
    "tensors": Fuzzed(byte_targets.tensors, (_tensors(),), _JSON),
    "accounts": Fuzzed(byte_targets.accounts, tuple(_accounts())),
    "transaction": Fuzzed(byte_targets.transaction, (), _JSON),
    "rpc_answer": Fuzzed(machine_targets.rpc_answer, tuple(_rpc_answers()), _JSON),
}
