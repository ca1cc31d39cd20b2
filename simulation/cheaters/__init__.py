"""Cheaters: one class per kind of lie. `CHEATS` is the list from which a plan chooses (`--cheat NAME`).

A world's cheaters are drawn before it begins, from the seed alone; each is a peer like any other until its ports or its
runner are dressed.
"""

from __future__ import annotations

from random import Random

from ...protocol.errors import LocalError
from ..plan import Plan
from ..world import Peer, World, resettled
from .answers import InventedAnswer, MadeUpLogits, OverstatedTokens, SmallerModel, TruncatedAnswer
from .bidders import LateBid, Sybil, WithheldReveal
from .cheat import Attempt, Cheat, Ending, Fate, Score, tally
from .network import Eclipse, Replayer, Spammer
from .requesters import GriefingRequester
from .verifiers import CopiedVerdict, Equivocator, IdleVerdict
from .workers import AbsentWinner, FakeHardware, ForgedLeaf, LazyWorker, VanishingWorker, WrongWeights

__all__ = ["CHEATS", "Attempt", "Cheat", "Ending", "Fate", "Score", "kinds_of", "recruit", "tally"]

CHEATS: dict[str, type[Cheat]] = {
    kind.name: kind
    for kind in (
        LazyWorker, ForgedLeaf, WrongWeights, CopiedVerdict, IdleVerdict, Equivocator, LateBid, WithheldReveal,
        AbsentWinner, VanishingWorker, Sybil, Spammer, Replayer, Eclipse, GriefingRequester, FakeHardware,
        SmallerModel, TruncatedAnswer, OverstatedTokens, InventedAnswer, MadeUpLogits,
    )
}  # fmt: skip
CHEAP_RATE_MICRO_PER_S = 8_000
"""Below the lowest rate of honest peers: a cheater that saves work can afford it, and is chosen."""


def kinds_of(plan: Plan) -> dict[int, type[Cheat]]:
    """Which peers cheat, and how: a pure function of the plan. LocalError when it names an unknown kind."""
    names = plan.cheats or tuple(name for name, kind in CHEATS.items() if plan.prompts or not kind.infers)
    unknown = sorted(set(names) - CHEATS.keys())
    if unknown:
        raise LocalError(f"no cheat is called {unknown[0]!r}", field="cheat", fix=f"one of {', '.join(CHEATS)}")
    rng = Random(f"{plan.seed}/cheaters")
    count = min(plan.peers, round(plan.peers * plan.cheaters))
    chosen, first = sorted(rng.sample(range(plan.peers), count)), rng.randrange(len(names))
    return {peer: CHEATS[names[(first + number) % len(names)]] for number, peer in enumerate(chosen)}


def recruit(world: World, peers: list[Peer]) -> list[Cheat]:
    """Turn the plan's share of `peers` into cheaters, before their first life."""
    gangs: dict[str, list[Cheat]] = {}
    cheats: list[Cheat] = []
    for number, kind in kinds_of(world.plan).items():
        peer, gang = peers[number], gangs.setdefault(kind.name, [])
        cheat = kind(world, peer, gang)
        gang.append(cheat)
        cheats.append(cheat)
        peer.cheat, peer.dress, peer.dress_models = kind.name, cheat.dress, cheat.dress_models
        if kind.cheap:
            resettled(peer, rate_micro_per_s=CHEAP_RATE_MICRO_PER_S)
    return cheats
