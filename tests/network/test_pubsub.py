"""Pub/sub over websockets, as a client sees it: what is told, in which form, and every bound."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from solders.pubkey import Pubkey
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.trio.client import ClientConnection, connect

from cyxnode.ledger.addresses import CLOCK_SYSVAR, LOCAL_MINT
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.escrow_layout import SLOT_HASHES_SYSVAR, TOKEN_PROGRAM
from cyxnode.ledger.genesis import ensure_genesis
from cyxnode.ledger.local_faucet import airdrop, give_tokens
from cyxnode.ledger.pubsub_server import serve_pubsub
from cyxnode.ledger.rpc_methods import RpcMethods
from cyxnode.ledger.rpc_server import open_rpc_listeners, serve_rpc
from cyxnode.ledger.sender import signature_of
from cyxnode.ledger.subscriptions import Subscriptions
from cyxnode.ledger.transaction import TransactionRefused
from cyxnode.protocol.limits import (
    OUTBOX_MESSAGES_MAX,
    SOCKETS_MAX,
    SUBSCRIBE_REQUEST_MAX_BYTES,
    SUBSCRIPTIONS_PER_SOCKET_MAX,
)
from ledger_world import SOL, START_S, make_cluster, payment, wallet

BOB = wallet("bob").pubkey()
PATIENCE_S = 10


class Chain:
    """A cluster whose slots the test ticks, its subscriptions, and the URLs of both ports."""

    def __init__(self, cluster: LocalCluster, subscriptions: Subscriptions, url: str, rpc_url: str) -> None:
        self.cluster, self.subscriptions, self.url, self.rpc_url = cluster, subscriptions, url, rpc_url

    async def forgotten(self) -> None:
        """Until the server has noticed that its last client left."""
        with trio.fail_after(PATIENCE_S):
            while len(self.subscriptions):  # noqa: ASYNC110 (a server has no event)
                await trio.sleep(0.01)


@pytest.fixture
async def chain(nursery: trio.Nursery) -> AsyncIterator[Chain]:
    cluster = make_cluster()
    await ensure_genesis(cluster, bare=True)
    subscriptions = Subscriptions(cluster)
    listeners, port = await open_rpc_listeners("127.0.0.1", 0)
    rpc_listeners, rpc_port = await open_rpc_listeners("127.0.0.1", 0)
    server = await nursery.start(serve_pubsub, subscriptions, listeners)
    nursery.start_soon(serve_rpc, RpcMethods(cluster).call, rpc_listeners, server.handler)
    yield Chain(cluster, subscriptions, f"ws://127.0.0.1:{port}", f"ws://127.0.0.1:{rpc_port}")
    nursery.cancel_scope.cancel()


class Client:
    """Sends calls and sorts answers from notifications."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[Any] = []

    async def call(self, method: str, *params: Any) -> Any:
        await self.socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}))
        while "id" not in (message := await self.next()):
            self.told.append(message)
        return message

    async def subscribe(self, method: str, *params: Any) -> int:
        answer = await self.call(method, *params)
        assert "result" in answer, answer
        assert isinstance(answer["result"], int)
        return answer["result"]

    async def next(self) -> Any:
        with trio.fail_after(PATIENCE_S):
            return json.loads(await self.socket.recv())

    async def notification(self) -> tuple[str, Any]:
        message = self.told.pop(0) if self.told else await self.next()
        return message["method"], message["params"]["result"]

    async def value(self) -> Any:
        return (await self.notification())[1]["value"]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Client]:
    async with connect(url) as socket:
        yield Client(socket)


@pytest.fixture
async def client(chain: Chain) -> AsyncIterator[Client]:
    async with opened(chain.url) as found:
        yield found


async def test_a_signature_is_told_of_once_and_its_subscription_ends(chain: Chain, client: Client) -> None:
    raw = payment(chain.cluster, BOB, SOL)
    signature = signature_of(raw)
    number = await client.subscribe("signatureSubscribe", signature, {"commitment": "finalized"})
    chain.cluster.send(raw)
    assert await client.notification() == (
        "signatureNotification", {"context": {"slot": chain.cluster.slot}, "value": {"err": None}},
    )  # fmt: skip
    assert len(chain.subscriptions) == 0
    assert (await client.call("signatureUnsubscribe", number))["error"]["code"] == -32602


