"""Writes the reference of the wire from the message types: fields in their encoded order, with types and limits.

TRAVELS says where each kind travels; a kind without an entry fails, so a new message cannot stay undocumented.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
from msgspec import inspect as shapes

from cyxnode.protocol import codec, inference, messages, spec
from cyxnode.protocol.envelope import Envelope
from cyxnode.scheduler import wire

PRESENCE, MARKET, JOBS = "gossip, presence topic", "gossip, market topic", "gossip, job topic"
TRAVELS: dict[str, str] = {
    "Heartbeat": PRESENCE,
    "Capability": f"{PRESENCE}; inside PeersRequest and PeersAnswer",
    "PeersRequest": f"request `{wire.PEERS}`",
    "PeersAnswer": f"answer to `{wire.PEERS}`",
    "JobAnnounce": f"{MARKET}; request `{wire.ANNOUNCE}`, requester to nodes of the class",
    "Decline": MARKET,
    "BidCommit": MARKET,
    "BidReveal": MARKET,
    "Tally": f"request `{wire.TALLY}`, member to leader",
    "Proposal": f"request `{wire.PROPOSAL}`, leader to member",
    "AwardVote": f"answer to `{wire.PROPOSAL}`",
    "AwardCertificate": f"{MARKET}; request `{wire.CERTIFICATE}`, leader to winner, requester and members",
    "HandoverCertificate": f"{MARKET}; request `{wire.HANDED_OVER}`, leader to requester, members and both workers, "
    "successor to requester and members; inside SpecRequest",
    "Outcome": f"{MARKET}; request `{wire.OUTCOME}`, leader to requester, worker and members",
    "JobStatus": JOBS,
    "SpecRequest": f"request `{wire.SPEC}`, winner or member to requester, else each to the other",
    "SpecAnswer": f"answer to `{wire.SPEC}`",
    "StartNotice": f"request `{wire.START}`, winner to members and requester",
    "Progress": f"stream `{wire.PROGRESS}`, winner to requester",
    "TokensRequest": f"stream `{wire.TOKENS}`, first frame, requester to winner",
    "Tokens": f"stream `{wire.TOKENS}`, winner to requester",
    "InferenceClaim": f"request `{wire.CLAIM}`, winner to members and requester",
    "ResultClaim": f"request `{wire.CLAIM}`, winner to members and requester",
    "ResultRequest": f"request `{wire.RESULT}`, requester to winner or member",
    "ResultAnswer": f"answer to `{wire.RESULT}`",
    "VerdictCommit": f"request `{wire.COMMIT}`, member to members",
    "OpenRequest": f"request `{wire.OPEN}`, member to winner",
    "Opening": f"answer to `{wire.OPEN}`",
    "VerdictReveal": f"request `{wire.REVEAL}`, member to members",
    "HandoverProposal": f"request `{wire.HANDOVER}`, leader to member",
    "HandoverVote": f"answer to `{wire.HANDOVER}`",
    "SettleProposal": f"request `{wire.SETTLE}`, leader to member",
    "SettleVote": f"answer to `{wire.SETTLE}`",
    "BlobRequest": f"stream `{wire.BLOB}`, first frame of the asker, without an envelope",
}
INNER: dict[str, tuple[type[msgspec.Struct], str]] = {
    "Envelope": (Envelope, "around every message that is not said to travel without one"),
    "ScoreWeights": (messages.ScoreWeights, "inside JobAnnounce"),
    "Bid": (messages.Bid, "encoded, inside BidReveal"),
    "BidderRecord": (messages.BidderRecord, "inside Proposal"),
    "VerdictBody": (messages.VerdictBody, "encoded, inside VerdictReveal"),
    "BlobHeader": (messages.BlobHeader, f"stream `{wire.BLOB}`, first frame of the answer, without an envelope"),
    "ModelOffer": (messages.ModelOffer, "inside Capability"),
    "InferTerms": (messages.InferTerms, "inside JobAnnounce"),
    "Answers": (inference.Answers, "encoded: the blob that an InferenceClaim names"),
    "Answer": (inference.Answer, "inside Answers"),
    "InferSpec": (inference.InferSpec, "encoded, inside SpecAnswer; its sha256 is the spec hash"),
    "InferTask": (inference.InferTask, "inside InferSpec"),
    "TrainSpec": (spec.TrainSpec, "encoded, inside SpecAnswer; its sha256 is the spec hash"),
}


def describe(shape: shapes.Type) -> str:
    """A field's type with its limits, e.g. 'bytes, 32' or 'array of at most 8 × text, at most 256 characters'."""
    match shape:
        case shapes.BoolType():
            return "boolean"
        case shapes.IntType():
            low, high = shape.ge, shape.le if shape.le is not None else None if shape.lt is None else shape.lt - 1
            return f"integer, {_power(low)} to {_power(high)}"
        case shapes.BytesType():
            if shape.max_length is None:
                return "bytes"
            exact = shape.min_length == shape.max_length
            return f"bytes, {shape.max_length:,}" if exact else f"bytes, at most {shape.max_length:,}"
        case shapes.StrType():
            pattern = f" matching `{shape.pattern}`" if shape.pattern else ""
            return f"text, at most {shape.max_length} characters{pattern}"
        case shapes.LiteralType():
            return "one of " + ", ".join(f"`{value}`" for value in shape.values)
        case shapes.EnumType():
            return "one of " + ", ".join(f"{member.value} {member.name}" for member in shape.cls)
        case shapes.VarTupleType():
            return f"array of at most {shape.max_length} × ({describe(shape.item_type)})"
        case shapes.TupleType():
            return "array of (" + "; ".join(describe(item) for item in shape.item_types) + ")"
        case shapes.DictType():
            return f"map of at most {shape.max_length}, ({describe(shape.key_type)}) → ({describe(shape.value_type)})"
        case shapes.StructType():
            return f"map, {shape.cls.__name__}"
        case shapes.UnionType():
            return " or ".join(describe(one) for one in shape.types)
        case shapes.NoneType():
            return "nothing"
        case _:
            raise TypeError(f"no words for {shape}")


