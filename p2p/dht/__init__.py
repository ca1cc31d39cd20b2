"""The network's kad-DHT: libp2p's handlers, frames and routing table, behind bounds of our own."""

from __future__ import annotations

from .. import libp2p_quiet  # noqa: F401 -- before anything of libp2p
