"""Re-runs a claim's samples and compares bits (DESIGN 7).

Always: the initial state follows from the seed, the Merkle root from the claimed hashes, the final state holds the
delivered weights, and the held-out metrics come out the same. Sampled: the start state of a segment is fetched from the
worker, replayed, and its end compared. Metrics are compared exactly: within one execution class they are deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import structlog

from ..protocol.envelope import Signed
from ..protocol.errors import PeerUnreachable, RemoteError
from ..protocol.hashing import leaf_chain, merkle_root
from ..protocol.limits import BLOB_MAX_BYTES, FRAUD_DEVIATION_PPM
from ..protocol.messages import ResultClaim
from ..protocol.ports import Runner, RunnerSession, TrainTask
from ..protocol.units import JobId, base58
from .checking import CheckReport
from .data_service import DataService, patiently
from .verification_events import Conviction

log = structlog.get_logger()


@dataclass(slots=True)
class Replayer:
    """Checks one claim on one runner; each check is one single-use session."""

    runner: Runner
    data: DataService
    claim: Signed[ResultClaim]
    task: TrainTask

    async def check(self, segments: list[int]) -> CheckReport:
        """All that is always checked, and the sampled segments."""
        claim = self.claim.message
        if merkle_root(leaf_chain(list(claim.states), list(claim.traces))) != claim.merkle_root:
            return CheckReport(False, -1, "the Merkle root does not follow from the claimed leaves")
        async with self.runner.session(self.task) as session:
            if await session.initial_state() != claim.states[0]:
                return CheckReport(False, -1, "the first state does not follow from the seed")
            traces: list[bytes] = []
            for segment in segments:
                report = await self._replay(session, segment)
                if not report.ok:
                    return report
                traces += report.traces
            reason = await self._check_result(session)
        return CheckReport(not reason, -1, reason, traces)

    async def check_segment(self, segment: int) -> CheckReport:
        """One accused segment."""
        async with self.runner.session(self.task) as session:
            return await self._replay(session, segment)

    def sizes(self) -> list[int]:
        """A float32 loss for each step of each segment."""
        spec = self.task.spec
        return [4 * len(spec.segment_steps(segment)) for segment in range(spec.segments)]

    async def _replay(self, session: RunnerSession, segment: int) -> CheckReport:
        claim, worker = self.claim.message, self.claim.sender
        state = await patiently(lambda: self.data.fetch_state(worker, JobId(claim.job), segment))
        replayed = await session.replay(segment, state)
        if replayed.start_hash != claim.states[segment]:
            return CheckReport(False, segment, f"segment {segment}: the served start state is not the claimed one")
        if replayed.end_hash != claim.states[segment + 1]:
            conviction = await self._measure(session, segment, state, replayed.end_hash)
            return CheckReport(False, segment, f"segment {segment} replays to another end state", conviction=conviction)
        return CheckReport(True, traces=[replayed.losses])

    async def _measure(self, session: RunnerSession, segment: int, state: bytes, end_hash: bytes) -> Conviction:
        """How far the claimed end of a bad segment is from ours. What the worker does not show proves no fraud."""
        claim, worker = self.claim.message, self.claim.sender
        try:
            claimed = await patiently(lambda: self.data.fetch_state(worker, JobId(claim.job), segment + 1))
            compared = await session.compare(segment, state, claimed)
        except (RemoteError, PeerUnreachable) as error:
            log.info("claimed state not shown", job=base58(claim.job), segment=segment, cause=str(error))
            return Conviction(segment, end_hash, gross=False)
        shown = (compared.end_hash, compared.claimed_hash) == (end_hash, claim.states[segment + 1])
        log.info("deviation", job=base58(claim.job), segment=segment, ppm=compared.deviation_ppm, shown=shown)
        return Conviction(segment, end_hash, shown and compared.deviation_ppm > FRAUD_DEVIATION_PPM)

    async def _check_result(self, session: RunnerSession) -> str:
        claim, worker = self.claim.message, self.claim.sender
        cid = claim.model_weights_uri.removeprefix("ipfs://")
        most = min(BLOB_MAX_BYTES, claim.model_weights_bytes)
        weights = await patiently(lambda: self.data.fetch(worker, cid, max_bytes=most))
        if sha256(weights).digest() != claim.model_weights_hash:
            return "the delivered weights have another hash than claimed"
        final = await patiently(lambda: self.data.fetch_state(worker, JobId(claim.job), len(claim.states) - 1))
        checked = await session.check_result(final, weights)
        if checked.state_hash != claim.states[-1] or not checked.weights_match:
            return "the delivered weights are not those of the final state"
        if (checked.loss_micro, checked.accuracy_micro) != (claim.final_loss_micro, claim.final_accuracy_micro):
            found, claimed = checked.accuracy_micro / 1e6, claim.final_accuracy_micro / 1e6
            return f"held-out accuracy is {found:.4f}, claimed {claimed:.4f}"
        return ""
