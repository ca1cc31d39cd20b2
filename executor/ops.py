"""The whitelist of model operations: arguments with their ranges, shapes, and costs, as one table.

A graph may name these operations and nothing else. Everything here is integer arithmetic on shapes, so a model is
judged before anything is allocated and without importing torch; `modules.py` holds the torch side of the same names.
Shapes are those of one example: the batch is dimension 0 of the tensors and never appears here, which is why `dim`
arguments start at 1. A rule that refuses raises BadOp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Shape = tuple[int, ...]
ArgValue = int | float | bool | tuple[int, ...]
Args = Mapping[str, ArgValue]


class BadOp(ValueError):
    """An argument or an input shape that an operation cannot take. `arg` names the argument, if one is to blame."""

    def __init__(self, message: str, *, arg: str = "") -> None:
        self.arg = arg
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument: its kind, inclusive range, and default. Without a default it must be given."""

    kind: Literal["int", "float", "bool", "ints"]
    low: float = 0
    high: float = 1
    default: ArgValue | None = None

    def check(self, name: str, value: object) -> ArgValue:
        """Return `value` in its normal form, or raise BadOp. A bool is never taken for a number."""
        if self.kind == "bool":
            if isinstance(value, bool):
                return value
        elif self.kind == "int" and type(value) is int and self.low <= value <= self.high:
            return value
        elif self.kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
            # compared before it is converted: an integer may be too large for a float
            if self.low <= value <= self.high:
                return float(value)
        elif self.kind == "ints" and isinstance(value, list | tuple) and self._sizes(value):
            return tuple(value)
        raise BadOp(f"{_brief(value)} is not {self.describe()}", arg=name)

    def _sizes(self, value: list[object] | tuple[object, ...]) -> bool:
        in_range = (type(item) is int and self.low <= item <= self.high for item in value)
        return 1 <= len(value) <= 5 and all(in_range)

    def describe(self) -> str:
        """What is allowed, in words: used in error messages and in the documentation."""
        if self.kind == "bool":
            return "true or false"
        noun = {"int": "an integer", "float": "a number", "ints": "a list of 1 to 5 integers"}[self.kind]
        return f"{noun} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. Costs are counts of elements; `scratch` is what it keeps besides its output, per example."""

    shape: Callable[[Args, tuple[Shape, ...]], Shape]
    args: Mapping[str, Arg] = field(default_factory=dict)
    inputs: tuple[int, int] = (1, 1)
    parameters: Callable[[Args], int] = lambda args: 0
    buffers: Callable[[Args], int] = lambda args: 0
    scratch: Callable[[Args, Shape], int] = lambda args, shape: 0
    takes_indices: bool = False


def number(args: Args, name: str) -> int:
    """An integer argument that `Arg.check` has already accepted."""
    value = args[name]
    assert isinstance(value, int)
    return value


def numbers(args: Args, name: str) -> tuple[int, ...]:
    """A list argument that `Arg.check` has already accepted."""
    value = args[name]
    assert isinstance(value, tuple)
    return value


