"""Whether a node fits a job, by its capability record: the same answer for requester, members and audit.

The requester draws its committee from fitting nodes only, and members judge the draw over the same set (DESIGN 8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..protocol.messages import Capability, JobAnnounce, ModelOffer

MODEL_PREFIX_MIN = 8
HINTS = {
    "have no sandbox": "allow it with unsandboxed_ok",
    "are of another device": "ask for device any",
    "have too little memory": "ask for less memory",
    "are in another region": "ask for no region",
    "do not verify": "wait for others",
    "do not serve the model": "see what is served: cyxnode market models",
    "are not registered, or not long enough": "wait a moment",
}
"""Cause -> what a requester can do about it."""
UNREGISTERED = "are not registered, or not long enough"


@dataclass(frozen=True, slots=True)
class ModelWish:
    """A model that nodes have to serve: by what its requester calls it, or by its ids once those are chosen."""

    name: str = ""
    """As on the market, or the first MODEL_PREFIX_MIN hexadecimal digits of its id, or more."""
    model: bytes = b""
    backend: bytes = b""

    def served(self, offer: Capability) -> ModelOffer | None:
        """The first of a node's models that is the one."""
        return next((one for one in offer.models if self._is(one)), None)

    def _is(self, one: ModelOffer) -> bool:
        if self.model:
            return (one.model, one.backend) == (self.model, self.backend)
        by_id = len(self.name) >= MODEL_PREFIX_MIN and one.model.hex().startswith(self.name.lower())
        return one.name == self.name or by_id


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a job asks of the nodes that touch it."""

    device: Literal["any", "cpu", "cuda"]
    memory_mb: int
    region: str
    unsandboxed_ok: bool
    model: ModelWish | None = None

    @classmethod
    def of(cls, announce: JobAnnounce) -> Requirements:
        """The requirements of an announced job."""
        terms = announce.inference
        wish = ModelWish(model=terms.model, backend=terms.backend) if terms is not None else None
        return cls(announce.device, announce.memory_mb, announce.region, announce.unsandboxed_ok, wish)

    def misfit(self, offer: Capability) -> str:
        """Why a node does not fit, one of HINTS; empty when it does."""
        if self.device not in ("any", offer.device):
            return "are of another device"
        if offer.memory_mb < self.memory_mb:
            return "have too little memory"
        if self.region not in ("", offer.region):
            return "are in another region"
        if offer.sandbox == "none" and not self.unsandboxed_ok:
            return "have no sandbox"
        if self.model is not None and self.model.served(offer) is None:
            return "do not serve the model"
        return ""

    def served_by(self, offer: Capability) -> ModelOffer | None:
        """The model that is meant, as a node serves it."""
        return self.model.served(offer) if self.model is not None else None

    def may_sit(self, offer: Capability) -> bool:
        """Whether a node fits and verifies."""
        return offer.verifier and not self.misfit(offer)


def explain(causes: Iterable[str]) -> str:
    """Counted causes with hints, e.g. '5 have no sandbox: allow it with unsandboxed_ok'; empty when there is none."""
    counted = Counter(causes).most_common()
    return "; ".join(f"{count} {cause}: {HINTS[cause]}" for cause, count in counted)
