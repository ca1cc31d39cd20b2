"""One valid message of every kind, always the same: for frozen bytes, and as a starting point of hostile ones."""

from __future__ import annotations

import msgspec

from cyxnode.protocol import codec
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import (
    AwardCertificate,
    AwardVote,
    Bid,
    BidCommit,
    BidderRecord,
    BidReveal,
    BlobHeader,
    BlobRequest,
    Capability,
    Decline,
    DeclineReason,
    HandoverCertificate,
    HandoverProposal,
    HandoverVote,
    Heartbeat,
    InferenceClaim,
    InferTerms,
    JobAnnounce,
    JobStatus,
    Message,
    ModelOffer,
    Opening,
    OpenRequest,
    Outcome,
    PeersAnswer,
    PeersRequest,
    Progress,
    Proposal,
    ResultAnswer,
    ResultClaim,
    ResultRequest,
    ScoreWeights,
    SettleProposal,
    SettleVote,
    SpecAnswer,
    SpecRequest,
    StartNotice,
    Tally,
    Tokens,
    TokensRequest,
    VerdictBody,
    VerdictCommit,
    VerdictReveal,
)

KEY = KeyPair(bytes(range(32)))
GENESIS = bytes(range(160, 192))
NOW_MS = 1_767_225_600_000
CID = "bafkreie" + "a" * 51
ADDRESS = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWL3XJ9EMCyZvmmGXL2LMiVBtrVa2BuESsJiXkSj7333Jw"


def run(first: int, count: int = 32) -> bytes:
    """`count` rising bytes from `first`, modulo 256."""
    return bytes((first + i) % 256 for i in range(count))


JOB, NODE = run(1), run(33)

ANNOUNCE = JobAnnounce(
    job=JOB, kind="train", spec_hash=run(2), nonce=run(3), sent_at_ms=NOW_MS, program=run(4), execution_class=run(5),
    device="any", memory_mb=512, region="", unsandboxed_ok=False, datasets=(CID,), work_mflop=123_456,
    budget=5_000_000, reserve=4_000_000, work_deadline_s=1_767_229_200, commit_window_ms=250, reveal_window_ms=250,
    round_ms=500, weights=ScoreWeights(), k=3, segments=128, samples=2, addresses=(ADDRESS,),
)  # fmt: skip
INFER_TERMS = InferTerms(model=run(28), backend=run(29), prompt_tokens=300, generated_tokens=256)
INFERENCE = msgspec.structs.replace(
    ANNOUNCE, kind="infer", datasets=(), work_mflop=0, segments=2, inference=INFER_TERMS
)
OFFERED = ModelOffer(
    name="tiny-lm", kind="torch", model=run(28), backend=run(29), quantisation="float32", context_length=256,
    prompt_rate=500, generated_rate=2_000, tokens_per_s_micro=260_000_000, warm=True,
)  # fmt: skip
BID = Bid(
    price=1_250_000, estimated_ms=9_000, device="cpu", memory_mb=2_048, queue_length=1, region="eu", datasets=(CID,)
)
PROPOSAL = Proposal(
    job=JOB,
    round=1,
    tallies=(b"tally",),
    reveals=(b"reveal",),
    records=(BidderRecord(node=NODE, stake=10**9, reputation_ppm=250_000),),
)
VERDICT = VerdictBody(ok=False, mismatch_segment=7, trace_digest=run(9), reason="segment 7: other bits")

