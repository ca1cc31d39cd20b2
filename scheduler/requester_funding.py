"""Before anything is announced: find a class that is large enough, check the balance, fund the escrow (DESIGN 4).

Nothing is funded while the class is too small, and the reason that a job stays unfunded counts why nodes do not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import trio

from ..protocol.chain import JobAccount, OpenJob
from ..protocol.committee import draw, eligible, passed_over
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import ChainUnreachable, LocalError
from ..protocol.hashing import job_id
from ..protocol.limits import CLASSES_ASKED_MAX, CLOCK_SKEW_MS, NONCES_DRAWN, PEERS_ASKED_MAX, SURVEYS_MAX
from ..protocol.messages import Capability, JobAnnounce, ModelOffer
from ..protocol.ports import Chain, Journal, Randomness
from ..protocol.spec import encode_spec, spec_hash
from ..protocol.units import MicroCyx, NodeId, base58, format_cyx
from .auction_escrow import may_be_drawn
from .cells import shards_for
from .chronicle_facts import CAUSES_MAX, Lacking
from .job import JobEvent, JobPhase
from .offering import Offering
from .orders import InferOrder, Order
from .presence_service import PresenceService
from .pricing import reserve_price
from .reclaim import remember_escrow
from .registry import Registry
from .requester_record import JobRecord
from .requirements import UNREGISTERED, ModelWish, Requirements, explain
from .wire import Wire

LAMPORTS_NEEDED = 20_000_000
"""Rent of the job's accounts and the fees of its transactions, with room to spare."""
REFUND_MARGIN_S = 1
"""A refund is due so much later than the program demands."""
CLASS_POLL_S = 0.25
CLASS_POLL_LAST_S = 2.0


