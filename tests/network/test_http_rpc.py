"""Our own client of a chain that is down, silent, behind, or something else; and of a provider that refuses it."""

from __future__ import annotations

import socket

import pytest
import trio
from solders.system_program import TransferParams, transfer

from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.http_rpc import open_http_rpc
from cyxnode.ledger.rpc import Blockhash, TransactionFault
from cyxnode.ledger.sender import sign
from cyxnode.protocol.chain import Register
from cyxnode.protocol.errors import ChainUnreachable, LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import CHAIN_REQUEST_TIMEOUT_S
from cyxnode.protocol.units import MicroCyx
from ledger_world import SOL, wallet

ALICE, BOB = wallet("alice"), wallet("bob").pubkey()


async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with open_http_rpc(url) as rpc:
        assert (await rpc.time()).slot > 0


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
