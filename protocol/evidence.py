"""The evidence in a receipt: signed envelopes, and who worked by them from the award to the settlement (DESIGN 9)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .award import Award, JobTerms
from .envelope import open_as
from .errors import LocalError, RemoteError
from .handover import Successor, check_handover, handover_signers
from .limits import HANDOVERS_MAX
from .messages import HandoverCertificate


@dataclass(frozen=True, slots=True)
class Evidence:
    """Signed envelopes as received. `certificate` and `claim` are empty when there was none; `handovers` lead from the
    award to the worker that was settled with."""

    announce: bytes
    certificate: bytes
    claim: bytes
    outcome: bytes
    handovers: tuple[bytes, ...] = ()


def encode_evidence(evidence: Evidence) -> dict[str, Any]:
    """Base64 of each envelope; `handovers` only where there are any."""
    handovers = [base64.b64encode(raw).decode() for raw in evidence.handovers]
    parts: dict[str, Any] = {
        name: base64.b64encode(raw).decode()
        for name, raw in (
            ("announce", evidence.announce),
            ("certificate", evidence.certificate),
            ("claim", evidence.claim),
            ("outcome", evidence.outcome),
        )
    }
    return {**parts, "handovers": handovers} if handovers else parts


def decode_evidence(parts: Mapping[str, Any]) -> Evidence:
    """What `encode_evidence` wrote; LookupError, TypeError or ValueError when it did not."""
    handovers = parts.get("handovers", [])
    if len(handovers) > HANDOVERS_MAX:
        raise LocalError(f"are more than {HANDOVERS_MAX}", field="receipt.evidence.handovers")
    announce, certificate, claim, outcome = (
        _bytes(parts[name]) for name in ("announce", "certificate", "claim", "outcome")
    )
    return Evidence(announce, certificate, claim, outcome, tuple(_bytes(text) for text in handovers))


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def handed_on(terms: JobTerms, award: Award, evidence: Evidence) -> list[tuple[Successor, int]]:
    """Who took over after the winner, in order, each with the number of members that said so. RemoteError when a
    certificate does not hold, or comes before an earlier one."""
    found: list[tuple[Successor, int]] = []
    for raw in evidence.handovers:
        try:
            certificate = open_as(raw, terms.genesis, HandoverCertificate).message
            successor = check_handover(terms, award, certificate)
        except RemoteError as error:
            raise RemoteError(f"evidence.handovers: {error}") from None
        if found and successor.rank <= found[-1][0].rank:
            raise RemoteError("evidence.handovers: not in the order of the ranking")
        found.append((successor, len(handover_signers(terms, certificate))))
    return found
