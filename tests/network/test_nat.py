"""Nodes behind real address translation, in network namespaces: what they find out, and how they are reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from cyxnode.protocol.limits import DIAL_TIMEOUT_S
from nat_world import NatWorld, peers, why_not

pytestmark = pytest.mark.slow
RELAY, OTHER_RELAY, PUBLIC, HOME, FAR_HOME = 1, 2, 3, 4, 5
RELAYS = {
    "relay": ("relay", "11.0.0.1", RELAY, True),
    "other_relay": ("other", "11.0.0.2", OTHER_RELAY, True),
}
AT_HOME = ("home", "10.1.0.2", HOME, False)
FAR = ("far", "10.2.0.2", FAR_HOME, False)
IN_PUBLIC = ("public", "11.0.0.3", PUBLIC, False)


@pytest.fixture
def world() -> Iterator[NatWorld]:
    reason = why_not()
    if reason:
        pytest.skip(f"NAT IS NOT TESTED: {reason}")
    world = NatWorld()
    try:
        world.public("relay", "11.0.0.1")
        world.public("other", "11.0.0.2")
        world.public("public", "11.0.0.3")
        world.home("home", "11.0.0.10", "10.1.0")
        yield world
    finally:
        world.close()


async def join(found: dict[str, object], *names: str) -> None:
    """Have peers dial both relays by their addresses."""
    for relay in ("relay", "other_relay"):
        address = (await found[relay]("addresses"))[0]  # type: ignore[operator]
        for name in names:
            await found[name]("connect", address)  # type: ignore[operator]


async def test_a_node_behind_a_nat_is_reached_through_a_relay_and_then_directly(world: NatWorld) -> None:
    async with peers(world, **RELAYS, home=AT_HOME, public=IN_PUBLIC) as found:
        await join(found, "home", "public")
        home, public = found["home"], found["public"]
        assert await public.until("verdict", "reachable")
        assert await home.until("verdict", "unreachable")
        assert (await home("standing"))["seen_as"] == ["11.0.0.10"]
        assert (await home("standing"))["mapping"] == "steady"
        assert (await public("standing"))["mapping"] == "none"
        await home.until("relays", 2)
        through = [one for one in await home("addresses") if "/p2p-circuit/" in one]
        assert len(through) == 2
        await public("learn", HOME, through)
        assert await public("ask", HOME)
        await public.until_links(HOME, ["direct"])
        assert await public("ask", HOME, 300_000)
        assert await home("ask", PUBLIC)


async def test_a_node_behind_a_nat_has_places_at_relays_before_anybody_has_failed_to_call_it(world: NatWorld) -> None:
    async with peers(world, **RELAYS, home=AT_HOME) as found:
        await join(found, "home")
        await found["home"].until("relays", 2)
        assert await found["home"]("verdict") == "unknown", "it waited for its router to swallow a call"


async def test_what_a_node_tells_of_its_own_network_keeps_nobody_waiting(world: NatWorld) -> None:
    world.home("far", "11.0.0.20", "10.2.0", mapping="fully-random")
    async with peers(world, **RELAYS, home=AT_HOME, far=FAR) as found:
        await join(found, "home", "far")
        home, far = found["home"], found["far"]
        await home.until("relays", 2)
        inside_first = sorted(await home("addresses"), key=lambda one: "/p2p-circuit/" in one)
        assert inside_first[0].startswith("/ip4/10.1.0.2/")
        await far("learn", HOME, inside_first)
        with trio.fail_after(DIAL_TIMEOUT_S / 2):
            assert await far("ask", HOME)


async def test_two_nodes_behind_nats_that_keep_their_ports_meet_in_the_middle(world: NatWorld) -> None:
    world.home("far", "11.0.0.20", "10.2.0")
    async with peers(world, **RELAYS, home=AT_HOME, far=FAR) as found:
        await join(found, "home", "far")
        home, far = found["home"], found["far"]
        await home.until("relays", 2)
        await far.until("relays", 2)
        await far("learn", HOME, [one for one in await home("addresses") if "/p2p-circuit/" in one])
        assert await far("ask", HOME)
        await far.until_links(HOME, ["direct"])
        assert await far("ask", HOME, 300_000)
        assert await home("ask", FAR_HOME)


async def test_behind_a_nat_that_changes_ports_the_relay_stays(world: NatWorld) -> None:
    world.home("far", "11.0.0.20", "10.2.0", mapping="fully-random")
    async with peers(world, **RELAYS, home=AT_HOME, far=FAR) as found:
        await join(found, "home", "far")
        home, far = found["home"], found["far"]
        await home.until("relays", 2)
        await far.until("relays", 2)
        await far.until("verdict", "unreachable")
        assert (await far("standing"))["mapping"] == "changing"
        await far("learn", HOME, [one for one in await home("addresses") if "/p2p-circuit/" in one])
        assert await far("ask", HOME, 300_000)
        assert await far("links", HOME) == ["relayed"]
        await home("say")
        await far.until("heard_of", lambda count: count >= 1)


async def test_a_forwarded_port_is_noticed(world: NatWorld) -> None:
    world.forward("home", 4001, "10.1.0")
    async with peers(world, **RELAYS, home=AT_HOME) as found:
        await join(found, "home")
        await found["home"].until("verdict", "reachable")
        assert await found["home"]("relays") == 0
