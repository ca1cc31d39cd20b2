"""Draws the state machines of the scheduler from the machines themselves, as Mermaid diagrams.

The job's machine is a table and is drawn from it. The others are functions: each is walked through every state that a
small world with three members can bring it to, and an arrow is drawn for each change of phase that was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from cyxnode.protocol.handover import Successor
from cyxnode.protocol.hashing import bid_commitment
from cyxnode.protocol.messages import Capability, Heartbeat
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.scheduler import auction, job, presence, verification, verification_handover

STATES_MAX = 200_000
"""A walk that grows beyond this is a mistake in its world."""
JOB = JobId(bytes(32))
ME, A, B = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
Arrow = tuple[str, str, str]
"""From, to, what moved it."""


def diagram(arrows: Iterable[Arrow], start: str, ends: Iterable[str]) -> str:
    """A Mermaid state diagram; arrows between the same two states share one line."""
    labels: dict[tuple[str, str], list[str]] = {}
    for source, target, label in arrows:
        known = labels.setdefault((source, target), [])
        if label not in known:
            known.append(label)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    lines += [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in labels.items()]
    lines += [f"    {end} --> [*]" for end in ends]
    return "\n".join([*lines, "```"])


def walk(
    starts: Iterable[Any], moves: Callable[[Any], Iterator[tuple[str, Any]]], phase: Callable[[Any], str]
) -> list[Arrow]:
    """Every change of phase that can be reached from `starts`, in the order in which the walk meets them."""
    queue, seen, arrows = list(starts), set(), dict[Arrow, None]()
    for state in queue:
        for label, following in moves(state):
            if phase(following) != phase(state):
                arrows[phase(state), phase(following), label] = None
            if repr(following) not in seen:
                seen.add(repr(following))
                queue.append(following)
        if len(seen) > STATES_MAX:
            raise RuntimeError(f"the walk has met more than {STATES_MAX} states")
    return list(arrows)


def job_diagram() -> str:
    """The requester's view of a job, from its table."""
    arrows = [(source.name, target.name, event.value) for (source, event), target in job.TRANSITIONS.items()]
    return diagram(arrows, job.JobPhase.DRAFT.name, [phase.name for phase in job.JobPhase if phase in job.FINAL])


# presence -------------------------------------------------------------------------------------------------------


def presence_diagram() -> str:
    """One member as another node sees it."""

    def phase(state: tuple[presence.Presence, int]) -> str:
        member = state[0].members.get(A)
        return "UNKNOWN" if member is None else member.liveness.name

    def moves(state: tuple[presence.Presence, int]) -> Iterator[tuple[str, Any]]:
        members, now_ms = state
        if now_ms > 2 * presence.DEAD_AFTER_MS:
            return
        heartbeat = Heartbeat(
            sequence=now_ms, sent_at_ms=0, status="idle", queue_length=0, running=0, load_ppm=0,
            shards=1,
            membership_digest=bytes(32),
        )  # fmt: skip
        capability = Capability(
            sequence=now_ms, sent_at_ms=0, execution_class=bytes(32), device="cpu", memory_mb=0, sandbox="none",
            rate_micro_per_s=0, region="", datasets=(), version="", verifier=True, addresses=(), hardware={},
        )  # fmt: skip
        yield "HeartbeatHeard", (presence.step(members, presence.HeartbeatHeard(A, heartbeat, now_ms))[0], now_ms)
        heard = presence.CapabilityHeard(A, capability, b"", now_ms)
        yield "CapabilityHeard", (presence.step(members, heard)[0], now_ms)
        later_ms = now_ms + 10_000
        yield "TimePassed", (presence.step(members, presence.TimePassed(later_ms))[0], later_ms)

    return diagram(walk([(presence.Presence(), 0)], moves, phase), "UNKNOWN", [])


# auction --------------------------------------------------------------------------------------------------------


def auction_diagram() -> str:
    """An auction, walked as bidder without a seat, as member, and as leader."""
    sealed = {node: auction.SealedBid(b"bid", bytes([index]) * 32) for index, node in enumerate((ME, A, B))}
    terms = auction.AuctionTerms(JOB, ME, 2, 1, 100, 250, 250, 500)
    committees = ((ME, A, B), (A, ME, B), (A, B, NodeId(bytes([9]) * 32)))
    starts = [
        ((auction.open_auction(terms, 0, frozenset({A, B}), sealed[ME])[0], 0), committee) for committee in committees
    ]

    def stimuli(state: auction.Auction, committee: tuple[NodeId, ...], now_ms: int) -> Iterator[auction.Stimulus]:
        for node in (A, B):
            salt, bid = sealed[node].salt, sealed[node].bid
            yield auction.CommitSeen(node, bid_commitment(JOB, node, salt, bid), now_ms)
            yield auction.DeclineSeen(node, now_ms)
            yield auction.RevealSeen(node, bid, salt, 1, b"raw", now_ms)
        yield auction.CommitteeSeated(committee, now_ms)
        for node in (ME, A):
            yield auction.TallyReceived(node, b"raw", now_ms)
            yield auction.VoteReceived(node, state.round, b"raw", now_ms)
        yield auction.Certified()

    def moves(item: Any) -> Iterator[tuple[str, Any]]:
        (state, now_ms), committee = item
        for stimulus in stimuli(state, committee, now_ms):
            yield type(stimulus).__name__, ((auction.step(state, stimulus)[0], now_ms), committee)
        wake_ms = auction.next_wake_ms(state)
        if wake_ms is not None:
            following = auction.step(state, auction.TimePassed(wake_ms))[0]
            yield "TimePassed", ((following, wake_ms), committee)

    arrows = walk(starts, moves, lambda item: str(item[0][0].phase.name))
    return diagram(arrows, "COMMITTING", ["AWARDED", "UNSOLD"])


