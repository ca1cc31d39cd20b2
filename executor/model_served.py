"""One model of a shelf as the node sees it: whether it is offered, whether it is loaded, and who uses it."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog
import trio

from ..protocol.messages import ModelOffer
from .model_record import Shelved
from .model_session import Speed
from .model_sources import Found, Loaded

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Served:
    """One model of the shelf."""

    shelved: Shelved
    speed: Speed
    found: Found | None = None
    reason: str = "has not been looked at"
    """Why there is no offer; empty when there is one."""
    loaded: Loaded | None = None
    size: int = 0
    """What it takes while it is loaded."""
    users: int = 0
    used_s: float = 0.0
    failed: tuple[str, float, str] | None = None
    """Stamp of what could not be loaded, when, and why."""
    gone: bool = False
    """No longer on the shelf; if it comes back, it is another one."""
    stale: bool = False
    """To be unloaded once nobody uses it."""
    loading: trio.Lock = field(default_factory=trio.Lock)

    @property
    def warm(self) -> bool:
        """Loaded: by its server, if there is one that tells."""
        told = self.found.warm if self.found is not None else None
        return self.loaded is not None if told is None else told

    def withdraw(self, reason: str) -> None:
        """Offer it no more, until the next look finds it well."""
        if self.reason != reason:
            log.warning("model_withdrawn", model=self.shelved.record.manifest.name, cause=reason)
        self.reason = reason

    def offer(self) -> ModelOffer | None:
        """How the market sees it; None while it is not served."""
        if self.found is None or self.reason:
            return None
        record = self.shelved.record
        manifest = record.manifest
        return ModelOffer(
            name=manifest.name,
            kind=manifest.kind,
            model=self.shelved.id,
            backend=self.found.backend,
            quantisation=manifest.quantisation,
            context_length=manifest.context_length,
            prompt_rate=record.prompt_rate,
            generated_rate=record.generated_rate,
            tokens_per_s_micro=self.speed.tokens_per_s_micro,
            warm=self.warm,
        )
