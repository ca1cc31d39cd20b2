"""Any signed message of any kind, from anybody, in any order: a node answers or drops it, and goes on."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
import structlog.testing
import trio

from cyxnode.protocol.bundle import pack
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.errors import CyxError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import Message
from cyxnode.protocol.units import NodeId
from cyxnode.protocol.validation import market_topic, presence_topic
from cyxnode.scheduler import wire
from cyxnode.scheduler.job import JobPhase
from market_world import World, open_world, run_job, winner_of
from sample_messages import MESSAGES

pytestmark = pytest.mark.slow
PROTOCOLS = [
    wire.SPEC, wire.START, wire.CLAIM, wire.TALLY, wire.PROPOSAL, wire.CERTIFICATE, wire.OUTCOME, wire.COMMIT,
    wire.OPEN, wire.REVEAL, wire.SETTLE, wire.PEERS,
]  # fmt: skip


def about(message: Message, job: bytes, rng: random.Random, ids: list[bytes]) -> Message:
    """The message, made to be about a real job and real parties."""
    changes: dict[str, Any] = {}
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if name == "job":
            changes[name] = job
        elif name in ("worker", "winner", "node"):
            changes[name] = rng.choice(ids)
        elif name == "round":
            changes[name] = rng.randrange(3)
        elif name == "verdict":
            changes[name] = rng.randint(1, 4)
        elif name == "sent_at_ms":
            changes[name] = 1_800_000_000_000 + round(trio.current_time() * 1000)
        elif isinstance(value, bytes) and rng.random() < 0.3:
            changes[name] = rng.randbytes(len(value))
    return msgspec.structs.replace(message, **changes)


async def pelt(world: World, attackers: list[tuple[KeyPair, Any]], rng: random.Random) -> None:
    """Send for ever, to everybody, over gossip and by hand."""
    genesis = next(iter(world.nodes.values())).context.wire.genesis
    execution_class = next(iter(world.nodes.values())).context.runner.execution_class
    topics = [market_topic(execution_class), presence_topic(execution_class)]
    ids = [*world.nodes, world.key("requester").node_id]
    while True:
        jobs: list[bytes] = [job for node in world.nodes.values() for job in node.market.rooms.by_job] or [bytes(32)]
        key, transport = rng.choice(attackers)
        message = about(rng.choice(MESSAGES), rng.choice(jobs), rng, list(ids))
        raw = seal(key, genesis, message)
        await trio.sleep(0.003)
        if rng.random() < 0.4:
            await transport.publish(rng.choice(topics), pack([raw]))
        else:
            try:
                await transport.request(NodeId(rng.choice(ids)), rng.choice(PROTOCOLS), raw, timeout_s=0.05)
            except CyxError:
                continue


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_job_is_done_under_a_hail_of_signed_messages(autojump_clock: object, seed: int) -> None:
    async with open_world(seed) as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        attackers = [(node.context.wire.key, node.context.wire.transport) for node in list(world.nodes.values())[:1]]
        for number in range(2):
            stranger = await world.add_requester(f"stranger{number}")
            attackers.append((stranger.wire.key, stranger.wire.transport))
        with structlog.testing.capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pelt, world, attackers, random.Random(seed))
                result = await run_job(requester)
                await run_job(requester)
                nursery.cancel_scope.cancel()
        defects = [line for line in logs if line["log_level"] == "error"]
        assert not defects, defects[0]
        assert result.phase in (JobPhase.SETTLED, JobPhase.FAILED)
        assert len(world.nodes) == 5
        assert await winner_of(world)
