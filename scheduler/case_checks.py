"""What a committee member checks of claims and of other members' verdicts before its machine hears of them (DESIGN 7).

A verdict counts if it was sealed before the traces were opened, drawn with the nonce promised at the award, and proves
its replays by the digest of the traces that only a replay, or the opening, could tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from ..protocol import codec
from ..protocol.award import CertifiedAward, JobTerms
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import RemoteError
from ..protocol.hashing import nonce_commitment, trace_digest, verdict_commitment
from ..protocol.messages import Claim, InferenceClaim, ResultClaim, VerdictBody, VerdictCommit, VerdictReveal
from ..protocol.settlement import is_sealed
from ..protocol.units import NodeId, base58
from .checking import samples_of
from .verification import Finding

log = structlog.get_logger()


def failure_of(claim: Claim, terms: JobTerms, worker: NodeId) -> str | None:
    """Why a claim is a failure by itself: the worker's own word, or that it contradicts the announce. Else None."""
    announce = terms.announce
    if claim.final_status != "completed":
        return claim.message
    if not is_sealed(terms, worker, claim):
        return "the claim does not bear its worker's seal"
    if claim.spec_hash != announce.spec_hash:
        return "the claim is for another spec"
    if len(claim.traces) != announce.segments:
        return "the claim has another number of segments"
    match claim:
        case ResultClaim() if announce.kind == "train":
            if claim.execution_class != announce.execution_class:
                return "the claim is for another execution class"
            return None if len(claim.states) == announce.segments + 1 else "the claim has another number of segments"
        case InferenceClaim() if announce.inference is not None:
            if claim.execution_class != announce.inference.backend:
                return "the claim is of another backend"
            if claim.tokens_generated > announce.inference.generated_tokens:
                return f"the claim counts {claim.tokens_generated} tokens: more than were asked for"
            return None if claim.units else "the claim counts no token"
        case _:
            return "the claim is for another kind of job"


def owns_up(claim: Claim) -> bool:
    """Whether the worker says that it failed itself: the next in the ranking may take over."""
    return claim.final_status == "failed"


def blames_requester(claim: Claim) -> bool:
    """Whether the worker says that it got no spec or no data, or an impossible one: the member will see for itself."""
    return claim.final_status in ("unserved", "invalid")


def judge_reveal(
    terms: JobTerms,
    certified: CertifiedAward,
    commits: Mapping[NodeId, bytes],
    traces: Sequence[bytes],
    signed: Signed[VerdictReveal],
) -> tuple[Finding, str]:
    """A member's finding, whether it counts, and its reason, by the opened traces. RemoteError when the verdict cannot
    be read."""
    member, reveal = terms.member(signed.sender), signed.message
    body = codec.decode(reveal.body, VerdictBody, max_bytes=2048)
    cause = _uncounted(terms, certified, commits.get(member), member, reveal)
    if not cause and body.ok:
        drawn = [traces[segment] for segment in samples_of(terms, member, reveal.nonce)]
        cause = "" if body.trace_digest == trace_digest(member, drawn) else "it does not prove its replays"
    if cause:
        log.warning("verdict not counted", job=base58(terms.job), peer=base58(member), cause=cause)
    segment = body.mismatch_segment if body.mismatch_segment < terms.announce.segments else -1
    return Finding(body.ok, segment, not cause), body.reason


def _uncounted(
    terms: JobTerms, certified: CertifiedAward, sealed: bytes | None, member: NodeId, reveal: VerdictReveal
) -> str:
    if sealed is None:
        return "it was not sealed in time"
    if certified.nonce_commitments.get(member) != nonce_commitment(terms.job, member, reveal.nonce):
        return "its nonce is not the one promised with the award"
    try:
        commitment = open_as(sealed, terms.genesis, VerdictCommit, max_bytes=1024).message.commitment
    except RemoteError as error:
        return str(error)
    if commitment != verdict_commitment(terms.job, member, reveal.nonce, reveal.body):
        return "it is not what was sealed"
    return ""
