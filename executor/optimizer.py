"""AdamW and SGD on torch's fused kernels, with their state as named tensors that exist from the start.

torch.optim is not used: it would import the compiler stack (1.5 s, 80 MB), it creates its state only at the first
step, and its Python loop costs more than a small model's arithmetic. The kernels are the ones that
`torch.optim.AdamW(fused=True)` and `SGD(fused=True)` call, and a test holds the results equal to theirs, bit by bit.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..protocol.limits import MICRO
from ..protocol.spec import TrainSpec

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Optimizer(Protocol):
    """Updates parameters in place from their gradients."""

    state: dict[str, Tensor]
    """By '<parameter>.<slot>'."""

    def update(self, gradients: list[Tensor], *, first: bool) -> None: ...


class AdamW:
    """Decoupled weight decay; betas 0.9 and 0.999, epsilon 1e-8."""

    def __init__(self, spec: TrainSpec, parameters: dict[str, Tensor]) -> None:
        self._rate = spec.learning_rate_micro / MICRO
        self._decay = spec.weight_decay_micro / MICRO
        self._parameters = list(parameters.values())
        self._averages = [torch.zeros_like(value) for value in self._parameters]
        self._squares = [torch.zeros_like(value) for value in self._parameters]
        self._steps = [torch.zeros((), device=value.device) for value in self._parameters]
        self.state: dict[str, Tensor] = {}
        slots = zip(parameters, self._averages, self._squares, self._steps, strict=True)
        for name, average, square, steps in slots:
            self.state |= {f"{name}.exp_avg": average, f"{name}.exp_avg_sq": square, f"{name}.step": steps}

    def update(self, gradients: list[Tensor], *, first: bool) -> None:
        torch._foreach_add_(self._steps, 1)
        torch._fused_adamw_(
            self._parameters,
            gradients,
            self._averages,
            self._squares,
            [],
            self._steps,
            lr=self._rate,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=self._decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


class Sgd:
    """Momentum without dampening or Nesterov; weight decay is added to the gradient."""

    def __init__(self, spec: TrainSpec, parameters: dict[str, Tensor]) -> None:
        self._rate = spec.learning_rate_micro / MICRO
        self._decay = spec.weight_decay_micro / MICRO
        self._momentum = spec.momentum_micro / MICRO
        self._parameters = list(parameters.values())
        self._buffers = [torch.zeros_like(value) for value in self._parameters] if spec.momentum_micro else []
        names = list(parameters)[: len(self._buffers)]
        self.state = {f"{name}.momentum": buffer for name, buffer in zip(names, self._buffers, strict=True)}

    def update(self, gradients: list[Tensor], *, first: bool) -> None:
        torch._fused_sgd_(
            self._parameters,
            gradients,
            self._buffers,
            weight_decay=self._decay,
            momentum=self._momentum,
            lr=self._rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=first and bool(self._buffers),
        )


def make_optimizer(spec: TrainSpec, parameters: dict[str, Tensor]) -> Optimizer:
    """The optimizer that the spec names."""
    return AdamW(spec, parameters) if spec.optimizer == "adamw" else Sgd(spec, parameters)
