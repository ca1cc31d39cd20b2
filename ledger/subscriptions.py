"""Who subscribed to what on the local chain, and what a subscriber is told (shapes as agave's pub/sub gives them).

The cluster tells of each transaction and each slot; a notification is written once per subscription and handed to its
subscriber's `deliver`, which must not wait. The chain is final at once, so there is one notification per change, at
whatever commitment. A signature is told of once, and its subscription ends with that; one that had landed before it was
subscribed to is told of with the next slot, when the client surely knows the number of its subscription.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec
from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from ..protocol.limits import SUBSCRIPTIONS_PER_SOCKET_MAX
from .account_format import AccountFormat, Filters, decimals_of
from .addresses import CLOCK_SYSVAR
from .cluster import LocalCluster
from .escrow_layout import SLOT_HASHES_SYSVAR, SYSTEM_PROGRAM
from .history import TransactionRecord
from .rpc_json import Json
from .rpc_params import INVALID_PARAMS, METHOD_NOT_FOUND, Params, RpcFault, address, require_context
from .transaction import transaction_addresses

Topic = tuple[str, bytes | str]
"""Kind of event, and the address or signature that it concerns, empty for all."""
KINDS = ("signature", "account", "program", "logs", "slot", "root")
_CLOSED = Account(0, b"", SYSTEM_PROGRAM, False, 0)


@dataclass(slots=True, eq=False)
class Subscription:
    """One wish of one subscriber."""

    number: int
    topic: Topic
    deliver: Callable[[bytes], None]
    form: AccountFormat
    filters: Filters
    tell_received: bool = False
    ended: bool = False

    def notify(self, result: Any) -> None:
        """Hand one notification over."""
        notification = {
            "jsonrpc": "2.0",
            "method": f"{self.topic[0]}Notification",
            "params": {"result": result, "subscription": self.number},
        }
        self.deliver(msgspec.json.encode(notification))


class Subscriptions:
    """All subscriptions of all subscribers, by topic. Hooks itself into `cluster`."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self._numbers = count(1)
        self._topics: dict[Topic, dict[int, Subscription]] = {}
        self._late: list[tuple[Subscription, TransactionRecord]] = []
        self._decimals = decimals_of(cluster)
        cluster.after_transaction = self._after_transaction
        cluster.after_slot = self._after_slot

    def __len__(self) -> int:
        return sum(len(found) for found in self._topics.values())

    def add(
        self, topic: Topic, deliver: Callable[[bytes], None], options: dict[str, Any], *, tell_received: bool = False
    ) -> Subscription:
        """Subscribe; RpcFault when the options cannot be read."""
        form, filters = AccountFormat.of(options), Filters.of(options)
        subscription = Subscription(next(self._numbers), topic, deliver, form, filters, tell_received)
        self._topics.setdefault(topic, {})[subscription.number] = subscription
        if isinstance(topic[1], str) and (record := self.cluster.transaction(topic[1])):
            self._late.append((subscription, record))
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Tell of nothing more; harmless when it has ended."""
        subscription.ended = True
        found = self._topics.get(subscription.topic, {})
        found.pop(subscription.number, None)
        if not found:
            self._topics.pop(subscription.topic, None)

    def _tell_outcome(self, subscription: Subscription, record: TransactionRecord) -> None:
        self.remove(subscription)
        if subscription.tell_received:
            subscription.notify(self._with_context("receivedSignature"))
        error = json.loads(record.error) if record.error else None
        subscription.notify(self._with_context({"err": error}))

    def _after_transaction(self, record: TransactionRecord) -> None:
        if not self._topics:
            return
        for subscription in self._of("signature", record.signature):
            self._tell_outcome(subscription, record)
        self._tell_logs(record)
        if any(kind in ("account", "program") for kind, _ in self._topics):
            for changed in self._written(record):
                self._tell_account(changed)

    def _tell_logs(self, record: TransactionRecord) -> None:
        concerned = self._of("logs", b"")
        for mentioned in dict.fromkeys(record.addresses):
            concerned += self._of("logs", mentioned)
        error = json.loads(record.error) if record.error else None
        for subscription in concerned:
            value = {"signature": record.signature, "err": error, "logs": record.logs}
            subscription.notify(self._with_context(value))

    def _written(self, record: TransactionRecord) -> list[Pubkey]:
        """Accounts that a transaction could write: after a failure only its payer paid."""
        if record.error:
            return [Pubkey.from_bytes(record.addresses[0])]
        transaction = VersionedTransaction.from_bytes(record.raw)
        return transaction_addresses(transaction, self.cluster.account)[1]

    def _tell_account(self, changed: Pubkey) -> None:
        key = bytes(changed)
        account = self.cluster.account(key)
        for subscription in self._of("account", key):
            subscription.notify(self._with_context(self._write(subscription.form, account or _CLOSED)))
        if account is None:
            return
        for subscription in self._of("program", bytes(account.owner)):
            if subscription.filters.admit(account):
                written = self._write(subscription.form, account)
                subscription.notify(self._with_context({"pubkey": str(changed), "account": written}))

    def _write(self, form: AccountFormat, account: Account) -> Any:
        """Base64 where the account has outgrown base58: a notification cannot be refused."""
        try:
            return form.write(account, self._decimals)
        except RpcFault:
            return AccountFormat("base64", form.part).write(account, self._decimals)

    def _after_slot(self) -> None:
        slot = self.cluster.slot
        late, self._late = self._late, []
        for subscription, record in late:
            if not subscription.ended:
                self._tell_outcome(subscription, record)
        for subscription in self._of("slot", b""):
            subscription.notify({"slot": slot, "parent": slot - 1, "root": slot - 1})
        for subscription in self._of("root", b""):
            subscription.notify(slot - 1)
        for sysvar in (CLOCK_SYSVAR, SLOT_HASHES_SYSVAR):
            if ("account", bytes(sysvar)) in self._topics:
                self._tell_account(sysvar)

    def _of(self, kind: str, key: bytes | str) -> list[Subscription]:
        return list(self._topics.get((kind, key), {}).values())

    def _with_context(self, value: Any) -> Json:
        return {"context": {"slot": self.cluster.slot}, "value": value}


@dataclass(slots=True)
class Subscriber:
    """One connection: its subscriptions, and the methods that it may call. RpcFault is what it has to hear."""

    subscriptions: Subscriptions
    deliver: Callable[[bytes], None]
    _own: dict[int, Subscription] = field(default_factory=dict)

    def call(self, method: str, params: Any) -> Any:
        """The number of a new subscription, or True when one has ended."""
        kind = method.removesuffix("Unsubscribe").removesuffix("Subscribe")
        if kind not in KINDS or method == kind:
            served = ", ".join(f"{known}Subscribe" for known in KINDS)
            text = f"Method not found: {method[:64]}. Served here: {served} and their Unsubscribe; others over HTTP"
            raise RpcFault(METHOD_NOT_FOUND, text)
        values = Params(params)
        if method.endswith("Unsubscribe"):
            return self._unsubscribe(kind, values.natural(0))
        require_context(params, self.subscriptions.cluster.slot)
        return self._subscribe(kind, values)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._own.values():
            self.subscriptions.remove(subscription)
        self._own.clear()

    def _subscribe(self, kind: str, values: Params) -> int:
        self._own = {number: one for number, one in self._own.items() if not one.ended}
        if len(self._own) >= SUBSCRIPTIONS_PER_SOCKET_MAX:
            text = f"a connection has at most {SUBSCRIPTIONS_PER_SOCKET_MAX} subscriptions: unsubscribe from some"
            raise RpcFault(INVALID_PARAMS, text)
        options = values.options(1) if kind in ("signature", "account", "program", "logs") else {}
        topic = _topic(kind, values)
        wanted = bool(options.get("enableReceivedNotification"))
        subscription = self.subscriptions.add(topic, self.deliver, options, tell_received=wanted)
        self._own[subscription.number] = subscription
        return subscription.number

    def _unsubscribe(self, kind: str, number: int) -> bool:
        subscription = self._own.get(number)
        if subscription is None or subscription.ended or subscription.topic[0] != kind:
            raise RpcFault(INVALID_PARAMS, "Invalid subscription id.")
        self.subscriptions.remove(subscription)
        del self._own[number]
        return True


def _topic(kind: str, values: Params) -> Topic:
    if kind in ("account", "program"):
        return kind, values.address(0)
    if kind == "signature":
        return kind, values.signature(0)
    if kind != "logs":
        return kind, b""
    wish = values.at(0, object)
    if wish in ("all", "allWithVotes"):
        return kind, b""
    mentions = wish.get("mentions") if isinstance(wish, dict) else None
    if not isinstance(mentions, list) or len(mentions) != 1:
        text = 'Invalid params: the filter is "all", "allWithVotes" or {"mentions": [ADDRESS]} with one address'
        raise RpcFault(INVALID_PARAMS, text)
    return kind, address(mentions[0])
