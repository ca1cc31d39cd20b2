"""A node: its ports, its services, and the order in which they start (DESIGN 13).

The same code runs over libp2p and in the simulator; only the ports differ. A provider registers on chain before it
speaks, so that whoever hears of it can rely on its stake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import structlog
import trio

from .. import __version__
from ..protocol.chain import ChainConfig, NodeAccount, Register
from ..protocol.envelope import Opener, open_any
from ..protocol.errors import LocalError
from ..protocol.identity import KeyPair
from ..protocol.limits import MODELS_OFFERED_MAX, OFFERS_LOOK_S
from ..protocol.messages import Capability
from ..protocol.ports import Blobs, Chain, Clock, Journal, Models, Randomness, Runner, Transport
from ..protocol.standing import Standing, standing, until_text
from ..protocol.units import MicroCyx, base58, format_cyx
from .context import NodeContext, NodeSettings
from .data_service import DataService
from .known_peers import KnownPeers
from .market_service import MarketService
from .no_models import NoModels
from .presence_service import Load, PresenceService
from .registry import Registry
from .supervision import plain_nursery
from .wire import Wire

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ports:
    """The world as one node sees it."""

    key: KeyPair
    transport: Transport
    chain: Chain
    blobs: Blobs
    journal: Journal
    clock: Clock
    randomness: Randomness
    opener: Opener = open_any
    """Opens envelopes; simulated nodes share the work."""


@dataclass(slots=True)
class Node:
    """A running provider and verifier."""

    context: NodeContext
    presence: PresenceService
    market: MarketService


async def ensure_registered(ports: Ports, runner: Runner, settings: NodeSettings) -> NodeAccount:
    """The node's chain account, registered with its stake in the runner's class if it is not yet.

    LocalError when the key asked to leave or was retired: registering would end an unbonding behind its owner's back.
    """
    account, config = await ports.chain.node(ports.key.node_id), await ports.chain.config()
    if account is not None:
        may_serve(account, config, (await ports.chain.time()).unix_s)
        if account.execution_class == runner.execution_class:
            return account
    stake = max(settings.stake, config.minimum_stake) if account is None else 0
    balance = await ports.chain.balance(ports.key.node_id)
    if balance.micro_cyx < stake:
        raise LocalError(
            f"a stake of {format_cyx(stake)} CYX is more than the balance of {format_cyx(balance.micro_cyx)} CYX",
            field="stake",
            fix=f"send tokens to {base58(ports.key.node_id)} (on the local chain: cyxnode chain airdrop)",
        )
    await ports.chain.submit(Register(runner.execution_class, MicroCyx(stake), ports.key.node_id))
    registered = await ports.chain.node(ports.key.node_id)
    if registered is None:
        raise LocalError("the registration was confirmed but cannot be read", field="chain", fix="check the RPC URL")
    return registered


def may_serve(account: NodeAccount, config: ChainConfig, unix_s: int) -> None:
    """LocalError unless the node stands so that it can serve. To come back is a decision of its owner's."""
    match standing(account, config, unix_s):
        case Standing.ACTIVE | Standing.BELOW_MINIMUM:
            return
        case Standing.RETIRED:
            text = (
                f"the key {base58(account.node)} was retired for equivocation: it signed two contradicting statements"
            )
            raise LocalError(text, field="key", fix="start over with a new key and a new stake: --name another")
        case Standing.UNBONDING:
            text = (
                f"this node asked to leave; its stake is unbonding until {until_text(account.unbonding_at_s, unix_s)}"
            )
            fix = "to serve again: cyxnode wallet stake 0 --reactivate, with this --name or --key"
        case Standing.WITHDRAWABLE:
            text = "this node asked to leave, and its stake waits to be withdrawn"
            fix = "cyxnode wallet withdraw; or to serve again: cyxnode wallet stake 0 --reactivate"
        case Standing.WITHDRAWN:
            text = "this node has no stake any more"
            fix = f"to serve again: cyxnode wallet stake {format_cyx(config.minimum_stake)}, with this --name or --key"
    raise LocalError(text, field="stake", fix=fix)


