"""Nodes that cannot be dialled, over real sockets: they find out, are reached through relays, and then directly.

`test_nat.py` does the same behind real address translation, where the machine permits it."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from cyxnode.p2p.reachability import Mapping, Verdict
from cyxnode.protocol.errors import PeerUnreachable
from cyxnode.protocol.ports import GossipMessage, GossipVerdict, Stream
from reach_world import ECHO, key, kinds, reach_world, through, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p import circuits, reach, upgrade
    from cyxnode.p2p.transport import Libp2pTransport

pytestmark = pytest.mark.slow
TOPIC = "cyx/1/jobs/reach"


async def test_a_node_that_cannot_be_dialled_is_called_through_a_relay_and_calls_back_directly() -> None:
    async with reach_world(public=1, hidden=1) as (relays, (public,), (hidden,)):
        await until(lambda: public.reach_report.verdict is Verdict.REACHABLE)
        assert hidden.reach_report.verdict is Verdict.UNREACHABLE
        assert hidden.reach_report.mapping is Mapping.STEADY
        assert set(hidden.reach_report.relays) == {relay.node_id for relay in relays}
        assert list(hidden.addresses()[:2]) == through(hidden) and len(through(public)) == 0
        public.learn(hidden.node_id, through(hidden))
        assert await public.request(hidden.node_id, ECHO, b"hello", timeout_s=10) == b"hello"
        await until(lambda: kinds(public, hidden) == kinds(hidden, public) == ["direct"])
        assert await public.request(hidden.node_id, ECHO, b"hello", timeout_s=10) == b"hello"
        assert await hidden.request(public.node_id, ECHO, b"hello", timeout_s=10) == b"hello"
        assert hidden.figures().reach.upgraded == {"direct": 1, "relayed": 0}
        assert sum(relay.figures().reach.relay_granted["reservation"] for relay in relays) == 2


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "library"])
async def test_two_that_cannot_be_dialled_talk_and_gossip_through_the_relay(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "UPGRADE_TRIES_MAX", 0)
    heard: list[bytes] = []

    def accept(_message: GossipMessage) -> GossipVerdict:
        return GossipVerdict.ACCEPT

    async def listen(messages: AsyncIterator[GossipMessage]) -> None:
        async for message in messages:
            heard.append(message.data)

    async with reach_world(hidden=2, fast_gossip=fast) as (relays, _, (one, other)):
        one.learn(other.node_id, through(other))
        async with (
            one.subscribe(TOPIC, accept),
            other.subscribe(TOPIC, accept) as messages,
            trio.open_nursery() as tasks,
        ):
            tasks.start_soon(listen, messages)
            large = bytes(500_000)
            assert await one.request(other.node_id, ECHO, large, timeout_s=20) == large
            assert kinds(one, other) == ["relayed"]
            with trio.fail_after(20):
                while b"hello" not in heard:
                    await one.publish(TOPIC, b"hello")
                    await trio.sleep(0.2)
            tasks.cancel_scope.cancel()
        assert sum(relay.figures().reach.circuits for relay in relays) == 1
        await one.disconnect(other.node_id)
        await until(lambda: sum(relay.figures().reach.circuits for relay in relays) == 0)


async def test_a_stream_that_runs_is_not_cut_by_the_way_to_a_direct_connection() -> None:
    got: list[bytes] = []

    async def collect(stream: Stream) -> None:
        while (frame := await stream.receive()) is not None:
            got.append(frame)

    async with reach_world(public=1, hidden=1) as (_, (public,), (hidden,)):
        await until(lambda: public.reach_report.verdict is Verdict.REACHABLE)
        hidden.serve_stream("/cyx/1/sink", collect)
        public.learn(hidden.node_id, through(hidden))
        stream = await public.open_stream(hidden.node_id, "/cyx/1/sink")
        await stream.send(b"before")
        await until(lambda: "direct" in kinds(public, hidden))
        await until(lambda: hidden.figures().reach.upgraded["direct"] == 1)
        await trio.testing.wait_all_tasks_blocked()
        assert kinds(public, hidden) == ["direct", "relayed"]
        await stream.send(b"after")
        await stream.close()
        await until(lambda: kinds(public, hidden) == ["direct"])
        assert got == [b"before", b"after"]


async def test_another_relay_is_found_when_one_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "RELAYS_WANTED", 1)
    monkeypatch.setattr(reach, "RELAY_RETRY_S", 0.1)
    staying = Libp2pTransport(key(2), relay=True)
    async with reach_world(relays=0, hidden=1, joined=False) as (_, _, (hidden,)), staying.run():
        async with Libp2pTransport(key(1), relay=True).run() as going:
            await hidden.connect(going.addresses()[0])
            await hidden.connect(staying.addresses()[0])
            await until(lambda: hidden.reach_report.relays == (going.node_id,))
            await hidden.disconnect(going.node_id)
            assert going.node_id in hidden.connected()
        await until(lambda: hidden.reach_report.relays == (staying.node_id,))
        assert through(hidden)[0].split("/p2p/")[1].startswith(staying.addresses()[0].split("/p2p/")[1])


async def test_reservations_are_renewed_and_given_up_once_we_can_be_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (circuits, reach):
        monkeypatch.setattr(module, "RELAY_RESERVATION_S", 4.0)
    async with reach_world(relays=2, hidden=1) as (relays, _, (hidden,)):
        await until(lambda: relays[0].figures().reach.relay_granted["reservation"] >= 2)
        assert len(hidden.reach_report.relays) == 2
        known = hidden._reaching.reach._known
        found = tuple(type(one)(one.peer, one.host, one.port, True, one.at_s) for one in known.answers)
        hidden._reaching.reach._known = type(known)(Verdict.REACHABLE, found)
        await until(lambda: not through(hidden))
        assert hidden.reach_report.relays == ()


async def test_a_relay_that_is_gone_or_knows_nothing_of_the_target_is_an_unreachable_peer() -> None:
    async with reach_world(relays=1, public=2) as ((relay,), (one, other), _):
        false = f"{relay.addresses()[0]}/p2p-circuit/p2p/{other.addresses()[0].split('/p2p/')[1]}"
        one.learn(other.node_id, [false])
        with pytest.raises(PeerUnreachable, match="no reservation"):
            await one.request(other.node_id, ECHO, b"", timeout_s=10)
        ours = f"{one.addresses()[0]}/p2p-circuit/p2p/{other.addresses()[0].split('/p2p/')[1]}"
        with pytest.raises(PeerUnreachable, match="through this node itself"):
            await one.connect(ours)
