"""A rough price tag for a training: how many floating-point operations it will take.

Only for estimates before a job: a weight is used once per position of its layer's output, a step costs three forward
passes, and each multiply-add counts as two operations.
"""

from __future__ import annotations

import math

from .graph import Graph
from .ops import OPS


def work_mflop(graph: Graph, examples: int) -> int:
    """10^6 floating-point operations to train on `examples` (counted once per epoch); at least 1."""
    multiplies = 0
    for node in graph.nodes:
        shape = graph.shapes[node.id]
        channels = shape[0] if len(shape) > 2 else shape[-1]
        positions = math.prod(shape) // max(1, channels)
        multiplies += OPS[node.op].parameters(node.args) * positions
    return max(1, multiplies * 2 * 3 * examples // 1_000_000)
