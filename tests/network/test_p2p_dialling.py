"""Dialling, and the life of a transport, in memory and over libp2p."""

from __future__ import annotations

import pytest

from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.errors import LocalError, PeerUnreachable
from transport_world import ECHO, World, echo, key, pair, until


async def test_unknown_peers_and_protocols_are_unreachable(world: World) -> None:
    near, far = await pair(world)
    with pytest.raises(PeerUnreachable, match="no address"):
        await near.request(key(99).node_id, ECHO, b"", timeout_s=5)
    with pytest.raises(PeerUnreachable):
        await near.open_stream(far.node_id, "/cyx/1/unknown")
    with pytest.raises(LocalError):
        await near.request(near.node_id, ECHO, b"", timeout_s=5)


async def test_dialling_another_node_than_the_address_names_fails(world: World) -> None:
    near, far = await pair(world)
    lie = far.addresses()[0].rsplit("/", 1)[0] + "/" + peer_id_text(key(99).node_id)
    with pytest.raises(PeerUnreachable):
        await near.connect(lie)
    near.learn(key(99).node_id, [lie])
    with pytest.raises(PeerUnreachable):
        await near.request(key(99).node_id, ECHO, b"", timeout_s=5)
    assert key(99).node_id not in near.connected()


async def test_learning_drops_hostile_addresses_and_a_later_good_one_works(world: World) -> None:
    near, far = await world.start(1), await world.start(2)
    good = far.addresses()[0]
    hostile = ["", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/99999/p2p/x", good + "/p2p-circuit", "x" * 10_000]
    near.learn(far.node_id, hostile)
    near.learn(key(50).node_id, [good])
    far.serve(ECHO, echo)
    for node in (far.node_id, key(50).node_id):
        with pytest.raises(PeerUnreachable, match="no address"):
            await near.request(node, ECHO, b"", timeout_s=5)
    near.learn(far.node_id, [*hostile, good])
    assert await near.request(far.node_id, ECHO, b"x", timeout_s=5) == b"x"


async def test_connect_returns_who_answered_and_refuses_malformed_addresses(world: World) -> None:
    near, far = await pair(world)
    assert await near.connect(far.addresses()[0]) == far.node_id
    assert await near.connect(far.addresses()[0]) == far.node_id
    with pytest.raises(LocalError, match="address"):
        await near.connect("http://example.org")


async def test_disconnect_ends_the_connection_on_both_sides(world: World) -> None:
    near, far = await pair(world)
    await near.connect(far.addresses()[0])
    await until(lambda: near.node_id in far.connected())
    await near.disconnect(far.node_id)
    await until(lambda: not near.connected() and not far.connected())
    await near.disconnect(far.node_id)


async def test_a_node_that_stops_is_nobodys_peer_any_more(world: World) -> None:
    nodes = [await world.start(number) for number in range(1, 4)]
    for node in nodes[1:]:
        await node.connect(nodes[0].addresses()[0])
    await until(lambda: len(nodes[0].connected()) == 2)
    await world.stop(nodes[0])
    await until(lambda: not nodes[1].connected() and not nodes[2].connected(), seconds=3)


async def test_serving_twice_or_under_a_bad_name_is_refused(world: World) -> None:
    node = await world.start(1)
    node.serve(ECHO, echo)
    for protocol in (ECHO, "no-slash", "/" + "x" * 1000):
        with pytest.raises(LocalError, match="protocol"):
            node.serve(protocol, echo)


async def test_a_node_may_return_under_its_old_address(world: World) -> None:
    near, far = await pair(world)
    address = far.addresses()[0]
    for _ in range(3):
        await world.stop(far)
        with pytest.raises(PeerUnreachable):
            await near.request(far.node_id, ECHO, b"x", timeout_s=5)
        far = await world.start(2, port=int(address.split("/")[4]))
        assert far.addresses() == (address,)
        far.serve(ECHO, echo)
        assert await near.request(far.node_id, ECHO, b"x", timeout_s=5) == b"x"


async def test_an_error_of_the_body_comes_out_as_itself(world: World) -> None:
    transport = world.make(key(1), 0)
    with pytest.raises(ZeroDivisionError):
        async with transport.run():
            raise ZeroDivisionError


async def test_a_transport_runs_once(world: World) -> None:
    transport = world.make(key(1), 0)
    with pytest.raises(LocalError, match="not running"):
        await transport.open_stream(key(2).node_id, ECHO)
    async with transport.run():
        pass
    with pytest.raises(LocalError, match="already"):
        async with transport.run():
            pass