async def test_a_failure_and_its_receipt_are_told(chain: Chain, client: Client) -> None:
    raw = payment(chain.cluster, BOB, 10**18)
    signature = signature_of(raw)
    await client.subscribe("signatureSubscribe", signature, {"enableReceivedNotification": True})
    await client.subscribe("logsSubscribe", {"mentions": [str(BOB)]})
    chain.cluster.send(raw, preflight=False)
    assert await client.value() == "receivedSignature"
    assert await client.value() == {"err": {"InstructionError": [0, {"Custom": 1}]}}
    logs = await client.value()
    assert (logs["signature"], logs["err"]) == (signature, {"InstructionError": [0, {"Custom": 1}]})
    assert any("insufficient lamports" in line for line in logs["logs"])


async def test_a_signature_that_had_landed_is_told_of_with_the_next_slot(chain: Chain, client: Client) -> None:
    signature = airdrop(chain.cluster, bytes(BOB), SOL)
    await client.subscribe("signatureSubscribe", signature)
    chain.cluster.advance(START_S + 1)
    assert await client.value() == {"err": None}


async def test_accounts_in_every_encoding_and_until_they_close(chain: Chain, client: Client) -> None:
    give_tokens(chain.cluster, bytes(BOB), 1)
    (tokens,) = [
        key for key, account in chain.cluster.program_accounts(bytes(TOKEN_PROGRAM)) if len(account.data) == 165
    ]
    await client.subscribe("accountSubscribe", str(tokens), {"encoding": "jsonParsed"})
    await client.subscribe("accountSubscribe", str(tokens), {"encoding": "base64"})
    await client.subscribe(
        "accountSubscribe", str(tokens), {"encoding": "base58", "dataSlice": {"offset": 0, "length": 1}}
    )
    await client.subscribe("accountSubscribe", str(tokens), {"encoding": "base58"})
    give_tokens(chain.cluster, bytes(BOB), 1_499_999)
    parsed, plain, short, outgrown = [await client.value() for _ in range(4)]
    assert parsed["data"]["parsed"]["info"]["tokenAmount"]["uiAmountString"] == "1.5"
    data, encoding = plain["data"]
    assert encoding == "base64" and base64.b64decode(data)[:32] == LOCAL_MINT
    assert short["data"][1] == "base58" and short["space"] == 165
    assert outgrown["data"] == plain["data"], "too large for base58, and a notification cannot be refused"


async def test_programs_with_filters_logs_slots_roots_and_sysvars(chain: Chain, client: Client) -> None:
    mine = {"filters": [{"dataSize": 165}, {"memcmp": {"offset": 32, "bytes": str(BOB)}}], "encoding": "jsonParsed"}
    other = {"filters": [{"dataSize": 165}, {"memcmp": {"offset": 32, "bytes": str(Pubkey.default())}}]}
    await client.subscribe("programSubscribe", str(TOKEN_PROGRAM), mine)
    await client.subscribe("programSubscribe", str(TOKEN_PROGRAM), other)
    await client.subscribe("logsSubscribe", "all")
    give_tokens(chain.cluster, bytes(BOB), 7)
    told = dict([await client.notification() for _ in range(2)])
    assert told["programNotification"]["value"]["account"]["data"]["parsed"]["info"]["owner"] == str(BOB)
    assert told["logsNotification"]["value"]["err"] is None
    await client.subscribe("slotSubscribe")
    await client.subscribe("rootSubscribe")
    await client.subscribe("accountSubscribe", str(CLOCK_SYSVAR), {"encoding": "base64"})
    chain.cluster.advance(START_S + 1)
    slot = chain.cluster.slot
    told = dict([await client.notification() for _ in range(3)])
    assert told["slotNotification"] == {"slot": slot, "parent": slot - 1, "root": slot - 1}
    assert told["rootNotification"] == slot - 1
    clock = base64.b64decode(told["accountNotification"]["value"]["data"][0])
    assert int.from_bytes(clock[:8], "little") == slot


async def test_nothing_is_told_after_unsubscribing_or_leaving(chain: Chain, client: Client) -> None:
    number = await client.subscribe("slotSubscribe")
    assert (await client.call("slotUnsubscribe", number))["result"] is True
    await client.subscribe("rootSubscribe")
    chain.cluster.advance(START_S + 1)
    assert (await client.notification())[0] == "rootNotification"
    await client.socket.aclose()
    await chain.forgotten()


async def test_the_rpc_port_takes_the_upgrade(chain: Chain) -> None:
    async with opened(chain.rpc_url) as client:
        await client.subscribe("slotSubscribe")
        chain.cluster.advance(START_S + 1)
        assert (await client.notification())[0] == "slotNotification"


