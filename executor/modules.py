"""The torch side of the operations in `ops.OPS`: one constructor per name, and the composite blocks.

Only kernels with a deterministic backward pass are used, on CPU and on CUDA: attention is written out, and adaptive
pooling is plain pooling with a computed window. State names of blocks are part of the weights format: do not rename.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .ops import Args, ArgValue, has_shortcut, number, numbers


class AdaptivePool(nn.Module):
    """Average pooling to `size` x `size`; the graph's check has made sure that `size` divides both sides."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, (x.shape[-2] // self.size, x.shape[-1] // self.size))


class Reshape(nn.Module):
    """Another shape of each example."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)


class Transpose(nn.Module):
    """Two dimensions exchanged."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(self.first, self.second).contiguous()


class Combine(nn.Module):
    """A fold over the inputs: sum or product."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = self.function(first, other)
        return first


class Concat(nn.Module):
    """Inputs joined along a dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim)


class PositionEmbedding(nn.Module):
    """Adds a learnt vector per position."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class SelfAttention(nn.Module):
    """Multi-head self-attention over (batch, length, width), written out in matrix products."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        if self.causal:
            later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        mixed = torch.softmax(scores, -1) @ value
        return cast(Tensor, self.out(mixed.transpose(1, 2).reshape(batch, length, width)))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: attention and a GELU feed-forward, both residual."""

    def __init__(self, width: int, heads: int, causal: bool, inner: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, causal)
        self.feed1, self.feed2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        inner = self.feed2(functional.gelu(self.feed1(self.norm2(x))))
        return x + cast(Tensor, self.dropout(inner))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norms around a shortcut, then ReLU; no biases before the norms."""

    def __init__(self, before: int, after: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut: nn.Module | None = None
        if shortcut:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.shortcut is None else self.shortcut(x)
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(inner + around)


def _keywords(kind: Callable[..., nn.Module]) -> Callable[[Args], nn.Module]:
    """For constructors of torch whose parameters have the names of our arguments."""

    def make(args: Args) -> nn.Module:
        plain: dict[str, ArgValue | list[int]] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in args.items()
        }
        return kind(**plain)

    return make


def _pool(kind: Callable[..., nn.Module]) -> Callable[[Args], nn.Module]:
    def make(args: Args) -> nn.Module:
        return kind(args["kernel_size"], number(args, "stride") or None, args["padding"])

    return make


def _attention(args: Args) -> nn.Module:
    return SelfAttention(number(args, "embed_dim"), number(args, "num_heads"), bool(args["causal"]))


def _transformer(args: Args) -> nn.Module:
    sizes = number(args, "embed_dim"), number(args, "num_heads")
    return TransformerBlock(
        *sizes, bool(args["causal"]), number(args, "feedforward"), float(cast(float, args["dropout"]))
    )


def _residual(args: Args) -> nn.Module:
    sizes = number(args, "in_channels"), number(args, "out_channels"), number(args, "stride")
    return ResidualBlock(*sizes, has_shortcut(args))


MODULES: Mapping[str, Callable[[Args], nn.Module]] = {
    "Linear": _keywords(nn.Linear),
    "Conv1d": _keywords(nn.Conv1d),
    "Conv2d": _keywords(nn.Conv2d),
    "BatchNorm1d": _keywords(nn.BatchNorm1d),
    "BatchNorm2d": _keywords(nn.BatchNorm2d),
    "LayerNorm": _keywords(nn.LayerNorm),
    "ReLU": _keywords(nn.ReLU),
    "GELU": _keywords(nn.GELU),
    "SiLU": _keywords(nn.SiLU),
    "Tanh": _keywords(nn.Tanh),
    "Sigmoid": _keywords(nn.Sigmoid),
    "Softmax": _keywords(nn.Softmax),
    "Dropout": _keywords(nn.Dropout),
    "MaxPool2d": _pool(nn.MaxPool2d),
    "AvgPool2d": _pool(nn.AvgPool2d),
    "AdaptiveAvgPool2d": lambda args: AdaptivePool(number(args, "output_size")),
    "Flatten": _keywords(nn.Flatten),
    "Embedding": _keywords(nn.Embedding),
    "PositionEmbedding": lambda args: PositionEmbedding(number(args, "length"), number(args, "embed_dim")),
    "Add": lambda args: Combine(torch.add),
    "Mul": lambda args: Combine(torch.mul),
    "Concat": lambda args: Concat(number(args, "dim")),
    "Reshape": lambda args: Reshape(numbers(args, "shape")),
    "Transpose": lambda args: Transpose(number(args, "dim0"), number(args, "dim1")),
    "MultiheadSelfAttention": _attention,
    "TransformerBlock": _transformer,
    "ResidualBlock": _residual,
}
