"""`cyxnode market models`: which language models live nodes offer, and at what price. An observer, without a key."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from ..protocol.limits import MICRO
from ..protocol.messages import Capability, ModelOffer
from ..protocol.units import format_cyx
from .models import aligned
from .paying import send_policy
from .seeding import IN_HOME, SeedSources, nobody_known, seed_options, seeds
from .settings import chain_options, home_option, program_id
from .text import plain

if TYPE_CHECKING:
    from ..scheduler.presence_service import PresenceService

SHORT_CHARS = 16
QUIET_S = 1.5
"""After somebody was heard, the list is complete once nothing new came for so long."""


@click.group()
def market() -> None:
    """See what is for sale."""


@dataclass(frozen=True, slots=True)
class Row:
    """Offers of one model on backends of one class: their nodes can check each other's answers."""

    offers: tuple[ModelOffer, ...]

    @property
    def name(self) -> str:
        """What most nodes call it."""
        names = [offer.name for offer in self.offers]
        return max(sorted(set(names)), key=names.count)

    def facts(self) -> dict[str, Any]:
        """For a program."""
        first = self.offers[0]
        reading, writing, speed = (self.span(name) for name in ("prompt_rate", "generated_rate", "tokens_per_s_micro"))
        return {
            "name": self.name,
            "model": first.model.hex(),
            "backend": first.backend.hex(),
            "kind": first.kind,
            "quantisation": first.quantisation,
            "context_length": first.context_length,
            "prompt_rate_micro_cyx": reading,
            "generated_rate_micro_cyx": writing,
            "tokens_per_s_micro": speed,
            "nodes": len(self.offers),
            "warm": sum(offer.warm for offer in self.offers),
        }

    def cells(self) -> tuple[str, ...]:
        """For a person."""
        first = self.offers[0]
        return (
            plain(self.name),
            first.model.hex()[:SHORT_CHARS],
            first.kind,
            plain(first.quantisation),
            str(first.context_length),
            _range(self.span("prompt_rate"), format_cyx),
            _range(self.span("generated_rate"), format_cyx),
            str(len(self.offers)),
            str(sum(offer.warm for offer in self.offers)),
            _range(self.span("tokens_per_s_micro"), lambda value: f"{value / MICRO:.0f}" if value else "?"),
            first.backend.hex()[:SHORT_CHARS],
        )

    def span(self, field: str) -> tuple[int, int]:
        """Lowest and highest; of speeds only those that were measured, (0, 0) when none was."""
        values = [getattr(offer, field) for offer in self.offers]
        if field == "tokens_per_s_micro":
            values = [value for value in values if value] or [0]
        return min(values), max(values)


HEADINGS = ("name", "id", "kind", "quantised", "context", "read", "written", "nodes", "warm", "tokens/s", "class")


def _range(span: tuple[int, int], write: Any) -> str:
    low, high = (write(value) for value in span)
    return low if low == high else f"{low}–{high}"


def rows(capabilities: Iterable[Capability]) -> list[Row]:
    """One for each model and class, by name, then with the most nodes first. A node counts once a row."""
    kinds: dict[tuple[bytes, bytes], list[ModelOffer]] = {}
    for capability in capabilities:
        mine = {(offer.model, offer.backend): offer for offer in capability.models}
        for kind, offer in mine.items():
            kinds.setdefault(kind, []).append(offer)
    found = [Row(tuple(offers)) for offers in kinds.values()]
    return sorted(found, key=lambda row: (row.name, -len(row.offers), row.offers[0].model, row.offers[0].backend))


def words(capabilities: list[Capability]) -> list[str]:
    """The table, or why there is none."""
    if not capabilities:
        return ["no node was heard: try again, or with a longer --wait"]
    found = rows(capabilities)
    if not found:
        return [f"nobody serves a model: {len(capabilities)} nodes were heard"]
    table = aligned([HEADINGS, *(row.cells() for row in found)])
    return [*table, "", f"prices in CYX per 1,000 tokens; {len(capabilities)} nodes were heard"]


@market.command("models")
@home_option
@chain_options
@seed_options(IN_HOME)
@click.option("--wait", type=click.FloatRange(1, 60), default=8.0, show_default=True, help="Seconds, at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per model.")
def models(home: Path, rpc: str, program: str | None, bootstrap: SeedSources, wait: float, as_json: bool) -> None:
    """List the language models that live nodes offer now."""
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc
    from ..p2p.transport import Libp2pTransport
    from ..protocol.identity import KeyPair
    from ..scheduler.node import open_presence
    from .world import SystemClock, SystemRandomness

    key, peers = KeyPair.generate(), seeds(home, bootstrap)
    if not peers:
        raise nobody_known(home)

    async def main() -> list[Capability]:
        async with open_http_rpc(rpc, send_policy()) as client:
            config = await ChainClient(client, key, program_id(program)).config()
        transport = Libp2pTransport(key)
        async with (
            transport.run(),
            open_presence(key, transport, config.genesis, SystemClock(), SystemRandomness(), peers) as presence,
        ):
            await heard(presence, wait)
            return list(presence.alive().values())

    capabilities = trio.run(main)
    if as_json:
        for row in rows(capabilities):
            click.echo(json.dumps(row.facts()))
    else:
        click.echo("\n".join(words(capabilities)))


async def heard(presence: PresenceService, wait_s: float) -> None:
    """Return once somebody was heard and nobody new for QUIET_S, and after `wait_s` in any case."""
    with trio.move_on_after(wait_s):
        while True:
            known = len(presence.alive())
            with trio.move_on_after(QUIET_S) as quiet:
                await presence.changed.wait()
            if quiet.cancelled_caught and known == len(presence.alive()) > 0:
                return