# verification ---------------------------------------------------------------------------------------------------


def verification_diagram() -> str:
    """A case, walked as a member that does not lead, with a second member that may accuse; one round is as good as
    many, of settlement and of hand-over, and a successor, like a sealed verdict, goes the way of a case
    that nobody follows."""
    ladder = tuple(Successor(rank, NodeId(bytes([9 + rank]) * 32), 1, 0) for rank in range(2))
    terms = verification.CaseTerms(JOB, ME, (A, ME, B), 2, ladder[0].node, 1, 1, 4_000, ladder=ladder)
    unsold = verification.open_unsold(terms, "no bid was revealed", 0)[0]
    alone = replace(terms, ladder=())
    starts = [(verification.open_case(each, 0), 0) for each in (alone, terms)] + [(unsold, 0)]
    findings = {
        "agrees": verification.Finding(True, -1, True),
        "accuses": verification.Finding(False, 0, True),
    }

    def stimuli(now_ms: int) -> Iterator[tuple[str, verification.Stimulus]]:
        yield "WorkerStarted", verification.WorkerStarted(now_ms)
        yield "WorkerLost", verification.WorkerLost("lost", now_ms)
        yield "ClaimReceived (completed)", verification.ClaimReceived(bytes(32), None, now_ms)
        yield "ClaimReceived (failed)", verification.ClaimReceived(bytes(32), "failed", now_ms, owns_up=True)
        yield "ClaimReceived (contradicts the announce)", verification.ClaimReceived(bytes(32), "no seal", now_ms)
        yield "ClaimReceived (unserved or invalid)", verification.ClaimReceived(bytes(32), "unserved", now_ms, True)
        for found in (True, False):
            yield "TaskSought", verification.TaskSought(found, now_ms)
        yield "SamplesReplayed", verification.SamplesReplayed(True, -1, "", now_ms)
        yield "SamplesReplayed", verification.SamplesReplayed(False, -1, "", now_ms)
        for member in (ME, A, B):
            yield "CommitReceived", verification.CommitReceived(member, b"raw", now_ms)
        yield "TracesOpened (fit)", verification.TracesOpened("", now_ms)
        yield "TracesOpened (do not fit)", verification.TracesOpened("refuted", now_ms)
        for member in (ME, A):
            for name, finding in findings.items():
                if member == A or finding.ok:
                    label = f"FindingRevealed ({name})"
                    yield label, verification.FindingRevealed(member, finding, "", now_ms)
        for mismatch in (True, False):
            yield "DisputeReplayed", verification.DisputeReplayed(0, mismatch, now_ms)
        yield "HandedOver", verification.HandedOver(1, now_ms)
        yield "OutcomeSeen", verification.OutcomeSeen()

    def moves(item: Any) -> Iterator[tuple[str, Any]]:
        state, now_ms = item
        if state.rank or (state.terms.ladder and state.own):
            return
        for label, stimulus in stimuli(now_ms):
            yield label, (verification.step(state, stimulus)[0], now_ms)
        wake_ms = verification.next_wake_ms(state)
        if wake_ms is not None:
            yield "TimePassed", (verification.step(state, verification.TimePassed(wake_ms))[0], wake_ms)

    rounds = patch.object(verification_handover, "HANDOVER_ROUNDS_MAX", 1)
    with patch.object(verification, "SETTLE_ROUNDS_MAX", 1), rounds:
        arrows = walk(starts, moves, lambda item: str(item[0].phase.name))
    return diagram(arrows, "AWARDED", ["CLOSED", "GIVEN_UP"])


DIAGRAMS: dict[str, Callable[[], str]] = {
    "job": job_diagram,
    "presence": presence_diagram,
    "auction": auction_diagram,
    "verification": verification_diagram,
}

if __name__ == "__main__":
    import sys

    sys.stdout.write("\n\n".join(draw() for draw in DIAGRAMS.values()) + "\n")
