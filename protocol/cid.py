"""Content identifiers: the law by which a blob's name follows from its bytes.

A CID is what `ipfs add --cid-version=1 --raw-leaves` prints: the file is cut into 256 KiB chunks, each a raw block;
above one chunk, a balanced tree of UnixFS file nodes (dag-pb) with at most 174 links each stands over them. A CID is
text in lower-case base32 with the multibase prefix `b`. Sources: the specifications of CIDv1, dag-pb and UnixFS.
"""

from __future__ import annotations

import re
from base64 import b32encode
from hashlib import sha256
from typing import NamedTuple

CHUNK_BYTES = 256 * 1024
NODE_LINKS_MAX = 174
_RAW, _DAG_PB = 0x55, 0x70
_SHA2_256 = b"\x12\x20"
_UNIXFS_FILE = b"\x08\x02"
_TEXT = re.compile(r"baf(?:krei|ybei)[a-z2-7]{52}")


class _Node(NamedTuple):
    """A block of the tree: its binary CID, the file bytes below it, and the block bytes of its whole subtree."""

    cid: bytes
    file_bytes: int
    tree_bytes: int


def cid_of(data: bytes) -> str:
    """The CID of `data` as a file, e.g. 'bafkrei…' up to 256 KiB and 'bafybei…' above."""
    view = memoryview(data)
    level = [_leaf(view[start : start + CHUNK_BYTES]) for start in range(0, max(1, len(view)), CHUNK_BYTES)]
    while len(level) > 1:
        level = [_parent(level[start : start + NODE_LINKS_MAX]) for start in range(0, len(level), NODE_LINKS_MAX)]
    return "b" + b32encode(level[0].cid).decode().lower().rstrip("=")


def is_cid(text: str) -> bool:
    """Whether `text` has the form of a CID that `cid_of` can produce. Safe as a file name when true."""
    return _TEXT.fullmatch(text) is not None


def _leaf(chunk: memoryview) -> _Node:
    return _Node(_cid(_RAW, chunk), len(chunk), len(chunk))


def _parent(children: list[_Node]) -> _Node:
    file_bytes = sum(child.file_bytes for child in children)
    sizes = b"".join(b"\x20" + _varint(child.file_bytes) for child in children)
    unixfs = _UNIXFS_FILE + b"\x18" + _varint(file_bytes) + sizes
    block = b"".join(_field(0x12, _link(child)) for child in children) + _field(0x0A, unixfs)
    return _Node(_cid(_DAG_PB, block), file_bytes, len(block) + sum(child.tree_bytes for child in children))


def _link(child: _Node) -> bytes:
    return _field(0x0A, child.cid) + _field(0x12, b"") + b"\x18" + _varint(child.tree_bytes)


def _cid(codec: int, block: bytes | memoryview) -> bytes:
    return b"\x01" + _varint(codec) + _SHA2_256 + sha256(block).digest()


def _field(tag: int, value: bytes) -> bytes:
    return bytes([tag]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
