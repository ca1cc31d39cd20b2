"""Each weakness of the library is cured, and is still there without its cure; and what only configuration cures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import trio

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p import hardening

from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.units import NodeId

pytestmark = pytest.mark.slow
SCENARIOS = Path(__file__).with_name("hardening_scenarios.py")
CASES = {
    "peer_falls_silent": "silent_peers",
    "handler_raises": "stream_errors",
    "malformed_rpc": "rpc_errors",
    "malformed_key": "message_errors",
    "malformed_author": "message_errors",
    "validator_raises": "message_errors",
    "writes_are_cancelled": "whole_writes",
    "reader_pauses": "window_wait",
    "many_small_reads": "window_updates",
    "window_is_ignored": "window_overrun",
    "host_is_cancelled": "close_sockets",
    "dialling_is_quick": "dial_wait",
    "port_is_taken": "exclusive_port",
    "one_message_is_asked_for_many_times": "control_bounds",
    "burst_of_gossip": "queues",
    "records_in_messages": "sender_record",
    "library_logs": "quiet_logs",
}
NOT_NEEDED_BY_THE_FAST_PATH = {"message_errors", "whole_writes", "queues", "sender_record", "close_sockets"}
"""Its own code has no such weakness."""


@pytest.mark.parametrize("path", ["fast", "library"])
@pytest.mark.parametrize(("scenario", "cure"), CASES.items())
def test_weakness_is_cured_and_is_there_without_its_cure(scenario: str, cure: str, path: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCENARIOS), scenario],
        env={**os.environ, "CYXNODE_FAST_GOSSIP": "1" if path == "fast" else "0"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["cure"] == cure
    assert outcome["cured"] is None
    if path == "library" or cure not in NOT_NEEDED_BY_THE_FAST_PATH:
        assert outcome["uncured"] is not None, f"{scenario} passes without the cure {cure}"
    else:
        assert outcome["uncured"] is None


def test_every_cure_has_a_scenario() -> None:
    assert {cure.name for cure in hardening.CURES} == set(CASES.values())


def test_unknown_cures_are_refused() -> None:
    hardening.revert()
    with pytest.raises(LocalError, match="unknown"):
        hardening.apply(without={"nonsense"})
    hardening.apply()
    hardening.apply()


def test_another_version_of_the_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import structlog.testing

    monkeypatch.setattr(hardening, "version", lambda _name: "9.9.9")
    hardening.revert()
    with structlog.testing.capture_logs() as logs:
        hardening.apply()
    assert [entry["found"] for entry in logs] == ["9.9.9"]


async def test_plaintext_is_not_spoken() -> None:
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.custom_types import TProtocol
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
    from multiaddr import Multiaddr

    from cyxnode.p2p.transport import Libp2pTransport

    async def echo(_peer: NodeId, payload: bytes) -> bytes:
        return payload

    pair = create_new_key_pair(b"\5" * 32)
    stranger = new_host(key_pair=pair, sec_opt={TProtocol(PLAINTEXT_PROTOCOL_ID): InsecureTransport(pair)})
    listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    victim, friend = Libp2pTransport(KeyPair(b"\1" * 32)), Libp2pTransport(KeyPair(b"\2" * 32))
    victim.serve("/echo", echo)
    async with victim.run(), friend.run(), stranger.run(listen_addrs=listen):
        with pytest.raises(Exception, match="unable to connect"), trio.fail_after(20):
            await stranger.connect(info_from_p2p_addr(Multiaddr(victim.addresses()[0])))
        assert victim.connected() == frozenset()
        friend.learn(victim.node_id, victim.addresses())
        assert await friend.request(victim.node_id, "/echo", b"x", timeout_s=5) == b"x"


async def test_only_noise_and_yamux_are_negotiated_and_gossip_beats_every_second() -> None:
    from cyxnode.p2p.transport import Libp2pTransport

    transport = Libp2pTransport(KeyPair(b"\1" * 32))
    upgrader = transport._network.upgrader
    assert list(upgrader.security_multistream.transports) == ["/noise"]
    assert list(upgrader.muxer_multistream.transports) == ["/yamux/1.0.0"]
    assert transport._gossip._router.heartbeat_interval == 1
    assert transport._gossip._router.protocols == ["/meshsub/1.1.0"]


async def test_nobody_is_dialled_but_by_us() -> None:
    """The library would dial whoever its peers have named, as soon as a connection ends."""
    from multiaddr import Multiaddr

    from cyxnode.p2p.host import libp2p_id
    from cyxnode.p2p.transport import Libp2pTransport

    one, friend, stranger = (Libp2pTransport(KeyPair(bytes([number]) * 32)) for number in (1, 2, 3))
    async with one.run(), friend.run(), stranger.run():
        where = Multiaddr(stranger.addresses()[0].rpartition("/p2p/")[0])
        one._host.get_peerstore().add_addrs(libp2p_id(stranger.node_id), [where], 600)
        await one.connect(friend.addresses()[0])
        await one.disconnect(friend.node_id)
        await trio.sleep(0.5)
        assert one.connected() == stranger.connected() == frozenset()


async def test_garbage_on_the_port_does_no_harm() -> None:
    from cyxnode.p2p.transport import Libp2pTransport

    async def echo(_peer: NodeId, payload: bytes) -> bytes:
        return payload

    victim, friend = Libp2pTransport(KeyPair(b"\1" * 32)), Libp2pTransport(KeyPair(b"\2" * 32))
    victim.serve("/echo", echo)
    async with victim.run(), friend.run():
        port = int(victim.addresses()[0].split("/")[4])
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0" * 1000,
            b"\x13/multistream/1.0.0\n" + b"\xff" * 99,
        ):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(garbage)
        assert await _ask(friend, victim) == b"x"


async def _ask(friend: object, victim: object) -> bytes:
    friend.learn(victim.node_id, victim.addresses())  # type: ignore[attr-defined]
    return await friend.request(victim.node_id, "/echo", b"x", timeout_s=5)  # type: ignore[attr-defined,no-any-return]
