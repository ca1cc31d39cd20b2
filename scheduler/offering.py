"""What an order is to others: its announce for bidders, its spec for worker and committee (DESIGN 4)."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.chain import JobAccount
from ..protocol.inference import JobSpec
from ..protocol.messages import InferTerms, JobAnnounce, ModelOffer, token_units
from ..protocol.ports import Randomness
from .chronicle_facts import Funded
from .orders import InferOrder, Order, TrainOrder


@dataclass(frozen=True, slots=True)
class Offering:
    """An order; of an inference with the model that is meant."""

    order: Order
    chosen: ModelOffer | None

    def spec(self, randomness: Randomness) -> JobSpec:
        """What only worker and committee learn."""
        order = self.order
        if isinstance(order, InferOrder) and self.chosen is not None:
            return order.spec(self.chosen, randomness.bytes(32))
        assert isinstance(order, TrainOrder)
        return order.spec

    @property
    def terms(self) -> InferTerms | None:
        """Of an inference."""
        order = self.order
        return order.terms(self.chosen) if isinstance(order, InferOrder) and self.chosen is not None else None

    @property
    def units(self) -> int:
        """What the escrow pays for when all is done."""
        terms = self.terms
        return token_units(terms.prompt_tokens, terms.generated_tokens) if terms is not None else self.order.segments

    def announce(
        self,
        account: JobAccount,
        *,
        nonce: bytes,
        reserve: int,
        program: bytes,
        sent_at_ms: int,
        addresses: tuple[str, ...],
    ) -> JobAnnounce:
        """Of the job with this escrow; `reserve` in micro-CYX, `addresses` are where its requester is."""
        order = self.order
        training = order if isinstance(order, TrainOrder) else None
        return JobAnnounce(
            job=account.job,
            kind=order.kind,
            spec_hash=account.spec_hash,
            nonce=nonce,
            sent_at_ms=sent_at_ms,
            program=program,
            execution_class=account.execution_class,
            device=order.device,
            memory_mb=order.memory_mb,
            region=order.region,
            unsandboxed_ok=order.unsandboxed_ok,
            datasets=(training.spec.train_cid, training.spec.validation_cid) if training is not None else (),
            work_mflop=training.work_mflop if training is not None else 0,
            budget=account.budget,
            reserve=reserve,
            work_deadline_s=account.work_deadline_s,
            commit_window_ms=order.commit_window_ms,
            reveal_window_ms=order.reveal_window_ms,
            round_ms=order.round_ms,
            weights=order.weights,
            k=order.k,
            segments=order.segments,
            samples=order.samples,
            addresses=addresses,
            inference=self.terms,
        )

    def funded(self, account: JobAccount, genesis: bytes, program: bytes) -> Funded:
        """The confirmed escrow, for the chronicle."""
        order = self.order
        return Funded(
            genesis=genesis,
            program=program,
            execution_class=account.execution_class,
            open_slot=account.open_slot,
            budget=account.budget,
            work_deadline_s=account.work_deadline_s,
            refund_at_s=account.refund_at_s,
            units_total=account.units_total,
            fee_bps=account.fee_bps,
            verifier_share_bps=account.verifier_share_bps,
            windows_ms=order.commit_window_ms + order.reveal_window_ms,
            round_ms=order.round_ms,
        )
