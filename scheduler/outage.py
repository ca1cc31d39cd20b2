"""One line when the chain stops answering and one when it answers again, however often it is asked in between."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from ..protocol.errors import CyxError
from ..protocol.units import JobId, base58

log = structlog.get_logger()


@dataclass(slots=True)
class Outage:
    """The state of one poller's view of the chain."""

    job: JobId
    ongoing: bool = False

    def failed(self, error: CyxError) -> None:
        """A reading failed; it will be tried again."""
        if not self.ongoing:
            log.warning("chain not read", job=base58(self.job), cause=str(error))
        self.ongoing = True

    def worked(self) -> None:
        """A reading succeeded."""
        if self.ongoing:
            log.info("chain read again", job=base58(self.job))
        self.ongoing = False
