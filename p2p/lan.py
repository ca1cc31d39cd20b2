"""Peers on the same LAN, by mDNS: the library announces us, and what others announce is read here.

The library's own listener stores what any machine says into the table of addresses from a thread of its own, waits up
to 18 s for each name, lets a goodbye take away a stranger's addresses, and remembers every service of the LAN for ever.
Here a name costs a token and at most LAN_ASK_TIMEOUT_S, only addresses that name their own peer count, and when more
records than LAN_RECORDS_MAX are held, listening ends for LAN_PAUSE_S.
"""

from __future__ import annotations

from . import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog
import trio
from libp2p.discovery.mdns.broadcaster import PeerBroadcaster
from libp2p.discovery.mdns.utils import stringGen
from zeroconf import RecordUpdate, RecordUpdateListener, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from ..protocol.errors import LocalError
from ..protocol.limits import (
    ADDRESS_MAX_CHARS,
    ADDRESSES_MAX,
    LAN_ASK_TIMEOUT_S,
    LAN_NAMES,
    LAN_PAUSE_S,
    LAN_QUEUE_MAX,
    LAN_RECORDS_MAX,
)
from ..protocol.units import NodeId
from .addresses import parse_address
from .buckets import Buckets
from .peer_id import peer_id_text

_log = structlog.get_logger()
_EVERYBODY = NodeId(bytes(32))
Heard = Callable[[NodeId, tuple[str, ...]], None]
"""Called in trio's thread with a peer and where it says that it can be dialled."""


class Lan:
    """Announces `node` at `addresses()` as a `service`, and tells of others, until cancelled."""

    def __init__(self, service: str, node: NodeId, addresses: Callable[[], Sequence[str]], heard: Heard) -> None:
        self._service, self._node, self._addresses, self._heard = service, node, addresses, heard
        self.counts: Counter[str] = Counter()
        """Announcements: 'heard', or why they were passed over: 'rate', 'malformed', 'unanswered', 'queue'."""

    async def run(self) -> None:
        """Stays away when this machine has no multicast, and says so."""
        while True:
            send, receive = trio.open_memory_channel[tuple[NodeId, tuple[str, ...]] | None](LAN_QUEUE_MAX)
            try:
                session = await trio.to_thread.run_sync(partial(self._open, send, trio.lowlevel.current_trio_token()))
            except OSError as error:
                _log.warning("lan_not_available", cause=str(error), fix="--no-mdns, or enable multicast")
                return
            try:
                async for news in receive:
                    if news is None:
                        break
                    self.counts["heard"] += 1
                    self._heard(*news)
            finally:
                with trio.CancelScope(shield=True):  # zeroconf bounds its own end
                    await trio.to_thread.run_sync(session.close)
            _log.warning("lan_flooded", records=LAN_RECORDS_MAX, pause_s=LAN_PAUSE_S)
            await trio.sleep(LAN_PAUSE_S)

    def _open(
        self, send: trio.MemorySendChannel[tuple[NodeId, tuple[str, ...]] | None], token: trio.lowlevel.TrioToken
    ) -> _Session:
        return _Session(self._service, self._node, self._addresses(), self.counts, send, token)


class _Session(ServiceListener, RecordUpdateListener):
    """Lives in threads of zeroconf's; everything is called there but `close`, which may block for a second."""

    def __init__(
        self,
        service: str,
        node: NodeId,
        addresses: Sequence[str],
        counts: Counter[str],
        send: trio.MemorySendChannel[tuple[NodeId, tuple[str, ...]] | None],
        token: trio.lowlevel.TrioToken,
    ) -> None:
        self._node, self._counts, self._send, self._token = node, counts, send, token
        self._names: Buckets[NodeId] = Buckets(LAN_NAMES)
        self._records, self._flooded = 0, False
        self._zeroconf = Zeroconf()
        name = f"{stringGen(32)}.{service}"
        self._voice = PeerBroadcaster(
            self._zeroconf,
            service,
            name,
            peer_id_text(node),
            int(addresses[0].split("/")[4]) if addresses else 0,
            [address for address in addresses if len(address) < 250][:ADDRESSES_MAX],
        )
        self._zeroconf.add_listener(self, None)
        self._browser = ServiceBrowser(self._zeroconf, service, listener=self)
        if addresses:
            self._voice.register()

    def close(self) -> None:
        """Say goodbye and end the threads."""
        self._browser.cancel()
        self._voice.unregister()
        self._zeroconf.close()

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Every packet comes by here: look from time to time how much is held."""
        self._records += len(records)
        if self._records >= LAN_RECORDS_MAX // 8 and not self._flooded:
            self._records = 0
            held = sum(len(zc.cache.entries_with_name(name)) for name in zc.cache.names())
            if held + len(records) > LAN_RECORDS_MAX:
                self._flooded = True
                self._tell(None)

    def async_update_records_complete(self) -> None:
        """Nothing to do."""

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Somebody announces itself."""
        if self._flooded or not self._names.take(_EVERYBODY, time.monotonic()):
            self._counts["rate"] += 1
            return
        info = ServiceInfo(type_, name)
        if not info.load_from_cache(zc) and not info.request(zc, LAN_ASK_TIMEOUT_S * 1000):
            self._counts["unanswered"] += 1
            return
        found = announced(value for key, value in info.properties.items() if key.startswith(b"dnsaddr"))
        if found is None:
            self._counts["malformed"] += 1
        elif found[0] != self._node:
            self._tell(found)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Its addresses changed."""
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """A goodbye proves nothing: connections tell who is there."""

    def _tell(self, news: tuple[NodeId, tuple[str, ...]] | None) -> None:
        def pass_on() -> None:
            try:
                self._send.send_nowait(news)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._counts["queue"] += 1

        try:
            self._token.run_sync_soon(pass_on)
        except trio.RunFinishedError:
            self._counts["queue"] += 1


def announced(values: Iterable[bytes | None]) -> tuple[NodeId, tuple[str, ...]] | None:
    """The peer that the TXT record of an announcement names, and its addresses; None when they do not name one peer, or
    none well. Names of hosts do not count: they would have us ask others."""
    node: NodeId | None = None
    fit: list[str] = []
    for value in list(values)[: 2 * ADDRESSES_MAX]:
        try:
            address = parse_address((value or b"")[: ADDRESS_MAX_CHARS + 1].decode("ascii"))
        except (UnicodeDecodeError, LocalError):
            continue
        if address.network in ("ip4", "ip6"):
            if node not in (None, address.node):
                return None
            node = address.node
            fit.append(str(address))
    return None if node is None else (node, tuple(dict.fromkeys(fit))[:ADDRESSES_MAX])
