"""What a committee member checks of claims and of other members' verdicts before its machine hears of them (DESIGN 7).

A verdict counts if it was sealed before the traces were opened, drawn with the nonce promised at the award, and proves
its replays by the digest of the traces that only a replay, or the opening, could tell.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from ..protocol import codec
from ..protocol.award import CertifiedAward, JobTerms
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import RemoteError
from ..protocol.hashing import nonce_commitment, sample_segments, trace_digest, verdict_commitment
from ..protocol.messages import Opening, ResultClaim, VerdictBody, VerdictCommit, VerdictReveal
from ..protocol.settlement import is_sealed
from ..protocol.spec import TrainSpec
from ..protocol.units import NodeId, base58
from .traces import traces_of
from .verification import Finding

log = structlog.get_logger()


def failure_of(claim: ResultClaim, terms: JobTerms, worker: NodeId) -> str | None:
    """Why a claim is a failure by itself: the worker's own word, or that it contradicts the announce. Else None."""
    announce = terms.announce
    if claim.final_status != "completed":
        return claim.message
    if not is_sealed(terms, worker, claim):
        return "the claim does not bear its worker's seal"
    if (claim.spec_hash, claim.execution_class) != (announce.spec_hash, announce.execution_class):
        return "the claim is for another spec or execution class"
    if (len(claim.states), len(claim.traces)) != (announce.segments + 1, announce.segments):
        return "the claim has another number of segments"
    return None


def is_unserved(claim: ResultClaim) -> bool:
    """Whether the worker says that it got no spec or no data: the member will see for itself."""
    return claim.final_status == "unserved"


def samples_of(terms: JobTerms, member: NodeId, nonce: bytes) -> list[int]:
    """The segments that a member must replay."""
    return sample_segments(terms.job, member, nonce, terms.announce.segments, terms.announce.samples)


def judge_reveal(
    terms: JobTerms,
    certified: CertifiedAward,
    commits: Mapping[NodeId, bytes],
    opening: Opening,
    spec: TrainSpec,
    signed: Signed[VerdictReveal],
) -> tuple[Finding, str]:
    """A member's finding, whether it counts, and its reason. RemoteError when the verdict cannot be read."""
    member, reveal = terms.member(signed.sender), signed.message
    body = codec.decode(reveal.body, VerdictBody, max_bytes=2048)
    cause = _uncounted(terms, certified, commits.get(member), member, reveal)
    if not cause and body.ok:
        losses = traces_of(opening, spec)
        drawn = [losses[segment] for segment in samples_of(terms, member, reveal.nonce)]
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
