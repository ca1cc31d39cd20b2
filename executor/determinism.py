"""What makes two machines of one execution class compute the same bits: one thread, one instruction set, no autotuning.

`configure_environment` must run before torch is imported, because its libraries read the variables when they load.
The AVX2 paths are chosen on purpose: every x86 machine of the last ten years has them, so classes stay large.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Literal

from ..protocol.errors import LocalError

if TYPE_CHECKING:
    import torch

DeviceChoice = Literal["auto", "cpu", "cuda"]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
    "OMP_WAIT_POLICY": "PASSIVE",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2,STRICT",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTHONHASHSEED": "0",
}
"""Set before torch is imported. Those that decide about bits are part of the class."""

BIT_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "CUBLAS_WORKSPACE_CONFIG")


def configure_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Write ENVIRONMENT into `environment`, whatever was there."""
    environment.update(ENVIRONMENT)


def pin_torch() -> None:
    """Set torch's own switches. Idempotent; must run in each process before the first computation."""
    import torch
    import torch.utils.deterministic

    torch.set_num_threads(1)
    # what torch.use_deterministic_algorithms does, without importing the compiler (1.4 s and 90 MB)
    torch._C._set_deterministic_algorithms(True, warn_only=False)
    # it would overwrite every fresh buffer with NaN, to find reads of them; our operations do not read them
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(False)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def choose_device(wanted: DeviceChoice) -> torch.device:
    """CUDA where there is one, else the CPU; LocalError when CUDA is wished for and absent."""
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise LocalError("torch finds no CUDA device", field="device", fix="install a CUDA build of torch, or use cpu")
    return torch.device("cuda", 0) if available and wanted != "cpu" else torch.device("cpu")


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the generators that dropout and initialisation draw from. A hundred times cheaper than torch.manual_seed."""
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
