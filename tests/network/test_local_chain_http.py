"""Hostile HTTP and hostile calls: the local chain refuses them by name and goes on."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import trio

from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.ledger.escrow_layout import SLOT_HASHES_SYSVAR
from cyxnode.protocol.limits import RPC_BATCH_MAX, RPC_BODY_MAX_BYTES
from cyxnode.protocol.units import base58

LOCAL_PROGRAM = base58(LOCAL_PROGRAM_ID)


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


async def test_a_chunked_body_is_taken_and_the_connection_kept(url: str) -> None:
    body = json.dumps(call("getHealth")).encode()
    chunked = http(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), extra=b"transfer-encoding: chunked\r\n")
    answer = await exchange(url, chunked + http(body))
    assert answer.count(b'"ok"') == 2
