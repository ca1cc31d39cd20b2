"""Opens a real world: the chain, a bootstrap node and all nodes of a plan as processes, and its requesters in this one.

The chain, the bootstrap node and the nodes are the commands that anyone runs by hand, and the requesters are built as
those of `cyxnode submit`. All processes are gone when the context closes, whatever state they are in.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import trio

from ..ledger.addresses import LOCAL_PROGRAM_ID
from ..ledger.chain_client import ChainClient
from ..ledger.http_rpc import open_http_rpc
from ..p2p.deny_list import DenyList
from ..protocol.ports import Blobs
from ..protocol.units import NodeId, base58
from ..scheduler.requester_service import TrainOrder
from ..simulation.chain_reader import ChainReader
from ..simulation.desk import Desk
from ..simulation.judge import Bench, Judge
from ..simulation.postmortem import Remains
from ..simulation.real_report import RealRun
from ..simulation.run import NodeFacts
from .compose import FAUCET_MICRO_CYX, Place, open_client
from .processes import Child, ChildFailed, open_child
from .real_nodes import Fleet, Participant, ended, log_tail

Order = Callable[[int, Blobs], TrainOrder]


@dataclass(slots=True)
class RealWorld:
    """Everything that runs. `seeds` are addresses of the bootstrap node."""

    run: RealRun
    fleet: Fleet
    reader: ChainReader
    judge: Judge
    rpc: str
    seeds: tuple[str, ...]
    requesters: list[Participant] = field(default_factory=list)
    end_unix_s: float = 0.0

    def now_s(self) -> float:
        """Seconds since the schedule began."""
        return trio.current_time() - self.fleet.origin_s

    def begin(self) -> None:
        """The schedule begins: what happened before, happened at its second 0."""
        self.fleet.origin_s = trio.current_time()
        self.run.events[:] = [(0.0, kind, detail) for _, kind, detail in self.run.events]

    async def populate(self) -> None:
        """Start all nodes at once; returns when all are ready."""
        async with trio.open_nursery() as nursery:
            for peer in self.fleet.peers:
                nursery.start_soon(self.fleet.start, peer)

    async def open_desk(self, stack: AsyncExitStack, number: int, order: Order) -> Desk:
        """Requester `number`, which is there until the stack closes."""
        who = self.fleet.participant(f"requester{number}")
        self.requesters.append(who)
        desk = Desk(who.name, order, self.now_s, self.fleet.tell)
        place = Place(self.rpc, LOCAL_PROGRAM_ID, self.seeds, deny_list=DenyList(who.deny_list))
        folder = self.fleet.home / who.name
        desk.service = await stack.enter_async_context(open_client(who.key, folder, place, desk.observe, faucet=True))
        return desk

    async def finish(self) -> None:
        """The end of the schedule: everybody may meet again, the chain is read for the last time, and who has lived
        until now is written down."""
        self.fleet.separate([])
        await self.reader.look()
        await self.reader.check_supply()
        self.judge.check_ends(self.run.jobs)
        self.run.earned_micro_cyx = await self._earnings()
        self.run.nodes = [
            NodeFacts(peer.who.name, base58(peer.who.node_id)[:8], peer.who.region, "", 0, 0, 0, 0.0, 0.0)
            for peer in self.fleet.peers
        ]
        self.end_unix_s = time.time()
        for peer in self.fleet.peers:
            peer.lasted = peer.child is not None and not peer.killed

    async def _earnings(self) -> dict[str, int]:
        """What each peer gained since the faucet funded it, stake and verifier's earnings included."""
        if not self.fleet.peers:
            return {}
        chain = ChainClient(self.reader.rpc, self.fleet.peers[0].who.key, LOCAL_PROGRAM_ID)
        accounts = {account.node: account for account in await chain.nodes()}
        gains = {}
        for peer in self.fleet.peers:
            account = accounts.get(peer.who.node_id)
            held = account.stake + account.earned if account else 0
            gains[peer.who.name] = (await chain.balance(peer.who.node_id)).micro_cyx + held - FAUCET_MICRO_CYX
        return gains

    def remains(self) -> list[Remains]:
        """What there is to read once all have ended."""
        home = self.fleet.home
        peers = [
            Remains(
                name=peer.who.name,
                node_id=peer.who.node_id,
                folder=home / peer.who.name,
                logs=tuple(peer.logs),
                stood_s=peer.stood_s,
                ran_to_the_end=peer.lasted,
                gone_at_unix_s=peer.gone_at_unix_s,
            )
            for peer in self.fleet.peers
        ]
        orders = [Remains(one.name, one.node_id, home / one.name) for one in self.requesters]
        return [*peers, *orders]


@asynccontextmanager
async def open_real_world(run: RealRun, fleet: Fleet, *, torch: bool) -> AsyncIterator[RealWorld]:
    """A chain and a bootstrap node run, and the plan's nodes are ready to be started, while the context is open."""
    home = fleet.home
    options = ["--home", str(home)]
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(
            open_child("chain", ["chain", "run", "--in-memory", "--port", "0", *options], home)
        )
        options += ["--rpc", chain.facts["url"]]
        lamp = fleet.participant("bootstrap")
        boot = await stack.enter_async_context(
            open_child(
                "bootstrap",
                ["bootstrap", "run", *options, "--listen", "127.0.0.1:0", "--deny-list", str(lamp.deny_list)],
                home,
            )
        )
        reader = ChainReader(await stack.enter_async_context(open_http_rpc(chain.facts["url"])))
        for number in range(run.plan.peers):
            fleet.add(number, options, torch=torch)
        judge = _judge(fleet, reader)
        reader.judge = judge
        async with trio.open_nursery() as fleet.nursery:
            for child in (chain, boot):
                fleet.nursery.start_soon(_must_live, child)
            yield RealWorld(run, fleet, reader, judge, chain.facts["url"], tuple(boot.facts["addresses"]))
            fleet.nursery.cancel_scope.cancel()


def _judge(fleet: Fleet, reader: ChainReader) -> Judge:
    names: dict[NodeId, str] = {peer.who.node_id: peer.who.name for peer in fleet.peers}
    return Judge(
        Bench(
            now_s=lambda: round(trio.current_time() - fleet.origin_s, 3),
            chain_s=lambda: reader.unix_s,
            honest=names.get,
            orders=lambda node: any(one.node_id == node for one in fleet.everyone if one.name.startswith("requester")),
            tell=lambda violation: fleet.tell("violation", f"{violation.number} {violation.text}"),
        )
    )


async def _must_live(child: Child) -> None:
    code = await ended(child)
    raise ChildFailed(f"{child.name} ended by itself with code {code}: {log_tail(child.log)}")
