"""An operator's list of peers with whom a node has nothing to do: no connection in either direction.

One peer a line, as `cyxnode` prints it ('12D3KooW…' or the base58 node id); `#` begins a comment. The file is looked at
every DENY_LIST_POLL_S: what is added is cut off then, what is removed may come back. A change that cannot be read
keeps the list as it was, since half a list would let in whom the operator shut out.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from ..protocol.errors import LocalError
from ..protocol.limits import DENY_LIST_MAX
from ..protocol.units import NodeId, parse_id
from .peer_id import node_of_text

_FIELD = "deny-list"
_log = structlog.get_logger()


class DenyList:
    """The peers that a file names. LocalError when it cannot be read at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stamped()
        self._nodes = read_peers(path)

    def __contains__(self, node: object) -> bool:
        return node in self._nodes

    @property
    def nodes(self) -> frozenset[NodeId]:
        """Who is listed."""
        return self._nodes

    def refresh(self) -> bool:
        """Read the file again if it has changed; whether the list is another now."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return False
        self._stamp, before = stamp, self._nodes
        try:
            self._nodes = read_peers(self._path)
        except LocalError as error:
            _log.error("deny_list_unreadable", path=str(self._path), cause=str(error), peers=len(before))
        return self._nodes != before

    def _stamped(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino


def read_peers(path: Path) -> frozenset[NodeId]:
    """The peers that a file lists; LocalError names the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"{path}: {error}", field=_FIELD, fix="give a readable text file") from None
    nodes = set()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            nodes.add(_peer(text, f"{path}, line {number}"))
    if len(nodes) > DENY_LIST_MAX:
        raise LocalError(f"{path} lists {len(nodes)} peers", field=_FIELD, fix=f"at most {DENY_LIST_MAX}")
    return frozenset(nodes)


def _peer(text: str, where: str) -> NodeId:
    try:
        return node_of_text(text)
    except LocalError:
        pass
    try:
        return NodeId(parse_id(text, field=_FIELD))
    except LocalError:
        fix = "write one peer id a line, 12D3KooW… or a node id in base58"
        raise LocalError(f"{where}: {text[:64]!r} is no peer id", field=_FIELD, fix=fix) from None