MESSAGES: tuple[Message, ...] = (
    Heartbeat(
        sequence=70_000, sent_at_ms=NOW_MS, status="busy", queue_length=2, running=1, load_ppm=750_000,
        shards=2, membership_digest=run(6),
    ),
    Capability(
        sequence=3, sent_at_ms=NOW_MS, execution_class=run(5), device="cuda", memory_mb=32_768, sandbox="bubblewrap",
        rate_micro_per_s=100, region="eu", datasets=(CID,), version="0.1.0", verifier=True, addresses=(ADDRESS,),
        hardware={"cpu": "8 cores", "gpu": "none", "a": "first by name"},
    ),
    PeersRequest(capability=b""),
    PeersAnswer(records=(b"one", b"two"), silent_ms=(0, 12_000)),
    ANNOUNCE,
    Decline(job=JOB, reason=DeclineReason.PRICE, hint="at least 2 CYX"),
    BidCommit(job=JOB, commitment=run(7)),
    BidReveal(job=JOB, bid=codec.encode(BID), salt=run(8)),
    Tally(job=JOB, bids=(run(10), run(11)), nonce_commitment=run(14)),
    PROPOSAL,
    AwardVote(job=JOB, round=1, digest=run(12), signature=run(13, 64), nonce_commitment=run(14)),
    AwardCertificate(job=JOB, proposal=codec.encode(PROPOSAL), winner=NODE, price=1_500_000, votes=(b"vote",)),
    HandoverCertificate(
        job=JOB, award=run(12), rank=1, from_leaf=0, successor=NODE, price=1_750_000, round=1,
        signatures=((NODE, run(30, 64)),), reason="the worker's heartbeats stopped",
    ),
    Outcome(
        job=JOB, verdict=1, worker=NODE, price=1_500_000, units=128, result_hash=run(15), fee_mask=0b101, round=0,
        signatures=((NODE, run(16, 64)),), transaction="5" * 88, reason="",
    ),
    JobStatus(
        job=JOB, sequence=4, sent_at_ms=NOW_MS, state="running", progress_ppm=500_000, epoch=3, loss_micro=-1,
        accuracy_micro=970_000,
    ),
    SpecRequest(job=JOB, certificate=b"certificate", handover=b"handover"),
    SpecAnswer(spec=b"spec"),
    ResultRequest(job=JOB),
    ResultAnswer(job=JOB, certificate=b"certificate", claim=b"claim", handover=b"handover"),
    StartNotice(job=JOB, started_at_ms=NOW_MS),
    Progress(
        job=JOB, sequence=5, progress_ppm=10_000, step=12, current_epoch=0, batch_loss_micro=2_302_585,
        batch_accuracy_micro=125_000, batch_time_us=1_500, learning_rate_micro=1_000, validation_loss_micro=-1,
        validation_accuracy_micro=-1,
    ),
    TokensRequest(job=JOB, start=3),
    Tokens(job=JOB, sequence=3, prompt_index=1, generated=17, text=" sea", last=True),
    InferenceClaim(
        job=JOB, spec_hash=run(2), execution_class=run(29), final_status="completed", message="",
        traces=(run(21), run(22)), result_uri=f"ipfs://{CID}", result_hash=run(17), result_bytes=900,
        prompt_tokens=61, tokens_generated=200, compute_time_ms=800, gpu_utilization_ppm=None, seal=run(26, 64),
    ),
    ResultClaim(
        job=JOB, spec_hash=run(2), execution_class=run(5), final_status="completed", message="",
        model_weights_uri=f"ipfs://{CID}", model_weights_hash=run(17), model_weights_bytes=40_000,
        merkle_root=run(18), states=(run(19), run(20)), traces=(run(21),), final_loss_micro=50_000,
        final_accuracy_micro=980_000, best_epoch=9, total_compute_time_ms=8_500, seal=run(26, 64),
    ),
    VerdictCommit(job=JOB, commitment=run(22)),
    OpenRequest(job=JOB, commits=(b"commit",)),
    Opening(job=JOB, secret=run(23), bits=bytes(8)),
    VerdictReveal(job=JOB, nonce=run(24), body=codec.encode(VERDICT)),
    HandoverProposal(job=JOB, rank=1, round=1, digest=run(31)),
    HandoverVote(job=JOB, rank=1, round=1, signature=run(30, 64)),
    SettleProposal(
        job=JOB, round=2, verdict=6, worker=NODE, price=1_500_000, units=0, result_hash=run(15), fee_mask=0, segment=7,
        replayed=run(27), reason="segment 7: other bits",
    ),
    SettleVote(job=JOB, round=2, signature=run(25, 64)),
    BlobRequest(cid="", job=JOB, state=17),
)  # fmt: skip
"""One of each kind that travels in an envelope."""

INNER: tuple[Message, ...] = (
    INFER_TERMS,
    OFFERED,
    BID,
    VERDICT,
    BlobHeader(size=-1),
    ScoreWeights(),
    PROPOSAL.records[0],
)
"""What travels inside another message, or alone on a stream."""