@dataclass(slots=True)
class Funding:
    """Brings one order from draft to a confirmed escrow."""

    wire: Wire
    chain: Chain
    registry: Registry
    presence: PresenceService
    journal: Journal
    randomness: Randomness
    record: JobRecord
    chosen: ModelOffer | None = None
    """Of an inference, once its class is found: the model that is meant."""

    @property
    def order(self) -> Order:
        return self.record.order

    @property
    def requirements(self) -> Requirements:
        """What the order asks of nodes; once it is chosen, by the model itself and not by its name."""
        asked, chosen = self.order.requirements, self.chosen
        if chosen is None:
            return asked
        return replace(asked, model=ModelWish(model=chosen.model, backend=chosen.backend))

    def fitting(self) -> dict[bytes, dict[NodeId, Capability]]:
        """Live nodes that could run this job, by execution class."""
        classes: dict[bytes, dict[NodeId, Capability]] = {}
        wish = self.requirements
        for node, offer in self.presence.alive().items():
            if not wish.misfit(offer):
                classes.setdefault(offer.execution_class, {})[node] = offer
        return {name: _alike(nodes, wish.model) for name, nodes in classes.items()}

    async def find_class(self) -> tuple[bytes | None, str]:
        """The class with the most live nodes that may sit, at least k + 1; waits while it is too small.

        Else None, and the reason with the counted causes.
        """
        needed, best, told, rounds = self.order.k + 1, 0, -1, 0
        with trio.move_on_after(self.order.class_wait_ms / 1000):
            while True:
                await self._look(rounds, enough=best >= needed)
                rounds += 1
                slot = (await self.chain.time()).slot
                sizes = {name: await self.seatable(name, slot) for name in self.fitting()}
                name = max(sizes, key=lambda one: (len(sizes[one]), one), default=None)
                best = len(sizes[name]) if name is not None else 0
                if name is not None and best >= needed:
                    self._choose(sizes[name])
                    await self.presence.reach(sorted(sizes[name]))
                    return name, ""
                if told != best:
                    told = best
                    await self._queued(best, needed)
                with trio.move_on_after(min(CLASS_POLL_LAST_S, CLASS_POLL_S * rounds)):
                    await self.presence.changed.wait()
        causes = explain(await self._causes())
        seen, waited_s = len(self.presence.alive()), self.order.class_wait_ms / 1000
        short = f"{best} of the {needed} nodes needed after {waited_s:.0f} s; {seen} nodes are live in all"
        return None, f"{short}{': ' + causes if causes else ''}; nothing was funded"

    async def _queued(self, best: int, needed: int) -> None:
        """Say how many nodes fit, and write down why the others do not."""
        if self.record.story.phase is JobPhase.DRAFT:
            self.record.event(JobEvent.QUEUED, "no class is large enough")
        causes = tuple(Counter(await self._causes()).most_common(CAUSES_MAX))
        lacking = Lacking(fitting=best, needed=needed, live=len(self.presence.alive()), causes=causes)
        self.record.stage("queued", f"{best} fitting nodes are live, {needed} are needed", lacking)

    def _choose(self, nodes: dict[NodeId, Capability]) -> None:
        """The model that these nodes serve alike is the one; LocalError when a prompt cannot fit it."""
        order = self.order
        if not isinstance(order, InferOrder):
            return
        served = [ModelWish(order.model).served(offer) for offer in nodes.values()]
        self.chosen = next((one for one in served if one is not None), None)
        if self.chosen is None or self.chosen.kind != "torch":
            return
        for index, prompt in enumerate(order.task.prompts):
            size, room = len(order.task.system.encode()) + len(prompt.encode()), self.chosen.context_length
            if size >= room:
                text = f"with the system text it has {size} tokens, {self.chosen.name} reads fewer than {room}"
                raise LocalError(text, field=f"prompts[{index}]", fix="shorten it, or take a model with more context")

    async def _look(self, rounds: int, *, enough: bool) -> None:
        """Survey the fitting classes that we see most of; while none is enough, also others that the chain names."""
        exchange, fitting = self.presence.exchange, self.fitting()
        if not fitting:
            await exchange.survey()
            fitting = self.fitting()
        names = sorted(fitting, key=lambda name: (len(fitting[name]), name), reverse=True)[:CLASSES_ASKED_MAX]
        if rounds and not enough:
            registered = Counter(account.execution_class for account in (await self.registry.nodes()).values())
            large = sorted(name for name, count in registered.items() if count > self.order.k and name not in names)
            start = rounds * CLASSES_ASKED_MAX % max(1, len(large))
            names += large[start : start + CLASSES_ASKED_MAX]
        for name in names:
            if rounds or not exchange.is_fresh(name):
                await exchange.survey(name)

    async def look_around(self, account: JobAccount) -> None:
        """While the open slot passes: ask anew who is there, so that what we draw from is younger than the job.

        Each bidder judges the draw by all that it sees by then. A view of the last seconds of a class that is still
        gathering is too small, and a draw from it would be shunned.
        """
        if shards_for(await self.registry.size_of(account.execution_class)) == 1:
            await self.presence.exchange.survey(account.execution_class)

    async def look_for(self, account: JobAccount, slot_hash: bytes) -> None:
        """Before the draw: find out who lives among those with the lowest tickets.

        In a larger class than one cell nobody sees all, and each bidder shuns a job that passed over two nodes of its
        own cell: those that might be drawn are asked themselves. In a class of one cell its nodes tell of all; while
        the draw would pass over registered nodes that we do not see, others are asked, as long as that finds any.
        """
        name, exchange = account.execution_class, self.presence.exchange
        nodes, config = await self.registry.nodes(fresh=True), await self.registry.config()
        could = {node for node, registered in nodes.items() if may_be_drawn(registered, account, config.minimum_stake)}
        if shards_for(await self.registry.size_of(name)) > 1:
            await exchange.probe(draw(slot_hash, account.job, could, PEERS_ASKED_MAX), name)
            return
        for _ in range(SURVEYS_MAX):
            committee = draw(slot_hash, account.job, await self.seatable(name, account.open_slot), account.k)
            lower = passed_over(slot_hash, replace(account, committee=committee), could)
            unseen = set(lower if len(committee) == account.k else could) - self.presence.alive().keys()
            if len(unseen) <= 1:
                return
            await exchange.survey(name)
            if unseen.isdisjoint(self.presence.alive()):
                return

    async def _causes(self) -> list[str]:
        slot = (await self.chain.time()).slot
        nodes, config = await self.registry.nodes(), await self.registry.config()

        def each() -> Iterator[str]:
            for node, offer in self.presence.alive().items():
                account, cause = nodes.get(node), self.requirements.misfit(offer)
                if cause:
                    yield cause
                elif not offer.verifier:
                    yield "do not verify"
                elif account is None or not eligible(
                    account,
                    execution_class=offer.execution_class,
                    open_slot=slot,
                    requester=self.wire.me,
                    minimum_stake=config.minimum_stake,
                ):
                    yield UNREGISTERED

        return list(each())

    async def seatable(self, execution_class: bytes, open_slot: int) -> dict[NodeId, Capability]:
        """Fitting nodes of a class that may sit on the committee of a job that opens in `open_slot`."""
        nodes, config = await self.registry.nodes(fresh=True), await self.registry.config()
        return {
            node: offer
            for node, offer in self.fitting().get(execution_class, {}).items()
            if self.requirements.may_sit(offer)
            and node in nodes
            and eligible(
                nodes[node],
                execution_class=execution_class,
                open_slot=open_slot,
                requester=self.wire.me,
                minimum_stake=config.minimum_stake,
            )
        }

    async def check_terms(self) -> None:
        """LocalError when the escrow would be refundable later than stakes are liable, which the program refuses."""
        config = await self.registry.config()
        longest_s = config.unbonding_s - config.grace_s - REFUND_MARGIN_S - CLOCK_SKEW_MS // 1000
        if self.order.work_seconds > longest_s:
            fix = f"at most {longest_s}" if longest_s > 0 else "use a cluster whose stakes are liable for longer"
            text = f"{self.order.work_seconds} s outlast the {config.unbonding_s} s for which stakes here are liable"
            raise LocalError(text, field="work_seconds", fix=fix)

    def budget(self, execution_class: bytes) -> MicroCyx:
        """The order's, or the highest live price of the class."""
        if self.order.budget:
            return self.order.budget
        return MicroCyx(max(self.order.prices(list(self.fitting().get(execution_class, {}).values())), default=0))

    async def check_balance(self, execution_class: bytes) -> None:
        """LocalError unless budget, rent and fees are covered."""
        balance = await self.chain.balance(self.wire.me)
        budget = self.budget(execution_class)
        if balance.micro_cyx < budget:
            raise LocalError(
                f"{format_cyx(budget)} CYX is more than the balance of {format_cyx(balance.micro_cyx)} CYX",
                field="budget",
                fix="lower the budget, or add tokens (on the local chain: cyxnode chain airdrop)",
            )
        if balance.lamports < LAMPORTS_NEEDED:
            raise LocalError(
                f"{balance.lamports} lamports do not cover rent and fees of {LAMPORTS_NEEDED}",
                field="balance",
                fix="add SOL (on the local chain: cyxnode chain airdrop)",
            )

    async def open(self, execution_class: bytes) -> None:
        """Fund the escrow and make the announce; the record holds both afterwards."""
        record, order, budget = self.record, self.order, self.budget(execution_class)
        offered = Offering(order, self.chosen)
        record.spec = encode_spec(offered.spec(self.randomness))
        digest = spec_hash(record.spec)
        nonce = self._cheap_nonce(digest)
        config, now_s = await self.registry.config(), self.wire.clock.unix_ms() // 1000
        record.named(job_id(self.wire.me, nonce, digest))
        deadline_s = now_s + order.work_seconds
        instruction = OpenJob(
            nonce=nonce,
            spec_hash=digest,
            execution_class=execution_class,
            budget=budget,
            k=order.k,
            units_total=offered.units,
            work_deadline_s=deadline_s,
            refund_at_s=deadline_s + config.grace_s + REFUND_MARGIN_S,
        )
        remember_escrow(self.journal, record.job, nonce, digest)
        record.sent("open_job", await self.chain.submit(instruction))
        record.account = await self.chain.job(record.job)
        if record.account is None:
            raise ChainUnreachable("the escrow was confirmed but cannot be read; see cyxnode chain info")
        text = f"{format_cyx(budget)} CYX in the escrow of job {base58(record.job)}"
        record.stage("funded", text, offered.funded(record.account, self.wire.genesis, self.chain.program))
        record.event(JobEvent.ESCROW_CONFIRMED, record.transactions["open_job"])
        record.announce = self._announce(offered, record.account, nonce)
        record.keep("announce", record.announce.raw)

    def _announce(self, offered: Offering, account: JobAccount, nonce: bytes) -> Signed[JobAnnounce]:
        wire, offers = self.wire, list(self.fitting().get(account.execution_class, {}).values())
        reserve = min(reserve_price(self.order.prices(offers)) or account.budget, account.budget)
        announce = offered.announce(
            account,
            nonce=nonce,
            reserve=reserve,
            program=self.chain.program,
            sent_at_ms=wire.clock.unix_ms(),
            addresses=wire.transport.addresses(),
        )
        return open_as(wire.seal(announce), wire.genesis, JobAnnounce)

    def _cheap_nonce(self, digest: bytes) -> bytes:
        """A nonce whose job costs the program the least of NONCES_DRAWN: one in four needs no second try."""
        nonces = [self.randomness.bytes(32) for _ in range(NONCES_DRAWN)]
        return min(nonces, key=lambda nonce: self.chain.derivations(job_id(self.wire.me, nonce, digest)))


def _alike(nodes: dict[NodeId, Capability], wish: ModelWish | None) -> dict[NodeId, Capability]:
    """Of nodes that serve a model of one name, the most that serve the very same on the same backend."""
    if wish is None:
        return nodes
    groups: dict[tuple[bytes, bytes], dict[NodeId, Capability]] = {}
    for node, offer in nodes.items():
        served = wish.served(offer)
        if served is not None:
            groups.setdefault((served.model, served.backend), {})[node] = offer
    return max(groups.items(), key=lambda item: (len(item[1]), item[0]))[1]
