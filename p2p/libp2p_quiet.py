"""Imports libp2p without the deprecation warnings of its own dependencies, which are not ours to mend."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import libp2p
    import libp2p.host.basic_host
    import libp2p.pubsub.gossipsub
    import libp2p.tools.anyio_service

__all__ = ["libp2p"]
