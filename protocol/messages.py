"""Every message of the wire, as immutable types that cannot exist invalid (DESIGN 4 to 7), and their names there.

Gossip: Heartbeat, Capability, JobAnnounce, Decline, BidCommit, BidReveal, AwardCertificate, HandoverCertificate,
Outcome, JobStatus. All others go between two peers. `presence_messages`, `market_messages` and `job_messages` define
them.
"""

from __future__ import annotations

import msgspec

from .fields import Message as Message
from .job_messages import BlobHeader as BlobHeader
from .job_messages import BlobRequest as BlobRequest
from .job_messages import Claim as Claim
from .job_messages import HandoverProposal as HandoverProposal
from .job_messages import HandoverVote as HandoverVote
from .job_messages import InferenceClaim as InferenceClaim
from .job_messages import Opening as Opening
from .job_messages import OpenRequest as OpenRequest
from .job_messages import Progress as Progress
from .job_messages import ResultAnswer as ResultAnswer
from .job_messages import ResultClaim as ResultClaim
from .job_messages import ResultRequest as ResultRequest
from .job_messages import SettleProposal as SettleProposal
from .job_messages import SettleVote as SettleVote
from .job_messages import SpecAnswer as SpecAnswer
from .job_messages import SpecRequest as SpecRequest
from .job_messages import StartNotice as StartNotice
from .job_messages import Tokens as Tokens
from .job_messages import TokensRequest as TokensRequest
from .job_messages import VerdictBody as VerdictBody
from .job_messages import VerdictCommit as VerdictCommit
from .job_messages import VerdictReveal as VerdictReveal
from .market_messages import AwardCertificate as AwardCertificate
from .market_messages import AwardVote as AwardVote
from .market_messages import Bid as Bid
from .market_messages import BidCommit as BidCommit
from .market_messages import BidderRecord as BidderRecord
from .market_messages import BidReveal as BidReveal
from .market_messages import Decline as Decline
from .market_messages import DeclineReason as DeclineReason
from .market_messages import HandoverCertificate as HandoverCertificate
from .market_messages import InferTerms as InferTerms
from .market_messages import JobAnnounce as JobAnnounce
from .market_messages import JobStatus as JobStatus
from .market_messages import Outcome as Outcome
from .market_messages import Proposal as Proposal
from .market_messages import ScoreWeights as ScoreWeights
from .market_messages import Tally as Tally
from .market_messages import least_price as least_price
from .market_messages import token_units as token_units
from .presence_messages import Capability as Capability
from .presence_messages import Heartbeat as Heartbeat
from .presence_messages import ModelOffer as ModelOffer
from .presence_messages import PeersAnswer as PeersAnswer
from .presence_messages import PeersRequest as PeersRequest

_ALL: tuple[type[Message], ...] = (
    Heartbeat, Capability, PeersRequest, PeersAnswer, JobAnnounce, Decline, BidCommit, BidReveal, Tally, Proposal,
    AwardVote, AwardCertificate, HandoverCertificate, Outcome, JobStatus, SpecRequest, SpecAnswer, StartNotice,
    Progress, TokensRequest, Tokens, ResultClaim, InferenceClaim, VerdictCommit, OpenRequest, Opening, VerdictReveal,
    HandoverProposal, HandoverVote, SettleProposal, SettleVote, BlobRequest,
    ResultRequest, ResultAnswer,
)  # fmt: skip
KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in _ALL}
"""Kind name on the wire -> message type. Everything here travels in a signed envelope."""


def kind_of(message: msgspec.Struct) -> str:
    """The wire name of a message's kind."""
    name = type(message).__name__
    if KINDS.get(name) is not type(message):
        raise TypeError(f"{name} does not travel in an envelope")
    return name
