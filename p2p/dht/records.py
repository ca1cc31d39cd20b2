"""Values in the DHT: a node's own signed capability record under its own key, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from libp2p.abc import IHost
from libp2p.kad_dht.pb.kademlia_pb2 import Record
from libp2p.kad_dht.value_store import ValueStore
from libp2p.peer.id import ID
from libp2p.records.validator import Validator

from ...protocol.envelope import Signed, open_as
from ...protocol.errors import RemoteError
from ...protocol.limits import CLOCK_SKEW_MS, DHT_RECORD_EXPIRES_MS, DHT_RECORD_MAX_BYTES, DHT_RECORDS_MAX
from ...protocol.messages import Capability
from .requests import author_of


class CapabilityRecords(Validator):
    """Records of one network. `now_ms` is wall time in Unix milliseconds."""

    def __init__(self, genesis: bytes, now_ms: Callable[[], int]) -> None:
        self._genesis, self._now_ms = genesis, now_ms

    def opened(self, key: bytes, value: bytes) -> Signed[Capability]:
        """RemoteError unless `value` is the fresh record of whom `key` names."""
        signed = open_as(value, self._genesis, Capability, max_bytes=DHT_RECORD_MAX_BYTES)
        if author_of(key) != signed.sender:
            raise RemoteError("a record stands under another node's key", peer=signed.sender)
        age_ms = self._now_ms() - signed.message.sent_at_ms
        if not -CLOCK_SKEW_MS <= age_ms < DHT_RECORD_EXPIRES_MS:
            raise RemoteError("a record is out of date, or of a time to come", peer=signed.sender)
        return signed

    def validate(self, key: str, value: bytes) -> None:
        """As the library asks."""
        self.opened(key.encode(), value)

    def select(self, key: str, values: list[bytes]) -> int:
        """The newest one; of equals the first."""
        ages = [open_as(value, self._genesis, Capability).message.sent_at_ms for value in values]
        return ages.index(max(ages))


class BoundedValues(ValueStore):
    """The library's store with our bound on records; the oldest goes, and nothing outlives its author's record."""

    def __init__(self, host: IHost, me: ID, now_ms: Callable[[], int]) -> None:
        super().__init__(host, me)
        self._now_ms = now_ms

    def put_record(self, key: bytes, record: Record) -> None:
        """Keep a record that was validated."""
        self.store.pop(key, None)
        while len(self.store) >= DHT_RECORDS_MAX:
            del self.store[next(iter(self.store))]
        self.store[key] = (record, (self._now_ms() + DHT_RECORD_EXPIRES_MS) / 1000)
