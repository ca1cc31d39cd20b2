"""One job as a node lives it, and the bounded table of all of them."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from ..protocol.envelope import Signed
from ..protocol.limits import EARLY_MESSAGES_MAX, JOBS_OPEN_MAX, JOBS_REFUSED_MAX
from ..protocol.messages import Claim, JobAnnounce, Outcome
from ..protocol.units import JobId, NodeId
from .auction_bidding import Bidding
from .auction_service import AuctionRun
from .auction_voting import Awarded
from .committee_service import CaseRun
from .worker_service import WorkRun

ROOM_LINGER_S = 3600
"""How long after its work deadline a job that never ended is remembered."""


@dataclass(slots=True)
class Room:
    """One job: its auction, then our part in it, then its outcome."""

    announce: Signed[JobAnnounce]
    auction: AuctionRun
    work: WorkRun | None = None
    case: CaseRun | None = None
    awarded: Awarded | None = None
    outcome: Signed[Outcome] | None = None
    compared: set[bytes] = field(default_factory=set)
    """Digests of the certificates and outcomes whose signatures were compared."""

    @property
    def claim(self) -> Signed[Claim] | None:
        """The worker's, where we worked or sat."""
        return next((part.claim for part in (self.work, self.case) if part is not None and part.claim), None)


@dataclass(slots=True)
class Rooms:
    """At most JOBS_OPEN_MAX rooms, and the ids of announces that were not followed, so that they stay cheap.

    What is said of a job before its announce is here waits for it: gossip keeps no order. The oldest of it goes first.
    """

    by_job: dict[JobId, Room] = field(default_factory=dict)
    _refused: OrderedDict[JobId, None] = field(default_factory=OrderedDict)
    _ahead: deque[Bidding] = field(default_factory=lambda: deque(maxlen=EARLY_MESSAGES_MAX))

    def get(self, job: bytes) -> Room | None:
        return self.by_job.get(JobId(job))

    def knows(self, job: JobId) -> bool:
        """Whether an announce of this job was seen."""
        return job in self.by_job or job in self._refused

    def bidding(self, signed: Bidding) -> None:
        """Give a market message to its auction, now or as soon as there is one."""
        room = self.get(signed.message.job)
        if room is not None:
            if signed.sender != room.announce.sender:
                room.auction.gossip(signed)
        elif signed.message.job not in self._refused:
            self._ahead.append(signed)

    def open(self, job: JobId, room: Room) -> None:
        """Begin a job, with what was ahead of its announce."""
        self.by_job[job] = room
        for signed in [one for one in self._ahead if one.message.job == job]:
            self._ahead.remove(signed)
            self.bidding(signed)

    def refuse(self, job: JobId) -> None:
        """Forget a job whose announce is not followed, but not that it was seen."""
        self.by_job.pop(job, None)
        self._refused[job] = None
        while len(self._refused) > JOBS_REFUSED_MAX:
            self._refused.popitem(last=False)

    def make_place(self, unix_s: int) -> list[JobId]:
        """Drop rooms of jobs that must have ended, and the oldest settled ones when all places are taken."""
        gone = [j for j, r in self.by_job.items() if unix_s > r.announce.message.work_deadline_s + ROOM_LINGER_S]
        settled = [j for j, r in self.by_job.items() if r.outcome is not None and j not in gone]
        surplus = max(0, len(self.by_job) - len(gone) - JOBS_OPEN_MAX + 1)
        gone += settled[:surplus]
        for job in gone:
            del self.by_job[job]
        return gone

    @property
    def full(self) -> bool:
        return len(self.by_job) >= JOBS_OPEN_MAX

    def running(self) -> int:
        """Jobs that this node has won and not yet claimed."""
        return sum(1 for room in self.by_job.values() if room.work is not None and not room.work.over)

    def committed_price(self, node: NodeId) -> int:
        """Prices of a node's open awards, which its stake must cover."""
        return sum(
            room.awarded.certified.price
            for room in self.by_job.values()
            if room.awarded is not None and room.outcome is None and room.awarded.certified.winner == node
        )
