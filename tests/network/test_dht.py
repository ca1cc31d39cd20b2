"""The DHT over real hosts, of which nobody knows all: look-ups over several hops, providers, records, their cost."""

from __future__ import annotations

import time
from hashlib import sha256

import pytest
import trio
from multiaddr import Multiaddr
from multiaddr.protocols import P_P2P

from cyxnode.p2p.bans import Bans
from cyxnode.p2p.dht import node as dht_node
from cyxnode.p2p.dht.lookup import distance
from cyxnode.p2p.host import libp2p_id
from cyxnode.protocol.discovery import class_key
from cyxnode.protocol.limits import DHT_QUESTIONS_MAX
from dht_hosts import GENESIS, Host, join, network, opened, until

pytestmark = pytest.mark.slow
WIDTH, HOSTS = 4, 44


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def nearest(hosts: list[Host], key: bytes) -> list[Host]:
    return sorted(hosts, key=lambda host: distance(host.node, sha256(key).digest()))


async def test_a_crowd_of_which_nobody_knows_all_finds_everything() -> None:
    """With buckets of 4 and 44 hosts; each step would fail if a look-up ended at the peers that its asker knows."""
    async with network(HOSTS, width=WIDTH) as hosts:
        assert all(host.dht.table.size() < HOSTS - 1 for host in hosts)
        far = hosts[-1]

        # the closest to a key, over hops
        hops = []
        for number in range(6):
            key = sha256(bytes([number])).digest()
            asker, truth = hosts[-1 - number], nearest(hosts, key)
            found = await asker.dht.find_closest(key)
            reached = [node for node in found.lookup.closest() if node != asker.node]
            assert reached[0] in [host.node for host in truth[: WIDTH + 1]]
            assert found.lookup.asked <= DHT_QUESTIONS_MAX
            hops.append(max(found.lookup.hops[node] for node in reached))
        assert max(hops) >= 2

        # addresses by name, of nodes that the asker has not heard of
        unknown = [host for host in hosts if not far.dht.table.holds(host.node) and host is not far]
        assert len(unknown) > HOSTS // 2
        for host in unknown[:5]:
            assert host.address in await far.dht.find_node(host.node)

        # providers of a class, found by others than those who keep them
        key = class_key(GENESIS, b"c" * 32)
        members = hosts[5:9]
        for member in members:
            assert await member.dht.provide(key) > 0
        outsiders = [host for host in hosts if host not in members and not len(host.dht.providers)]
        for host in (outsiders[0], outsiders[-1]):
            found = await host.dht.find_providers(key)
            assert set(found.providers) == {member.node for member in members}
            assert found.providers[members[0].node] == members[0].transport.addresses()

        # a node's own record
        author, reader = hosts[3], outsiders[-1]
        assert await author.dht.put_record(author.record(now_ms())) > 0
        record = await reader.dht.find_record(author.node)
        assert record is not None and record.sender == author.node
        assert await reader.dht.find_record(hosts[4].node) is None

        # and nothing of it was refused
        assert all(not host.dht.gate.refused for host in hosts)


async def test_connections_of_a_look_up_end_with_it() -> None:
    async with network(8, width=8, linger_s=0.1) as hosts:
        first, last = hosts[0], hosts[-1]
        before = last.transport.connected()
        found = await last.dht.find_closest(b"anything at all")
        assert found.lookup.asked > len(before)
        await until(lambda: last.transport.connected() == before)
        last.dht._keeps = lambda node: node == first.node
        await last.transport.disconnect(first.node)
        await last.dht.find_closest(b"anything at all")
        assert first.node in last.transport.connected()


async def test_a_second_look_at_the_neighbourhood_costs_little() -> None:
    async with network(12, width=4, linger_s=0.1) as hosts:
        began = time.process_time()
        for host in hosts:
            await host.dht.find_closest(host.node)
        assert (time.process_time() - began) / len(hosts) < 1.0  # 0.1 on a quiet machine; once in half an hour


async def test_who_does_not_serve_is_in_nobodys_table_but_looks_up() -> None:
    async with opened(1) as server, opened(2, serves=False) as client, opened(3) as other:
        await join(other, server)
        await join(server, other)
        await client.transport.connect(server.address)
        await until(lambda: client.dht._may_serve(server.node))
        found = await client.dht.find_closest(b"some key")
        assert set(found.lookup.closest()) == {server.node, other.node}
        await server.dht.meet()
        assert not server.dht.table.holds(client.node) and server.dht.gate.served["find_node"] >= 1
        client.dht.serve(True)
        client.dht.serve(False)


async def test_another_network_is_not_asked() -> None:
    async with opened(1) as ours, opened(2, genesis=b"h" * 32) as foreign:
        await ours.transport.connect(foreign.address)
        await trio.sleep(0.5)
        await ours.dht.meet()
        assert ours.dht.table.size() == 0
        assert (await ours.dht.find_closest(b"some key")).lookup.asked == 0


async def test_a_banned_peer_is_neither_asked_nor_answered() -> None:
    async with opened(1) as server, opened(2) as rogue:
        await join(rogue, server)
        await join(server, rogue)
        server.transport.ban(rogue.node)
        await until(lambda: rogue.node not in server.transport.connected())
        assert (await server.dht.find_closest(b"some key")).lookup.closest() == []
        assert (await rogue.dht.find_closest(b"some key")).lookup.closest() == []
        assert isinstance(server.transport._bans, Bans)


async def test_the_dead_are_dropped_and_what_is_old_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(1) as server:
        async with opened(2) as mortal:
            await join(server, mortal)
            assert await mortal.dht.provide(b"k" * 32) == 1
            assert len(server.dht.providers) == 1
        await until(lambda: not server.transport.connected())
        found = await server.dht.find_closest(b"some key")
        assert found.lookup.closest() == [] and not server.dht.table.holds(mortal.node)
        monkeypatch.setattr(dht_node.trio, "current_time", lambda: 1e9)
        server.dht.tidy()
        monkeypatch.undo()
        assert len(server.dht.providers) == 0


async def test_a_newer_record_takes_the_place_of_an_older_one() -> None:
    async with opened(1) as server, opened(2) as author:
        await join(author, server)
        await join(server, author)
        old, new = author.record(now_ms() - 60_000), author.record(now_ms())
        assert await author.dht.put_record(old) == 1
        assert await author.dht.put_record(new) == 1
        assert await author.dht.put_record(old) == 0
        found = await server.dht.find_record(author.node)
        assert server.dht.values.size() == 1 and (found is None or found.raw == new)
        (record, _), *_ = server.dht.values.store.values()
        assert record.value == new


async def test_nobody_is_dialled_by_itself() -> None:
    """The library dials whoever it has an address of, and it has one of everybody who ever connected, unless it is kept
    from it."""
    async with opened(1) as one, opened(2) as other:
        address = Multiaddr(other.address).decapsulate_code(P_P2P)
        one.transport._host.get_peerstore().add_addrs(libp2p_id(other.node), [address], 60)
        connector = one.transport._network.auto_connector
        await connector.maybe_connect()
        assert not one.transport.connected()
        del connector.maybe_connect
        await connector.maybe_connect()
        assert one.transport.connected() == {other.node}