@asynccontextmanager
async def open_node(
    ports: Ports, runner: Runner, settings: NodeSettings, models: Models | None = None
) -> AsyncIterator[Node]:
    """Run a provider and verifier while the context is open; entered once it is ready to hear of jobs. It serves no
    inference without `models`."""
    account = await ensure_registered(ports, runner, settings)
    config = await ports.chain.config()
    wire = Wire(ports.transport, ports.key, config.genesis, ports.clock, ports.opener)
    async with plain_nursery() as nursery:
        context = NodeContext(
            wire=wire,
            chain=ports.chain,
            registry=Registry(ports.chain, ports.clock),
            runner=runner,
            models=models or NoModels(),
            blobs=ports.blobs,
            journal=ports.journal,
            randomness=ports.randomness,
            settings=settings,
            nursery=nursery,
        )
        presence = PresenceService(
            wire=wire,
            randomness=ports.randomness,
            bootstrap=settings.bootstrap,
            offer=lambda sequence, now_ms: capability_of(context, sequence, now_ms),
            load=lambda: Load("idle", 0, 0, 0),
            registered=context.registry.growth_of,
            kept=KnownPeers(ports.journal, ports.clock),
        )
        data = DataService(wire, ports.blobs)
        market = MarketService(context, presence, data)
        presence.load, presence.on_death = market.load, market.node_died
        data.may_read_states = market.may_read_states
        data.start()
        await nursery.start(market.run)
        await nursery.start(presence.run)
        nursery.start_soon(_tell_of_changes, presence, context)
        log.info("node ready", node=base58(wire.me), stake=account.stake, addresses=wire.transport.addresses())
        yield Node(context, presence, market)
        nursery.cancel_scope.cancel()


async def _tell_of_changes(presence: PresenceService, context: NodeContext) -> None:
    """Gossip our record at once when we can be dialled elsewhere, or offer other models or prices: nobody must wait
    for CAPABILITY_INTERVAL_MS to reach a node whose relay has just given it a place, nor ask for what is gone."""
    told = _told(context)
    while True:
        await trio.sleep(OFFERS_LOOK_S)
        if (now := _told(context)) != told:
            told = now
            await presence.announce_capability()
            presence.connections.hurry.set()


def _told(context: NodeContext) -> tuple[object, ...]:
    """What of our record may change while we run."""
    offers = context.models.offers()
    sold = frozenset((one.model, one.backend, one.prompt_rate, one.generated_rate, one.warm) for one in offers)
    return context.wire.transport.addresses(), sold


def capability_of(context: NodeContext, sequence: int, now_ms: int) -> Capability:
    """Our capability record, from the runner's own description."""
    offer, about = context.offer(), context.runner.description
    device: Literal["cpu", "cuda"] = offer.device
    return Capability(
        sequence=sequence,
        sent_at_ms=now_ms,
        execution_class=context.runner.execution_class,
        device=device,
        memory_mb=offer.memory_mb,
        sandbox=about.get("sandbox", "none")[:64],
        rate_micro_per_s=offer.rate_micro_per_s,
        region=offer.region,
        datasets=(),
        version=__version__,
        verifier=context.settings.verifier,
        addresses=context.wire.transport.addresses(),
        hardware={name[:64]: value[:512] for name, value in sorted(about.items())[:32]},
        models=offer.models[:MODELS_OFFERED_MAX],
    )


@asynccontextmanager
async def open_presence(
    key: KeyPair,
    transport: Transport,
    genesis: bytes,
    clock: Clock,
    randomness: Randomness,
    bootstrap: tuple[str, ...],
    opener: Opener = open_any,
    kept: KnownPeers | None = None,
) -> AsyncIterator[PresenceService]:
    """Join the network as one that offers nothing: a bootstrap node, a requester, an observer."""
    presence = PresenceService(
        wire=Wire(transport, key, genesis, clock, opener),
        randomness=randomness,
        bootstrap=bootstrap,
        offer=None,
        load=lambda: Load("idle", 0, 0, 0),
        kept=kept,
    )
    async with plain_nursery() as nursery:
        await nursery.start(presence.run)
        yield presence
        nursery.cancel_scope.cancel()
