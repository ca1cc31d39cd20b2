"""What may be asked of our DHT, and what its answers may hold: libp2p's messages, checked and cut to what counts here.

A provider speaks for itself alone, a record for its author alone, and neither carries signed addresses: the connection
has proven who speaks, and who is dialled proves itself again. Keys are those of `protocol/discovery.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from multiaddr import Multiaddr

from ...protocol.discovery import record_key
from ...protocol.errors import CyxError, RemoteError
from ...protocol.limits import (
    ADDRESSES_MAX,
    DHT_BUCKET_SIZE,
    DHT_PROVIDERS_TOLD_MAX,
    DHT_RECORD_MAX_BYTES,
    ID_BYTES,
)
from ...protocol.units import NodeId, parse_id
from ..addresses import parse_address
from ..discovery_gate import Passed, Refused
from ..peer_id import node_of_bytes, peer_id_bytes
from ..raw_streams import believed, in_text, with_peer

KINDS = {kind: name.lower() for name, kind in Message.MessageType.items()}
_KEY_BYTES_OF_A_LOOKUP = (2, 50)
"""What the library's handler accepts: peer ids, and keys of records and classes."""


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer that another one told of: not believed, only worth a try."""

    node: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What counts of an answer."""

    closer: tuple[Contact, ...] = ()
    providers: tuple[Contact, ...] = ()
    record: bytes = b""


def judge(peer: NodeId, raw: bytes) -> Passed | Refused:
    """Decide about one request of `peer`."""
    message = Message()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        return Refused("malformed")
    message.DiscardUnknownFields()
    for name in ("senderRecord", "closerPeers"):
        message.ClearField(name)
    cause = _flaw(peer, message)
    return Refused(cause) if cause else Passed(KINDS[message.type], message.SerializeToString())


def _flaw(peer: NodeId, message: Message) -> str:
    """What is wrong with a request, in a word; empty when nothing is. Cuts it to what counts."""
    if message.type != Message.ADD_PROVIDER:
        message.ClearField("providerPeers")
    if message.type != Message.PUT_VALUE:
        message.ClearField("record")
    match message.type:
        case Message.PING:
            return ""
        case Message.FIND_NODE:
            low, high = _KEY_BYTES_OF_A_LOOKUP
            return "" if low <= len(message.key) <= high else "key"
        case Message.GET_PROVIDERS:
            return "" if len(message.key) == ID_BYTES else "key"
        case Message.ADD_PROVIDER:
            return _flaw_of_provider(peer, message)
        case Message.GET_VALUE:
            return "" if author_of(message.key) is not None else "key"
        case Message.PUT_VALUE:
            return _flaw_of_record(peer, message)
    return "kind"


def _flaw_of_provider(peer: NodeId, message: Message) -> str:
    if len(message.key) != ID_BYTES:
        return "key"
    if len(message.providerPeers) != 1 or message.providerPeers[0].id != peer_id_bytes(peer):
        return "provider"
    provider = message.providerPeers[0]
    provider.ClearField("signedRecord")
    addresses = _addresses(peer, provider.addrs)
    del provider.addrs[:]
    provider.addrs.extend(Multiaddr(text).to_bytes() for text in addresses)
    return "" if addresses else "address"


def _flaw_of_record(peer: NodeId, message: Message) -> str:
    record = message.record
    if author_of(message.key) != peer or record.key != message.key:
        return "key"
    if record.author or record.signature:
        return "record"  # signed inside, by its author's envelope
    return "" if 0 < len(record.value) <= DHT_RECORD_MAX_BYTES else "size"


def author_of(key: bytes) -> NodeId | None:
    """Whose record a key names; None when it is no such key."""
    try:
        node = NodeId(parse_id(key.decode("ascii").rpartition("/")[2], field="key"))
    except (UnicodeDecodeError, CyxError):
        return None
    return node if record_key(node) == key else None


def _addresses(node: NodeId, raws: Iterable[bytes]) -> tuple[str, ...]:
    """The addresses among `raws` that can be one of `node`'s."""
    fit: list[str] = []
    for text in in_text(raws):
        with suppress(Exception):  # a text may still be no address that we know
            address = parse_address(with_peer(text, node))
            fit += [str(address)] if address.node == node else []
    return tuple(fit[:ADDRESSES_MAX])


def question(kind: int, key: bytes) -> Message:
    """A request without further content."""
    message = Message(key=key)
    message.type = kind  # type: ignore[assignment]
    return message


def provide(key: bytes, me: NodeId, addresses: Iterable[str]) -> Message:
    """The request by which `me` becomes a provider of `key`."""
    message = Message(type=Message.ADD_PROVIDER, key=key)
    message.providerPeers.add(id=peer_id_bytes(me), addrs=[Multiaddr(text).to_bytes() for text in addresses])
    return message


def put(key: bytes, value: bytes) -> Message:
    """The request that stores our own record."""
    message = Message(type=Message.PUT_VALUE, key=key)
    message.record.key, message.record.value = key, value
    return message


def read_answer(raw: bytes, asked: Message, told_from: str) -> Answer:
    """What counts of an answer to `asked` by a peer at host `told_from`. RemoteError when it is none."""
    message = Message()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        raise RemoteError("an answer of the DHT is no message of it") from None
    if message.type != asked.type:
        raise RemoteError("an answer of the DHT answers something else")
    record = message.record.value if message.HasField("record") and message.record.key == asked.key else b""
    return Answer(
        closer=_contacts(message.closerPeers, DHT_BUCKET_SIZE + 1, told_from),
        providers=_contacts(message.providerPeers, DHT_PROVIDERS_TOLD_MAX, told_from),
        record=record if len(record) <= DHT_RECORD_MAX_BYTES else b"",
    )


def _contacts(peers: Iterable[Message.Peer], most: int, told_from: str) -> tuple[Contact, ...]:
    found: dict[NodeId, Contact] = {}
    for count, peer in enumerate(peers):
        if count >= most:
            break
        node = node_of_bytes(peer.id)
        if node is not None and (addresses := believed(_addresses(node, peer.addrs), node, told_from)):
            found[node] = Contact(node, addresses)
    return tuple(found.values())
