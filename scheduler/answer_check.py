"""Checks a claimed inference: each answer by the model itself, and the metered tokens by the answers (DESIGN 7).

The answers come from the worker. What a prefill or a repetition computes on the way, a logit for each token, is what
the worker sealed in its claim: the member's own bits prove its check, and after the opening convict who made them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from ..protocol import codec
from ..protocol.envelope import Signed
from ..protocol.errors import RemoteError
from ..protocol.inference import Answers, InferSpec, generated_of
from ..protocol.limits import ANSWERS_MAX_BYTES
from ..protocol.messages import InferenceClaim
from ..protocol.ports import InferenceSession, Models
from .checking import CheckReport
from .data_service import DataService, patiently


@dataclass(slots=True)
class AnswerChecker:
    """Checks one claim with one model of our own."""

    models: Models
    data: DataService
    claim: Signed[InferenceClaim]
    spec: InferSpec
    _answers: Answers | None = None

    async def check(self, segments: list[int]) -> CheckReport:
        """The counts of the claim, and the answers to the prompts named by `segments`."""
        answers = await self._fetched()
        claim = self.claim.message
        if len(answers.answers) != len(self.spec.task.prompts):
            return CheckReport(False, reason="answers: not one for each prompt")
        counts = [(one.prompt_tokens, one.generated_tokens) for one in answers.answers]
        if (sum(p for p, _ in counts), sum(g for _, g in counts)) != (claim.prompt_tokens, claim.tokens_generated):
            return CheckReport(False, reason="tokens_generated: the claim counts other tokens than its answers")
        traces: list[bytes] = []
        async with self.models.session(self.spec) as session:
            for segment in segments:
                report = await self._check_answer(session, answers, segment)
                if not report.ok:
                    return report
                traces += report.traces
        return CheckReport(True, traces=traces)

    async def check_segment(self, segment: int) -> CheckReport:
        """The answer to one prompt."""
        answers = await self._fetched()
        async with self.models.session(self.spec) as session:
            return await self._check_answer(session, answers, segment)

    def sizes(self) -> list[int]:
        """A float32 logit for each token of each answer; nothing where the backend knows no tokens."""
        return [len(answer.tokens) for answer in self._answers.answers] if self._answers is not None else []

    async def _check_answer(self, session: InferenceSession, answers: Answers, index: int) -> CheckReport:
        checked = await session.check(generated_of(answers.answers[index], index))
        if not checked.ok:
            return CheckReport(False, index, f"prompt {index}: {checked.reason}")
        return CheckReport(True, traces=[checked.trace])

    async def _fetched(self) -> Answers:
        if self._answers is None:
            claim, worker = self.claim.message, self.claim.sender
            cid = claim.result_uri.removeprefix("ipfs://")
            encoded = await patiently(lambda: self.data.fetch(worker, cid, max_bytes=claim.result_bytes))
            if sha256(encoded).digest() != claim.result_hash:
                raise RemoteError("the delivered answers have another hash than claimed", peer=worker)
            self._answers = codec.decode(encoded, Answers, max_bytes=ANSWERS_MAX_BYTES)
        return self._answers