def _brief(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _integer(low: int, high: int, default: int | None = None) -> Arg:
    return Arg("int", low, high, default)


def _flag(default: bool) -> Arg:
    return Arg("bool", default=default)


def _expect(shape: Shape, rank: int, what: str) -> None:
    if len(shape) != rank:
        raise BadOp(f"takes {what}, and its input has shape {list(shape)}")


def _match(actual: int, args: Args, name: str) -> None:
    if actual != args[name]:
        raise BadOp(f"is {args[name]}, and the input has {actual}", arg=name)


def _same(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    return shapes[0]


def _all_equal(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    if any(shape != shapes[0] for shape in shapes):
        raise BadOp(f"needs inputs of one shape, and they have {[list(shape) for shape in shapes]}")
    return shapes[0]


def _linear(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    if not shapes[0]:
        raise BadOp("takes at least one dimension besides the batch")
    _match(shapes[0][-1], args, "in_features")
    return (*shapes[0][:-1], number(args, "out_features"))


def _window(length: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    out = (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if out < 1:
        raise BadOp(f"{kernel} does not fit an input of {length}", arg="kernel_size")
    return out


def _conv(rank: int) -> Callable[[Args, tuple[Shape, ...]], Shape]:
    def shape(args: Args, shapes: tuple[Shape, ...]) -> Shape:
        _expect(shapes[0], rank + 1, "channels and " + ("a length" if rank == 1 else "height and width"))
        _match(shapes[0][0], args, "in_channels")
        for name in ("in_channels", "out_channels"):
            if number(args, name) % number(args, "groups"):
                raise BadOp(f"{args['groups']} does not divide {name} ({args[name]})", arg="groups")
        names = ("kernel_size", "stride", "padding", "dilation")
        kernel, stride, padding, dilation = (number(args, name) for name in names)
        sides = [_window(side, kernel, stride, padding, dilation) for side in shapes[0][1:]]
        return (number(args, "out_channels"), *sides)

    return shape


def _pool(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    _expect(shapes[0], 3, "channels, height and width")
    kernel, padding = number(args, "kernel_size"), number(args, "padding")
    if padding > kernel // 2:
        raise BadOp(f"{padding} is more than half the kernel", arg="padding")
    stride = number(args, "stride") or kernel
    return (shapes[0][0], *(_window(side, kernel, stride, padding) for side in shapes[0][1:]))


def _adaptive_pool(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    _expect(shapes[0], 3, "channels, height and width")
    size = number(args, "output_size")
    if any(side % size for side in shapes[0][1:]):
        raise BadOp(f"{size} does not divide height and width {list(shapes[0][1:])}", arg="output_size")
    return (shapes[0][0], size, size)


def _batch_norm(ranks: tuple[int, ...]) -> Callable[[Args, tuple[Shape, ...]], Shape]:
    def shape(args: Args, shapes: tuple[Shape, ...]) -> Shape:
        if len(shapes[0]) not in ranks:
            raise BadOp(f"takes {ranks[0]} dimensions, and its input has shape {list(shapes[0])}")
        _match(shapes[0][0], args, "num_features")
        return shapes[0]

    return shape


def _layer_norm(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    wanted = numbers(args, "normalized_shape")
    if shapes[0][-len(wanted) :] != wanted:
        raise BadOp(f"{list(wanted)} is not the end of {list(shapes[0])}", arg="normalized_shape")
    return shapes[0]


def _softmax(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    if not shapes[0] or number(args, "dim") > len(shapes[0]) or args["dim"] == 0:
        raise BadOp(f"{args['dim']} is no dimension of {list(shapes[0])} (1 is the first)", arg="dim")
    return shapes[0]


def _flatten(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    shape, start = shapes[0], number(args, "start_dim") - 1
    if start >= len(shape):
        raise BadOp(f"{start + 1} is no dimension of {list(shape)} (1 is the first)", arg="start_dim")
    return (*shape[:start], math.prod(shape[start:]))


def _reshape(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    wanted = numbers(args, "shape")
    if math.prod(wanted) != math.prod(shapes[0]):
        raise BadOp(f"{list(wanted)} has another number of elements than {list(shapes[0])}", arg="shape")
    return wanted


def _transpose(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    shape = list(shapes[0])
    first, second = number(args, "dim0"), number(args, "dim1")
    for name in ("dim0", "dim1"):
        if number(args, name) > len(shape):
            raise BadOp(f"{args[name]} is no dimension of {shape} (1 is the first)", arg=name)
    shape[first - 1], shape[second - 1] = shape[second - 1], shape[first - 1]
    return tuple(shape)


def _concat(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    dim, first = number(args, "dim") - 1, shapes[0]
    if dim >= len(first):
        raise BadOp(f"{dim + 1} is no dimension of {list(first)} (1 is the first)", arg="dim")
    for other in shapes[1:]:
        if len(other) != len(first) or other[:dim] + other[dim + 1 :] != first[:dim] + first[dim + 1 :]:
            raise BadOp(f"cannot join shapes {[list(shape) for shape in shapes]}", arg="dim")
    return (*first[:dim], sum(shape[dim] for shape in shapes), *first[dim + 1 :])


def _embedding(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    return (*shapes[0], number(args, "embedding_dim"))


def _sequence(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    _expect(shapes[0], 2, "length and width")
    _match(shapes[0][1], args, "embed_dim")
    if "num_heads" in args and number(args, "embed_dim") % number(args, "num_heads"):
        raise BadOp(f"{args['num_heads']} does not divide embed_dim ({args['embed_dim']})", arg="num_heads")
    if "length" in args:
        _match(shapes[0][0], args, "length")
    return shapes[0]


def _residual(args: Args, shapes: tuple[Shape, ...]) -> Shape:
    _expect(shapes[0], 3, "channels, height and width")
    _match(shapes[0][0], args, "in_channels")
    stride = number(args, "stride")
    return (number(args, "out_channels"), *(_window(side, 3, stride, 1) for side in shapes[0][1:]))


def _linear_parameters(args: Args) -> int:
    return number(args, "out_features") * (number(args, "in_features") + number(args, "bias"))


def _conv_parameters(rank: int) -> Callable[[Args], int]:
    def count(args: Args) -> int:
        inner = number(args, "in_channels") // number(args, "groups") * math.prod([number(args, "kernel_size")] * rank)
        return number(args, "out_channels") * (inner + number(args, "bias"))

    return count


def _attention_parameters(args: Args) -> int:
    width = number(args, "embed_dim")
    return 4 * width * (width + 1)


def _attention_scratch(args: Args, shape: Shape) -> int:
    length, width = shape
    return 5 * length * width + 3 * number(args, "num_heads") * length * length


def _transformer_parameters(args: Args) -> int:
    width, inner = number(args, "embed_dim"), number(args, "feedforward")
    return _attention_parameters(args) + 4 * width + inner * (width + 1) + width * (inner + 1)


def _transformer_scratch(args: Args, shape: Shape) -> int:
    length, width = shape
    return _attention_scratch(args, shape) + 7 * length * width + 2 * length * number(args, "feedforward")


def has_shortcut(args: Args) -> bool:
    """Whether a ResidualBlock projects its input with a 1x1 convolution, because its shape changes."""
    return args["stride"] != 1 or args["in_channels"] != args["out_channels"]


def _residual_parameters(args: Args) -> int:
    before, after = number(args, "in_channels"), number(args, "out_channels")
    return after * 9 * (before + after) + 4 * after + int(has_shortcut(args)) * after * (before + 2)


def _residual_buffers(args: Args) -> int:
    return (2 + int(has_shortcut(args))) * (2 * number(args, "out_channels") + 1)


def _features(factor: int, extra: int = 0) -> Callable[[Args], int]:
    return lambda args: factor * number(args, "num_features") + extra


def _product(*names: str) -> Callable[[Args], int]:
    return lambda args: math.prod([number(args, name) for name in names])


_CHANNELS = _integer(1, 4096)
_DIM = _integer(1, 5)
_WINDOW = {"kernel_size": _integer(1, 31), "stride": _integer(0, 16, 0), "padding": _integer(0, 15, 0)}
_CONV = {
    "in_channels": _CHANNELS,
    "out_channels": _CHANNELS,
    "kernel_size": _integer(1, 31),
    "stride": _integer(1, 16, 1),
    "padding": _integer(0, 31, 0),
    "dilation": _integer(1, 16, 1),
    "groups": _integer(1, 4096, 1),
    "bias": _flag(True),
}
_LINEAR = {"in_features": _integer(1, 65536), "out_features": _integer(1, 65536), "bias": _flag(True)}
_DROPOUT = Arg("float", 0, 0.95, 0.0)
_HEADS = {"embed_dim": _integer(1, 16384), "num_heads": _integer(1, 256), "causal": _flag(False)}
_NORM = {"num_features": _CHANNELS}

OPS: Mapping[str, Op] = {
    "Linear": Op(_linear, _LINEAR, parameters=_linear_parameters),
    "Conv1d": Op(_conv(1), _CONV, parameters=_conv_parameters(1)),
    "Conv2d": Op(_conv(2), _CONV, parameters=_conv_parameters(2)),
    "BatchNorm1d": Op(_batch_norm((1, 2)), _NORM, parameters=_features(2), buffers=_features(2, 1)),
    "BatchNorm2d": Op(_batch_norm((3,)), _NORM, parameters=_features(2), buffers=_features(2, 1)),
    "LayerNorm": Op(
        _layer_norm,
        {"normalized_shape": Arg("ints", 1, 65536)},
        parameters=lambda args: 2 * math.prod(numbers(args, "normalized_shape")),
    ),
    "ReLU": Op(_same),
    "GELU": Op(_same),
    "SiLU": Op(_same),
    "Tanh": Op(_same),
    "Sigmoid": Op(_same),
    "Softmax": Op(_softmax, {"dim": _integer(-1, 5, -1)}),
    "Dropout": Op(_same, {"p": Arg("float", 0, 0.95, 0.5)}, scratch=lambda args, shape: math.prod(shape)),
    "MaxPool2d": Op(_pool, _WINDOW, scratch=lambda args, shape: 2 * math.prod(shape)),
    "AvgPool2d": Op(_pool, _WINDOW),
    "AdaptiveAvgPool2d": Op(_adaptive_pool, {"output_size": _integer(1, 64)}),
    "Flatten": Op(_flatten, {"start_dim": _integer(1, 5, 1)}),
    "Embedding": Op(
        _embedding,
        {"num_embeddings": _integer(1, 1 << 20), "embedding_dim": _integer(1, 65536)},
        parameters=_product("num_embeddings", "embedding_dim"),
        takes_indices=True,
    ),
    "PositionEmbedding": Op(
        _sequence,
        {"length": _integer(1, 65536), "embed_dim": _integer(1, 16384)},
        parameters=_product("length", "embed_dim"),
    ),
    "Add": Op(_all_equal, inputs=(2, 16)),
    "Mul": Op(_all_equal, inputs=(2, 16)),
    "Concat": Op(_concat, {"dim": _DIM}, inputs=(2, 16)),
    "Reshape": Op(_reshape, {"shape": Arg("ints", 1, 1 << 24)}),
    "Transpose": Op(_transpose, {"dim0": _DIM, "dim1": _DIM}),
    "MultiheadSelfAttention": Op(_sequence, _HEADS, parameters=_attention_parameters, scratch=_attention_scratch),
    "TransformerBlock": Op(
        _sequence,
        {**_HEADS, "feedforward": _integer(1, 65536), "dropout": _DROPOUT},
        parameters=_transformer_parameters,
        scratch=_transformer_scratch,
    ),
    "ResidualBlock": Op(
        _residual,
        {"in_channels": _CHANNELS, "out_channels": _CHANNELS, "stride": _integer(1, 4, 1)},
        parameters=_residual_parameters,
        buffers=_residual_buffers,
        scratch=lambda args, shape: 7 * math.prod(shape),
    ),
}
