"""A causal model that continues a text: with kept keys and values token by token, or over a whole answer at once.

Both give the logits of the same function. Their last bits differ, since products of other shapes add in another order;
the verification rule allows for that. Each by itself has the same bits on every machine of an execution class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..protocol.errors import ExecutionFailed, LocalError, RemoteError
from .build import GraphModel, build_model
from .determinism import seed_torch
from .graph import INPUT, Graph
from .modules import PositionEmbedding, SelfAttention, TransformerBlock
from .state import read_like
from .tensors import layout_of
from .tokens import VOCABULARY


class Kept:
    """Keys and values of one attention node for the positions so far."""

    def __init__(self, attention: SelfAttention, context: int, device: torch.device) -> None:
        width = attention.out.in_features
        shape = (2, attention.heads, context, width // attention.heads)
        self._both = torch.empty(shape, device=device)

    def extend(self, key: Tensor, value: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Keep those of the positions from `start` on, shape (heads, length, width); all up to there."""
        stop = start + key.shape[1]
        self._both[0, :, start:stop] = key
        self._both[1, :, start:stop] = value
        return self._both[0, :, :stop], self._both[1, :, :stop]


class Decoder:
    """One loaded model. `begin` starts a sequence; `advance` feeds tokens; `prefill` is one pass over a sequence."""

    def __init__(self, graph: Graph, weights: bytes, device: torch.device) -> None:
        seed_torch(0, torch.device("cpu"))
        self._graph, self._device = graph, device
        self._model = build_model(graph, device).eval().requires_grad_(False)
        _load(self._model, weights)
        self._kept: dict[str, Kept] = {}
        self._places = {INPUT: 0} | {node.id: index for index, node in enumerate(graph.nodes, start=1)}
        self._length = 0

    def begin(self) -> None:
        """Forget the sequence before."""
        self._length = 0

    def advance(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Feed tokens that follow those before; logits, shape (vocabulary,), of what comes next.

        Raises ExecutionFailed when they are not finite.
        """
        if not self._kept:
            for node in self._graph.nodes:
                attention = _attention(self._model._modules[node.id])
                if attention is not None:
                    self._kept[node.id] = Kept(attention, self._graph.input_shape[0], self._device)
        values = self._run(tokens, self._length, self._kept)
        self._length += len(tokens)
        return _logits(values[-1])

    def prefill(self, tokens: Sequence[int], first: int) -> NDArray[np.float32]:
        """One pass: logits, shape (len(tokens) - first, vocabulary), after each token from index `first` on."""
        return _logits(self._run(tokens, 0, {})[first:])

    @torch.inference_mode()
    def _run(self, tokens: Sequence[int], start: int, kept: dict[str, Kept]) -> Tensor:
        values = [torch.tensor([tokens], dtype=torch.int64).to(self._device)]
        for node in self._graph.nodes:
            module = cast(nn.Module, self._model._modules[node.id])
            inputs = [values[self._places[source]] for source in node.inputs]
            values.append(_apply(module, inputs, start, kept.get(node.id)))
        return values[self._places[self._graph.output]][0]


def _apply(module: nn.Module, inputs: list[Tensor], start: int, kept: Kept | None) -> Tensor:
    if isinstance(module, PositionEmbedding):
        return inputs[0] + module.weight[start : start + inputs[0].shape[1]]
    if isinstance(module, SelfAttention):
        return _attend(module, inputs[0], start, kept)
    if isinstance(module, TransformerBlock):
        x = inputs[0] + _attend(module.attention, module.norm1(inputs[0]), start, kept)
        inner = module.feed2(functional.gelu(module.feed1(module.norm2(x))))
        return x + cast(Tensor, inner)
    return cast(Tensor, module(*inputs))


def _attend(module: SelfAttention, x: Tensor, start: int, kept: Kept | None) -> Tensor:
    """What `SelfAttention.forward` computes for one example, for the positions from `start` on."""
    _, length, width = x.shape
    parts = module.qkv(x).reshape(length, 3, module.heads, width // module.heads)
    query, key, value = parts.permute(1, 2, 0, 3).contiguous().unbind(0)
    if kept is not None:
        key, value = kept.extend(key, value, start)
    scores = query @ key.transpose(-2, -1) / math.sqrt(width // module.heads)
    if length > 1:
        later = torch.ones(length, key.shape[1], dtype=torch.bool, device=x.device).triu(1 + key.shape[1] - length)
        scores = scores.masked_fill(later, float("-inf"))
    mixed = torch.softmax(scores, -1) @ value
    return cast(Tensor, module.out(mixed.transpose(0, 1).reshape(1, length, width)))


def _attention(module: nn.Module | None) -> SelfAttention | None:
    if isinstance(module, TransformerBlock):
        return module.attention
    return module if isinstance(module, SelfAttention) else None


def _logits(values: Tensor) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = values[..., :VOCABULARY].cpu().numpy()
    if not np.isfinite(logits).all():
        raise ExecutionFailed("the model gives NaN or infinity for this text")
    return logits


def _load(model: GraphModel, weights: bytes) -> None:
    """Copy the weights into the model's own tensors; names, types and shapes must be exactly its own."""
    tensors = model.state_dict()
    try:
        arrays = read_like(weights, layout_of({name: value.cpu().numpy() for name, value in tensors.items()}), what="")
    except RemoteError as error:
        fix = "deliver the weights that this graph was trained to"
        raise LocalError(str(error).strip(), field="model.weights", fix=fix) from None
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise LocalError(f"tensor {name!r} holds NaN or infinity", field="model.weights", fix="train it again")
        tensors[name].copy_(torch.from_numpy(np.array(array)))