def _power(number: Any) -> str:
    if number is None:
        raise TypeError("an integer field has no bound")
    for exponent in (28, 31, 53, 63):
        if number in (2**exponent, 2**exponent - 1):
            return f"2^{exponent}" + (" − 1" if number == 2**exponent - 1 else "")
        if number == -(2**exponent):
            return f"−2^{exponent}"
    return f"{number:,}"


def table(kind: type[msgspec.Struct], travels: str) -> str:
    """One type: its law, where it travels, its fields in order."""
    shape = shapes.type_info(kind)
    assert isinstance(shape, shapes.StructType)
    lines = [f"#### {kind.__name__}", "", " ".join(inspect.getdoc(kind).split()) + f" *{travels}.*", ""]
    lines += ["| field | type |", "|---|---|"]
    lines += [
        f"| `{field.encode_name}` | {describe(field.type).replace('|', chr(92) + '|')} |" for field in shape.fields
    ]
    return "\n".join(lines)


def message_tables() -> str:
    """All kinds in the order of the source, then what is only found inside others."""
    parts = [table(kind, TRAVELS[name]) for name, kind in messages.KINDS.items()]
    return "\n\n".join(parts + [table(kind, travels) for kind, travels in INNER.values()])


def protocol_names() -> str:
    """The names of requests and streams, as the code has them."""
    names = {name: value for name, value in vars(wire).items() if isinstance(value, str) and value.startswith("/cyx/")}
    return "\n".join(f"- `{value}`" for value in sorted(names.values()))


def codec_example() -> str:
    """A Tally and its canonical bytes."""
    tally = messages.Tally(job=bytes(range(32)), bids=(), nonce_commitment=bytes(32))
    return f"`Tally(job=00 01 … 1f, bids=(), nonce_commitment=00 … 00)` is `{codec.encode(tally).hex()}`."


if __name__ == "__main__":
    import sys

    sys.stdout.write(message_tables() + "\n")
