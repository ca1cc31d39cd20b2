"""A checked graph becomes a torch module.

What it may cost was bounded by arithmetic before; a count that then differs would be a mistake of ours and stops the
job. torch's `meta` device is not used for that: its first operation imports the compiler (1.5 s of CPU, 80 MB).
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
    model = GraphModel(graph)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() for buffer in model.buffers())
    if (parameters, buffers) != (graph.parameters, graph.buffers):
        raise ExecutionFailed(f"the model has {parameters} parameters where its check counted {graph.parameters}")
    return model.to(device)
