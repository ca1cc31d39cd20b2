"""Whether this machine hears its own multicast; tests of mDNS say so when they are left out."""

from __future__ import annotations

import functools
import socket
import struct

import pytest

_GROUP, _PORT = "224.0.0.251", 5353


@functools.cache
def heard() -> bool:
    """Whether a datagram to the group of mDNS comes back within a second."""
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
        ):
            for one in (ear, mouth):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            ear.bind(("", _PORT))
            joined = struct.pack("4s4s", socket.inet_aton(_GROUP), socket.inet_aton("0.0.0.0"))
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
            ear.settimeout(1)
            mouth.sendto(b"cyx", (_GROUP, _PORT))
            return bool(ear.recv(64))
    except OSError:
        return False


needs_multicast = pytest.mark.skipif(not heard(), reason="NO MULTICAST: mDNS is not tested")
