"""The verification rule where a backend can only run a task again: claim and repetition must be equal, time apart.

Exact inside an execution class. Backends that know no token ids are compared by their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ..protocol.inference import Generated, InferenceCheck
from ..protocol.limits import MICRO


def compare(claim: Generated, own: Generated) -> InferenceCheck:
    """Judge a claim beside the verifier's own answer; `trace` is the verifier's."""
    theirs: Sequence[object] = claim.tokens if own.tokens else claim.text
    mine: Sequence[object] = own.tokens or own.text
    pairs = zip(theirs, mine, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    longest = max(len(theirs), len(mine), 1)
    exact_ppm = MICRO if theirs == mine else MICRO * common // longest
    unit = "tokens" if own.tokens else "text"
    reason = "" if theirs == mine else f"{unit}[{common}]: differs from a repetition in this class"
    for name in ("tokens", "text", "prompt_tokens", "generated_tokens", "stop_reason"):
        if not reason and getattr(claim, name) != getattr(own, name):
            reason = f"{name}: differs from a repetition in this class"
    return InferenceCheck(not reason, exact_ppm, 0, 0, reason, own.trace)
