"""A checked graph becomes a torch module, first on the `meta` device (no memory), then for real.

The parameter count that torch finds on `meta` must equal the one that the graph's check promised; a difference would
be a mistake of ours and stops the job before anything is allocated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..protocol.errors import ExecutionFailed
from .graph import INPUT, Graph
from .modules import MODULES


class GraphModel(nn.Module):
    """Runs the nodes in order. State names are '<node id>.<name in the operation>'."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        places = {INPUT: 0} | {node.id: index for index, node in enumerate(graph.nodes, start=1)}
        self._plan: list[tuple[nn.Module, tuple[int, ...]]] = []
        for node in graph.nodes:
            module = MODULES[node.op](node.args)
            # not add_module: it refuses ids like "forward", which are harmless as names of state
            self._modules[node.id] = module
            self._plan.append((module, tuple(places[source] for source in node.inputs)))
        self._output = places[graph.output]

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for module, sources in self._plan:
            values.append(module(*[values[source] for source in sources]))
        return values[self._output]


def build_model(graph: Graph, device: torch.device) -> GraphModel:
    """Allocate the model with torch's default initialisation, drawn on the CPU from torch's current RNG."""
    with torch.device("meta"):
        blueprint = GraphModel(graph)
    counted = sum(parameter.numel() for parameter in blueprint.parameters())
    buffers = sum(buffer.numel() for buffer in blueprint.buffers())
    if (counted, buffers) != (graph.parameters, graph.buffers):
        raise ExecutionFailed(f"the model has {counted} parameters where its check counted {graph.parameters}")
    return GraphModel(graph).to(device)