@pytest.mark.parametrize(
    ("method", "params", "code", "text"),
    [
        ("getSlot", [], -32601, "others over HTTP"),
        ("blockSubscribe", ["all"], -32601, "Served here: signatureSubscribe"),
        ("accountSubscribe", [], -32602, "parameter 0"),
        ("accountSubscribe", ["1" * 32, {"encoding": "base64+zstd"}], -32602, "use base64"),
        ("accountSubscribe", ["1" * 32, {"encoding": "rot13"}], -32602, "encoding"),
        ("accountSubscribe", ["1" * 32, {"commitment": "surely"}], -32602, "commitment: 'surely'"),
        ("programSubscribe", ["1" * 32, {"filters": [{}] * 5}], -32602, "max 4"),
        ("signatureSubscribe", ["1" * 32], -32602, "Invalid param"),
        ("logsSubscribe", [{"mentions": []}], -32602, "mentions"),
        ("logsSubscribe", ["some"], -32602, "allWithVotes"),
        ("slotUnsubscribe", [99], -32602, "Invalid subscription id."),
    ],
)  # fmt: skip
async def test_bad_calls_are_refused_by_name(
    client: Client, method: str, params: list[Any], code: int, text: str
) -> None:
    answer = await client.call(method, *params)
    assert answer["error"]["code"] == code and text in answer["error"]["message"], answer


async def test_garbage_is_answered_and_pings_are_not(client: Client) -> None:
    await client.socket.send(json.dumps({"jsonrpc": "2.0", "method": "ping"}))
    await client.socket.send("{")
    assert (await client.next())["error"]["code"] == -32700
    await client.socket.send(bytes(SUBSCRIBE_REQUEST_MAX_BYTES + 1))
    with trio.fail_after(PATIENCE_S), pytest.raises(ConnectionClosed):
        await client.socket.recv()


async def test_subscriptions_of_one_connection_are_bounded(chain: Chain, client: Client) -> None:
    for _ in range(SUBSCRIPTIONS_PER_SOCKET_MAX):
        await client.subscribe("slotSubscribe")
    refused = await client.call("slotSubscribe")
    assert "at most" in refused["error"]["message"]
    assert len(chain.subscriptions) == SUBSCRIPTIONS_PER_SOCKET_MAX


async def test_connections_are_bounded(chain: Chain, nursery: trio.Nursery) -> None:
    async def hold(task_status: Any) -> None:
        async with opened(chain.url) as client:
            await client.subscribe("rootSubscribe")
            task_status.started()
            await trio.sleep_forever()

    for _ in range(SOCKETS_MAX):
        await nursery.start(hold)
    async with opened(chain.url) as refused:
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(PATIENCE_S):
            await refused.socket.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


async def test_a_reader_that_falls_behind_is_disconnected_with_the_reason(chain: Chain, client: Client) -> None:
    await client.subscribe("rootSubscribe")
    for _ in range(OUTBOX_MESSAGES_MAX + 1):  # in one breath: nothing can be sent meanwhile
        chain.subscriptions._after_slot()
    with pytest.raises(ConnectionClosed) as closed, trio.fail_after(PATIENCE_S):
        while True:
            await client.socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, "too slow" in closed.value.rcvd.reason) == (1008, True)
    await chain.forgotten()


async def test_a_reader_that_takes_nothing_is_cut_off(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyxnode.ledger.pubsub_server.SOCKET_SEND_TIMEOUT_S", 0.05)
    monkeypatch.setattr("cyxnode.ledger.pubsub_server.SOCKET_CLOSE_TIMEOUT_S", 0.05)
    async with connect(chain.url, max_queue=1) as socket:
        await Client(socket).subscribe("accountSubscribe", str(SLOT_HASHES_SYSVAR), {"encoding": "base64"})
        with trio.fail_after(PATIENCE_S):
            while len(chain.subscriptions):
                chain.subscriptions._after_slot()
                await trio.lowlevel.checkpoint()
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.recv()


@pytest.mark.parametrize(("origin", "taken"), [("http://localhost:3000", True), ("https://example.org", False)])
async def test_pages_of_other_sites_are_refused(chain: Chain, origin: str, taken: bool) -> None:
    try:
        async with connect(chain.url, origin=origin):  # type: ignore[arg-type]
            assert taken
    except InvalidStatus as error:
        assert not taken and error.response.status_code == 403


async def test_a_cluster_without_subscribers_accepts_and_refuses_as_before(chain: Chain) -> None:
    raw = payment(chain.cluster, BOB, SOL)
    chain.cluster.send(raw)
    with pytest.raises(TransactionRefused, match="already been processed"):
        chain.cluster.send(raw)
