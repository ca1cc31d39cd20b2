"""The chain as a service: solana-py's own client, hostile HTTP, occupied ports, a chain that is down."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.core import RPCException
from solana.rpc.models import MemcmpOpts, TokenAccountOpts
from solders.message import Message
from solders.pubkey import Pubkey
from solders.rpc.errors import SendTransactionPreflightFailureMessage
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from cyxnode.ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.chain_service import serve_chain
from cyxnode.ledger.escrow_layout import SLOT_HASHES_SYSVAR
from cyxnode.ledger.http_rpc import open_http_rpc
from cyxnode.ledger.rpc import Blockhash, TransactionFault
from cyxnode.ledger.sender import sign
from cyxnode.protocol.chain import Register
from cyxnode.protocol.errors import ChainUnreachable, LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import CHAIN_REQUEST_TIMEOUT_S, RPC_BATCH_MAX, RPC_BODY_MAX_BYTES
from cyxnode.protocol.units import MicroCyx, base58
from ledger_world import SOL, wallet

LOCAL_PROGRAM = base58(LOCAL_PROGRAM_ID)
ALICE, BOB = wallet("alice"), wallet("bob").pubkey()


@pytest.fixture
async def url(nursery: trio.Nursery) -> AsyncIterator[str]:
    started: str = await nursery.start(serve_chain, "127.0.0.1", 0, None)
    yield started
    nursery.cancel_scope.cancel()


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url, commitment=Confirmed) as opened:
        yield opened


async def payment(client: AsyncClient, lamports: int) -> VersionedTransaction:
    blockhash = (await client.get_latest_blockhash()).value.blockhash
    gift = TransferParams(from_pubkey=ALICE.pubkey(), to_pubkey=BOB, lamports=lamports)
    message = Message.new_with_blockhash([transfer(gift)], ALICE.pubkey(), blockhash)
    return VersionedTransaction(message, [ALICE])


async def test_solana_py_pays_and_reads_back(client: AsyncClient) -> None:
    await client.request_airdrop(ALICE.pubkey(), 3 * SOL)
    signature = (await client.send_transaction(await payment(client, SOL))).value
    status = (await client.get_signature_statuses([signature])).value[0]
    assert status is not None and status.err is None
    assert (await client.get_balance(BOB)).value == SOL
    assert [found.signature for found in (await client.get_signatures_for_address(BOB)).value] == [signature]
    found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
    assert found is not None and found.transaction.meta is not None
    assert found.transaction.meta.fee == 5000
    assert (await client.get_account_info(BOB)).value.lamports == SOL  # type: ignore[union-attr]
    several = (await client.get_multiple_accounts([BOB, Pubkey.from_bytes(bytes([5] * 32))])).value
    assert [account.lamports if account else None for account in several] == [SOL, None]


async def test_solana_py_reads_the_chain(client: AsyncClient) -> None:
    assert await client.is_connected()
    slot = (await client.get_slot()).value
    assert (await client.get_block_height()).value >= slot
    assert (await client.get_epoch_info()).value.absolute_slot >= slot
    assert (await client.get_block_time(slot)).value
    assert (await client.get_version()).value.solana_core
    assert (await client.get_minimum_balance_for_rent_exemption(0)).value == 890_880
    assert (await client.get_transaction_count()).value > 0
    assert (await client.get_recent_prioritization_fees()).value


async def test_solana_py_reads_tokens_and_programs(client: AsyncClient, url: str) -> None:
    async with open_http_rpc(url) as rpc:
        await rpc.request_tokens(bytes(BOB), 2_500_000)
    supply = (await client.get_token_supply(Pubkey.from_bytes(LOCAL_MINT))).value
    assert (supply.amount, supply.decimals) == ("2500000", 6)
    owned = (await client.get_token_accounts_by_owner(BOB, TokenAccountOpts(mint=Pubkey.from_bytes(LOCAL_MINT)))).value
    assert len(owned) == 1
    balance = (await client.get_token_account_balance(owned[0].pubkey)).value
    assert balance.ui_amount_string == "2.5"
    program = Pubkey.from_bytes(LOCAL_PROGRAM_ID)
    config = (await client.get_program_accounts(program, encoding="base64")).value
    assert len(config) == 1
    tag = MemcmpOpts(offset=0, bytes=base58(bytes([0xC2])))
    assert (await client.get_program_accounts(program, filters=[tag])).value == []


async def test_a_failing_transaction_reaches_solana_py_with_error_and_logs(client: AsyncClient) -> None:
    await client.request_airdrop(ALICE.pubkey(), SOL)
    with pytest.raises(RPCException) as caught:
        await client.send_transaction(await payment(client, 5 * SOL))
    failure = caught.value.args[0]
    assert isinstance(failure, SendTransactionPreflightFailureMessage)
    assert json.loads(failure.data.to_json())["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert any("insufficient lamports" in line for line in failure.data.logs or [])


async def test_a_duplicate_and_fees(client: AsyncClient) -> None:
    await client.request_airdrop(ALICE.pubkey(), 3 * SOL)
    transaction = await payment(client, SOL)
    assert (await client.get_fee_for_message(transaction.message)).value == 5000  # type: ignore[arg-type]
    simulated = (await client.simulate_transaction(transaction)).value
    assert simulated.err is None and simulated.units_consumed == 150
    await client.send_transaction(transaction)
    with pytest.raises(RPCException) as caught:
        await client.send_transaction(transaction)
    assert "already been processed" in str(caught.value.args[0].message)
    assert (await client.get_balance(BOB)).value == SOL


@pytest.mark.slow
async def test_slots_tick_by_themselves(client: AsyncClient) -> None:
    first = (await client.get_slot()).value
    with trio.fail_after(5):
        while (await client.get_slot()).value == first:  # noqa: ASYNC110 (a server has no event)
            await trio.sleep(0.02)


def http(
    body: bytes, *, head: bytes = b"POST / HTTP/1.1", kind: bytes = b"application/json", extra: bytes = b""
) -> bytes:
    length = b"content-length: %d\r\n" % len(body) if b"chunked" not in extra else b""
    return head + b"\r\nhost: x\r\ncontent-type: " + kind + b"\r\n" + length + extra + b"\r\n" + body


async def exchange(url: str, request: bytes) -> bytes:
    """All that the server says until it closes, after one half-closed request."""
    host, port = url.removeprefix("http://").split(":")
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            try:
                await stream.send_all(request)
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass  # refused before all was sent
            answer = b""
            try:
                async for chunk in stream:
                    answer += chunk
            except trio.BrokenResourceError:
                pass
            return answer


async def post(url: str, value: Any) -> Any:
    answer = await exchange(url, http(value if isinstance(value, bytes) else json.dumps(value).encode()))
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


def call(method: str, *params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 10_000, -32700),
        (b'{"jsonrpc": "2\xfd"}', -32700),
        (b'{"jsonrpc": "2.0", "id": %d, "method": "getSlot"}' % 2**70, -32600),
        (b"[]", -32600),
        (b"3", -32600),
        ({"jsonrpc": "2.0", "id": [], "method": "getSlot"}, -32600),
        ([call("getSlot")] * (RPC_BATCH_MAX + 1), -32600),
        (call("__class__"), -32601),
        ({**call("getBalance"), "params": {"a": 1}}, -32602),
        (call("getBalance"), -32602),
        (call("getBalance", "0OIl"), -32602),
        (call("getBalance", True), -32602),
        (call("getMultipleAccounts", ["1" * 32] * 101), -32602),
        (call("getSignatureStatuses", ["1" * 64] * 257), -32602),
        (call("sendTransaction", "AA", {"preflightCommitment": "surely"}), -32602),
        (call("getMinimumBalanceForRentExemption", -1), -32602),
        (call("sendTransaction", "!!", {"encoding": "base64"}), -32602),
        (call("sendTransaction", "A" * 5000, {"encoding": "base64"}), -32602),
        (call("sendTransaction", "AA==", {"encoding": "rot13"}), -32602),
        (call("requestAirdrop", "1" * 32, 2**63), -32602),
        (call("getSlot", {"commitment": "surely"}), -32602),
        (call("getSlot", {"minContextSlot": 2**40}), -32016),
        (call("getAccountInfo", LOCAL_PROGRAM, {"encoding": "base64+zstd"}), -32602),
        (call("getAccountInfo", LOCAL_PROGRAM, {"encoding": "rot13"}), -32602),
        (call("getMultipleAccounts", [str(SLOT_HASHES_SYSVAR)]), -32600),
        (call("getTokenLargestAccounts", "1" * 32), -32602),
        (call("getBlock", 2**40), -32004),
        (call("getBlock", 0, {"encoding": "rot13"}), -32602),
        (call("getBlock", 0, {"transactionDetails": "some"}), -32602),
        (call("getProgramAccounts", "1" * 32, {"filters": [{"memcmp": {"offset": -1, "bytes": "2"}}]}), -32602),
    ],
)  # fmt: skip
async def test_bad_calls_are_refused_with_the_right_code(url: str, body: Any, code: int) -> None:
    answer = await post(url, body)
    assert answer["error"]["code"] == code, answer
    assert (await post(url, call("getHealth")))["result"] == "ok"


@pytest.mark.parametrize("level", ["processed", "confirmed", "finalized"])
async def test_every_commitment_is_honoured_and_another_is_named(url: str, level: str) -> None:
    assert (await post(url, call("getSlot", {"commitment": level})))["result"] > 0
    refused = (await post(url, call("getBalance", "1" * 32, {"commitment": "root"})))["error"]
    assert "commitment: 'root' is not one of processed, confirmed, finalized" in refused["message"]


async def test_an_unknown_method_comes_with_a_hint(url: str) -> None:
    assert "Did you mean getBalance?" in (await post(url, call("getBalence")))["error"]["message"]
    assert "websocket" in (await post(url, call("slotSubscribe")))["error"]["message"]
    assert "Served: " in (await post(url, call("frobnicate")))["error"]["message"]


async def test_a_notification_gets_no_answer(url: str) -> None:
    note = {"jsonrpc": "2.0", "method": "ping"}
    assert (await exchange(url, http(json.dumps(note).encode()))).startswith(b"HTTP/1.1 204")
    assert len(await post(url, [note, call("getHealth")])) == 1


@pytest.mark.parametrize(
    ("origin", "status"), [(b"http://localhost:5173", b"204"), (b"http://example.org", b"405"), (b"null", b"405")]
)
async def test_only_pages_of_this_machine_pass_the_preflight(url: str, origin: bytes, status: bytes) -> None:
    asked = http(b"", head=b"OPTIONS / HTTP/1.1", extra=b"origin: " + origin + b"\r\n")
    answered = await exchange(url, asked)
    assert answered.startswith(b"HTTP/1.1 " + status)
    assert (b"access-control-allow-origin: " + origin in answered) == (status == b"204")
    called = await exchange(url, http(json.dumps(call("getHealth")).encode(), extra=b"origin: " + origin + b"\r\n"))
    assert (b"access-control-allow-origin" in called) == (status == b"204")


async def test_a_batch_is_answered_in_order(url: str) -> None:
    answers = await post(url, [call("getHealth"), call("nope"), call("getVersion")])
    assert [("result" in answer) for answer in answers] == [True, False, True]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (http(b"", head=b"GET / HTTP/1.1"), b"405"),
        (http(b"{}", kind=b"text/plain"), b"415"),
        (http(b"", head=b"OPTIONS / HTTP/1.1"), b"405"),
        (http(bytes(RPC_BODY_MAX_BYTES + 1)), b"413"),
        (b"POST / HTTP/1.1\r\nx: " + bytes([65]) * 70_000 + b"\r\n\r\n", b"431"),
        (b"\0\1\2 nonsense\r\n\r\n", b"400"),
    ],
)  # fmt: skip
async def test_bad_http_is_refused(url: str, request_: bytes, status: bytes) -> None:
    answer = await exchange(url, request_)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:100]


@pytest.mark.parametrize("head", [b"HEAD / HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"POST / HTTP/9.9", b"POST / HTTP/1.0"])
async def test_odd_requests_do_not_stop_the_server(url: str, head: bytes) -> None:
    await exchange(url, http(b"{}", head=head))
    await exchange(url, http(b"{}", head=head)[:-1])
    assert (await post(url, call("getHealth")))["result"] == "ok"


async def test_random_bytes_do_not_stop_the_server(url: str) -> None:
    draw = random.Random(1)
    good = http(json.dumps(call("getHealth")).encode())
    for _ in range(200):
        raw = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(raw))
            raw[at : at + draw.randint(0, 2)] = draw.randbytes(draw.randint(0, 2))
        await exchange(url, bytes(raw))
    assert (await post(url, call("getHealth")))["result"] == "ok"


async def test_a_chain_whose_disk_fails_ends_with_one_local_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise LocalError("disk full", field="data dir")

    class BreakDisk:
        def started(self, value: str | None = None) -> None:
            monkeypatch.setattr("cyxnode.ledger.cluster_store.ClusterStore.put_slot", full)

    with trio.fail_after(5), pytest.raises(LocalError, match="data dir: disk full"):
        await serve_chain("127.0.0.1", 0, tmp_path, task_status=BreakDisk())


async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with open_http_rpc(url) as rpc:
        assert (await rpc.time()).slot > 0


async def test_a_chunked_body_is_taken_and_the_connection_kept(url: str) -> None:
    body = json.dumps(call("getHealth")).encode()
    chunked = http(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), extra=b"transfer-encoding: chunked\r\n")
    answer = await exchange(url, chunked + http(body))
    assert answer.count(b'"ok"') == 2


async def test_an_occupied_port_is_named_with_the_fix(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with trio.fail_after(5), pytest.raises(LocalError, match=f"port: {port} is in use") as caught:
            await serve_chain("127.0.0.1", port, tmp_path)
    assert (caught.value.field, caught.value.fix.split()[0]) == ("port", "stop")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.org", "::"])
async def test_only_loopback_is_served(host: str) -> None:
    with trio.fail_after(5), pytest.raises(LocalError, match=r"host: .* is not loopback"):
        await serve_chain(host, 0, None)


async def test_a_chain_that_is_down_is_unreachable_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    async with open_http_rpc(f"http://127.0.0.1:{port}") as rpc:
        chain = ChainClient(rpc, KeyPair(bytes(32)), LOCAL_PROGRAM_ID)
        with trio.fail_after(1):
            with pytest.raises(ChainUnreachable, match=f"127.0.0.1:{port} did not answer"):
                await chain.time()
            with pytest.raises(ChainUnreachable):
                await chain.submit(Register(bytes(32), MicroCyx(1), bytes(32)))


async def test_a_chain_that_is_silent_is_unreachable_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyxnode.ledger.http_rpc.CHAIN_REQUEST_TIMEOUT_S", 0.05)
    assert CHAIN_REQUEST_TIMEOUT_S <= 10
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with open_http_rpc(f"http://127.0.0.1:{silent.getsockname()[1]}") as rpc:
            with trio.fail_after(2), pytest.raises(ChainUnreachable, match=r"no answer|did not answer"):
                await rpc.time()


async def test_something_else_on_the_port_is_unreachable(nursery: trio.Nursery) -> None:
    async def babble(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, babble, listeners)
    async with open_http_rpc(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}") as rpc:
        with pytest.raises(ChainUnreachable, match="something else"):
            await rpc.time()
    nursery.cancel_scope.cancel()


async def test_a_server_that_is_behind_is_told_from_one_that_refuses(url: str) -> None:
    async with open_http_rpc(url) as rpc:
        latest = await rpc.latest_blockhash()
        assert await rpc.blockhash_expired(latest) is None
        assert await rpc.blockhash_expired(Blockhash(bytes(32), latest.slot)) is not None
        ahead = latest.slot + 10_000
        for question in (
            rpc.blockhash_expired(Blockhash(latest.value, ahead)),
            rpc.status("1" * 64, since_slot=ahead),
            rpc.send(bytes(200), since_slot=ahead),
        ):
            with pytest.raises(ChainUnreachable, match="is behind"):
                await question


async def test_a_fault_of_the_preflight_keeps_error_and_logs(url: str) -> None:
    async with open_http_rpc(url) as rpc:
        await rpc.request_airdrop(bytes(ALICE.pubkey()), SOL)
        gift = TransferParams(from_pubkey=ALICE.pubkey(), to_pubkey=BOB, lamports=5 * SOL)
        raw = sign([transfer(gift)], [ALICE], (await rpc.latest_blockhash()).value)
        with pytest.raises(TransactionFault) as caught:
            await rpc.send(raw)
        assert caught.value.error == {"InstructionError": [0, {"Custom": 1}]} and caught.value.logs
        simulated = await rpc.simulate(raw)
        assert (simulated.error, simulated.units > 0) == (caught.value.error, True)
        assert await rpc.prioritization_fees([bytes(BOB)]) == [0]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", "HTTP 429: it limits how often"),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "HTTP 403: it refuses this client"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "HTTP 502"),
    ],
)
async def test_what_a_provider_refuses_is_explained_without_its_key(
    nursery: trio.Nursery, answer: bytes, text: str
) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(answer)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, refuse, listeners)
    port = listeners[0].socket.getsockname()[1]
    async with open_http_rpc(f"http://user:secret@127.0.0.1:{port}/secret?api-key=secret") as rpc:
        with pytest.raises(ChainUnreachable) as caught:
            await rpc.time()
    assert text in str(caught.value) and f"http://127.0.0.1:{port}" in str(caught.value)
    assert "secret" not in str(caught.value)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("bad", ["", "127.0.0.1:8899", "ftp://x", "http://"])
async def test_a_bad_url_is_a_local_error(bad: str) -> None:
    with pytest.raises(LocalError, match="rpc: "):
        async with open_http_rpc(bad):
            pass
