"""Of a job whose `submit` ended before it did: what can be said from the chronicle and from the chain (DESIGN 11)."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.chain import JobAccount, JobState, Settle, Verdict
from .chronicle import Chronicle
from .job import ENDS, JobPhase


@dataclass(frozen=True, slots=True)
class OnChain:
    """What the chain says of a job: its escrow while that is there, and its last settlement. `fault` says why the
    chain could not be asked."""

    account: JobAccount | None = None
    settlement: Settle | None = None
    fault: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """Of the last settlement."""
        if self.settlement is not None:
            return self.settlement.verdict
        settled = self.account is not None and self.account.state is JobState.SETTLED
        return self.account.verdict if settled and self.account is not None else None

    @property
    def phase(self) -> JobPhase | None:
        """How the job ended there; None when it did not."""
        verdict = self.verdict
        return ENDS.get(verdict) if verdict is not None else None


def explain_left(
    told: Chronicle, now_ms: int, chain: OnChain | None
) -> tuple[str, str, int | None, str, tuple[str, ...]]:
    """Why, what is waited for, until when at most, what happens then, and what can be done."""
    gone = "its `submit` ended before the job did"
    if told.job is None:
        return (
            f"{gone}, while nothing was funded: there is no job, and nothing is owed",
            "",
            None,
            "",
            ("submit it again",),
        )
    result, reclaim = f"cyxnode job result {told.name}", "cyxnode job reclaim"
    if chain is None or chain.fault:
        why = f"{gone}; the job goes on without it, and the chain has the last word"
        why += f", but could not be asked: {chain.fault}" if chain is not None else ""
        fetch = f"once the chain answers: {result}, which fetches what was settled"
        return why, "the committee's settlement", _refund_ms(told), _then(reclaim), (fetch,)
    if chain.phase is JobPhase.SETTLED:
        why = f"{gone}; a quorum of the committee has accepted the result since, and the worker was paid"
        return why, "", None, "", (f"fetch the result: {result}", *_closing(chain, reclaim))
    if chain.phase is not None:
        why = f"{gone}; the committee has settled it since: {chain.phase.value}"
        return why, "", None, "", _closing(chain, reclaim) or ("submit it again",)
    if chain.account is None:
        if told.funded is None:
            why = f"{gone}; the chain has no escrow of this id: it was never opened, or is closed again"
            return why, "", None, "", ("see what was paid: cyxnode wallet history",)
        why = f"{gone}; its escrow is closed, and the server remembers no settlement: it was refunded, or is long past"
        return why, "", None, "", ("see what came back: cyxnode wallet history",)
    why, refund_ms = f"{gone}; its escrow is open, and the committee has it in hand", chain.account.refund_at_s * 1000
    if now_ms >= refund_ms:
        return f"{gone}; nobody settled it in time", "somebody to take the refund", None, "", (f"take it: {reclaim}",)
    return why, "the committee's settlement", refund_ms, _then(reclaim), (f"afterwards: {result}",)


def _closing(chain: OnChain, reclaim: str) -> tuple[str, ...]:
    return (f"get back what was not paid: {reclaim}",) if chain.account is not None else ()


def _then(reclaim: str) -> str:
    return f"the budget can be had back: {reclaim}"


def _refund_ms(told: Chronicle) -> int | None:
    return told.funded.refund_at_s * 1000 if told.funded is not None else None
