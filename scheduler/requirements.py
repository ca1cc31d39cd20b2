"""Whether a node fits a job, by its capability record: the same answer for requester, members and audit.

The requester draws its committee from fitting nodes only, and members judge the draw over the same set (DESIGN 8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..protocol.messages import Capability, JobAnnounce

HINTS = {
    "have no sandbox": "allow it with unsandboxed_ok",
    "are of another device": "ask for device any",
    "have too little memory": "ask for less memory",
    "are in another region": "ask for no region",
    "do not verify": "wait for others",
    "are not registered, or not long enough": "wait a moment",
}
"""Cause -> what a requester can do about it."""
UNREGISTERED = "are not registered, or not long enough"


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a job asks of the nodes that touch it."""

    device: Literal["any", "cpu", "cuda"]
    memory_mb: int
    region: str
    unsandboxed_ok: bool

    @classmethod
    def of(cls, announce: JobAnnounce) -> Requirements:
        """The requirements of an announced job."""
        return cls(announce.device, announce.memory_mb, announce.region, announce.unsandboxed_ok)

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
        return ""

    def may_sit(self, offer: Capability) -> bool:
        """Whether a node fits and verifies."""
        return offer.verifier and not self.misfit(offer)


def explain(causes: Iterable[str]) -> str:
    """Counted causes with hints, e.g. '5 have no sandbox: allow it with unsandboxed_ok'; empty when there is none."""
    counted = Counter(causes).most_common()
    return "; ".join(f"{count} {cause}: {HINTS[cause]}" for cause, count in counted)
