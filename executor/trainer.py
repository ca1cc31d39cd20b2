"""One model in training: the step, the evaluation, and the state as named arrays.

A step is a pure function of (state, spec, data, step number): its batch comes from `order.permutation`, its RNG is
seeded from the step number, and nothing else is remembered between steps. That is what makes a segment replayable.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..protocol.errors import ExecutionFailed, RemoteError
from ..protocol.limits import EVALUATION_BATCH, METRIC_MICRO_MAX, MICRO
from ..protocol.spec import TrainSpec
from .build import build_model
from .data import Examples
from .determinism import seed_torch
from .graph import Graph
from .optimizer import make_optimizer
from .order import permutation, step_seed, weight_seed
from .state import CURSOR, MODEL_PREFIX, read_like
from .tensors import Array, Layout, TensorWriter, layout_of


def to_micro(value: float) -> int:
    """A metric with scale 10^6. Raises ExecutionFailed for NaN and infinity."""
    if not abs(value) < float("inf"):
        raise ExecutionFailed("a metric became NaN or infinite")
    return max(-METRIC_MICRO_MAX, min(METRIC_MICRO_MAX, round(value * MICRO)))


class Trainer:
    """A fresh one holds the state that follows from the spec's seed."""

    def __init__(
        self, spec: TrainSpec, graph: Graph, train: Examples, validation: Examples, device: torch.device
    ) -> None:
        self.spec, self.device = spec, device
        self.cursor = 0
        """Steps done; `arrays` writes it into the state."""
        seed_torch(weight_seed(spec.seed), torch.device("cpu"))
        self.model = build_model(graph, device).train()
        parameters = {name: value.detach() for name, value in self.model.named_parameters()}
        self._leaves = list(self.model.parameters())
        self._optimizer = make_optimizer(spec, parameters)
        self._x, self._y = _place(train.x, device), _place(train.y, device)
        self._validation = _place(validation.x, device), _place(validation.y, device)
        self._epoch, self._order = -1, torch.empty(0)
        self._steps_per_epoch = len(train) // spec.batch_size
        self._tensors = {MODEL_PREFIX + name: value.detach() for name, value in self.model.state_dict().items()}
        self._tensors |= {f"optimizer.{name}": value for name, value in self._optimizer.state.items()}
        for name, value in self._tensors.items():
            if not value.is_contiguous():
                raise ExecutionFailed(f"{name} is not contiguous")
        self._shared = {name: value.numpy() for name, value in self._tensors.items()} if device.type == "cpu" else {}
        self._state_writer = TensorWriter(self.layout())
        weights = {name: entry for name, entry in self.layout().items() if name.startswith(MODEL_PREFIX)}
        self._weight_layout = {name.removeprefix(MODEL_PREFIX): entry for name, entry in weights.items()}
        self._weight_writer = TensorWriter(self._weight_layout)

    def epoch_of(self, step: int) -> int:
        """The epoch (0-based) that `step` belongs to."""
        return step // self._steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether `step` is the last one of its epoch."""
        return (step + 1) % self._steps_per_epoch == 0

    def step(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Do step number `step`: (loss, output, targets), all detached. The caller moves `cursor`."""
        epoch, place = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._order = torch.from_numpy(permutation(self.spec.seed, epoch, len(self._x))).to(self.device)
            self._epoch = epoch
        seed_torch(step_seed(self.spec.seed, step), self.device)
        chosen = self._order[place * self.spec.batch_size : (place + 1) * self.spec.batch_size]
        x, y = self._x.index_select(0, chosen), self._y.index_select(0, chosen)
        output = self.model(x)
        loss = self._loss(output, y, "mean")
        for leaf in self._leaves:
            leaf.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._optimizer.update([_gradient(leaf) for leaf in self._leaves], first=step == 0)
        return loss.detach(), output.detach(), y

    def _loss(self, output: Tensor, y: Tensor, reduction: str) -> Tensor:
        if self.spec.loss == "mse":
            return functional.mse_loss(output, y, reduction=reduction)
        return functional.cross_entropy(output.reshape(-1, output.shape[-1]), y.reshape(-1), reduction=reduction)

    def accuracy(self, output: Tensor, y: Tensor) -> float:
        """Share of right labels; 0 for mse, which has no labels."""
        if self.spec.loss == "mse":
            return 0.0
        return float((output.argmax(-1) == y).sum().item()) / y.numel()

    def evaluate(self) -> Generator[None, None, tuple[int, int]]:
        """Held-out (loss, accuracy), scale 10^6; yields between batches. Leaves state and RNG as they were."""
        x, y = self._validation
        total, right = 0.0, 0.0
        self.model.eval()
        for first in range(0, len(x), EVALUATION_BATCH):
            # a slice may lie at any alignment, which kernels can tell; its clone does not
            part, targets = x[first : first + EVALUATION_BATCH].clone(), y[first : first + EVALUATION_BATCH]
            with torch.no_grad():
                output = self.model(part)
                total += float(self._loss(output, targets, "sum").item())
            right += self.accuracy(output, targets) * targets.numel()
            yield
        self.model.train()
        return to_micro(total / y.numel()), to_micro(right / y.numel())

    def arrays(self) -> dict[str, Array]:
        """The state. On the CPU these share memory with the model: use them before the next step."""
        shared = self._shared or {name: value.cpu().numpy() for name, value in self._tensors.items()}
        return {**shared, CURSOR: np.array([self.cursor], np.int64)}

    def layout(self) -> Layout:
        """Names, types and shapes of this model's states."""
        return layout_of(self.arrays())

    def state_blob(self, arrays: dict[str, Array]) -> bytes:
        """Safetensors of `arrays`, which come from `arrays()`."""
        return self._state_writer.write(arrays)

    def weights_blob(self) -> bytes:
        """Safetensors of the model alone: parameters and buffers."""
        arrays = self.arrays()
        return self._weight_writer.write({name: arrays[MODEL_PREFIX + name] for name in self._weight_writer.names})

    def restore(self, blob: bytes, *, cursor: int) -> None:
        """Continue from a peer's state, which must stand at step `cursor`. Raises RemoteError."""
        arrays = self.read_state(blob, cursor=cursor)
        for name, tensor in self._tensors.items():
            tensor.copy_(_place(arrays[name], torch.device("cpu")))
        self.cursor = cursor

    def read_state(self, blob: bytes, *, cursor: int) -> dict[str, Array]:
        """Views into a peer's state, which must stand at step `cursor`. Raises RemoteError."""
        arrays = read_like(blob, self.layout(), what="the state")
        if int(arrays[CURSOR][0]) != cursor:
            raise RemoteError(f"the state stands at step {int(arrays[CURSOR][0])}, not {cursor}")
        return arrays

    def weights_equal(self, blob: bytes) -> bool:
        """Whether delivered weights are, bit by bit, the model part of the state. A malformed blob is not."""
        try:
            arrays = read_like(blob, self._weight_layout, what="the weights")
        except RemoteError:
            return False
        own = self.arrays()
        return all(array.tobytes() == own[MODEL_PREFIX + name].tobytes() for name, array in arrays.items())


def _gradient(leaf: Tensor) -> Tensor:
    if leaf.grad is None:
        raise ExecutionFailed("a parameter has no gradient: the loss does not depend on it")
    return leaf.grad


def _place(array: Array, device: torch.device) -> Tensor:
    """Copy into memory that torch has allocated and aligned: kernels may choose by alignment."""
    kind = cast(torch.dtype, getattr(torch, array.dtype.name))
    tensor = torch.empty(array.shape, dtype=kind)
    tensor.numpy()[...] = array
    return tensor.to(device)
