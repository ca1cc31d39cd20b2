"""The execution class: what two machines must share to compute the same bits.

The description is what the machine says of itself: torch build, processor vendor and instruction set, or graphics
card with driver and libraries, threads, switches. The last entry is not said but measured: the state hash after a few
steps of a small model. Machines that describe themselves alike and compute differently land in different classes.
"""

from __future__ import annotations

import json
import os
import platform
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from ..protocol.spec import TrainSpec
from .data import Examples
from .determinism import BIT_VARIABLES
from .graph import parse_graph
from .state import state_hash
from .trainer import Trainer

_PROBE_GRAPH = {
    "version": 1,
    "input": {"shape": [2, 8, 8], "dtype": "float32"},
    "nodes": [
        {"id": "block", "op": "ResidualBlock", "in": ["input"], "args": {"in_channels": 2, "out_channels": 8}},
        {"id": "sequence", "op": "Reshape", "in": ["block"], "args": {"shape": [16, 32]}},
        {
            "id": "mixed",
            "op": "TransformerBlock",
            "in": ["sequence"],
            "args": {"embed_dim": 32, "num_heads": 4, "feedforward": 64, "dropout": 0.1},
        },
        {"id": "flat", "op": "Flatten", "in": ["mixed"], "args": {}},
        {"id": "head", "op": "Linear", "in": ["flat"], "args": {"in_features": 512, "out_features": 10}},
    ],
    "output": "head",
}
_PROBE_STEPS = 3
_PROBE_EXAMPLES = 48


def describe_class(device: torch.device) -> dict[str, str]:
    """All that decides about bits on this machine, with the measured probe. Takes some 50 ms."""
    description = {
        "torch": str(torch.__version__),
        "torch_build": sha256(torch.__config__.show().encode()).hexdigest()[:16],
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "flags": "deterministic,float32=highest,fused optimizer",
        "compute": device.type,
    }
    description |= {name.lower(): os.environ.get(name, "") for name in BIT_VARIABLES}
    description |= _describe_cuda(device) if device.type == "cuda" else _describe_cpu()
    return description | {"probe": probe(device)}


def _describe_cpu() -> dict[str, str]:
    return {"cpu_vendor": _cpu_vendor(), "cpu_isa": torch.backends.cpu.get_cpu_capability()}


def _cpu_vendor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as lines:
            for line in lines:
                if line.startswith(("vendor_id", "CPU implementer")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _describe_cuda(device: torch.device) -> dict[str, str]:
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "gpu": torch.cuda.get_device_name(device),
        "gpu_capability": f"{major}.{minor}",
        "driver": _driver_version(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }


def _driver_version() -> str:
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            version = pynvml.nvmlSystemGetDriverVersion()
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return "unknown"
    return version.decode() if isinstance(version, bytes) else str(version)


def probe(device: torch.device) -> str:
    """State hash (16 hex digits) after a few steps of a model that uses each important kernel."""
    graph = parse_graph(json.dumps(_PROBE_GRAPH))
    raw = np.random.Philox(key=1).random_raw(_PROBE_EXAMPLES * 128) >> np.uint64(40)
    x = (raw.astype(np.float32) / np.float32(1 << 24)).reshape(-1, 2, 8, 8)
    examples = Examples(x, np.arange(_PROBE_EXAMPLES, dtype=np.int64) % 10)
    spec = TrainSpec(
        graph=b"",
        train_cid="b" + "a" * 20,
        validation_cid="b" + "a" * 20,
        loss="cross_entropy",
        optimizer="adamw",
        learning_rate_micro=1_000,
        weight_decay_micro=10_000,
        momentum_micro=0,
        batch_size=_PROBE_EXAMPLES // _PROBE_STEPS,
        epochs=1,
        steps=_PROBE_STEPS,
        steps_per_segment=_PROBE_STEPS,
        seed=1,
        secret=bytes(32),
    )
    trainer = Trainer(spec, graph, examples, examples, device)
    for step in range(_PROBE_STEPS):
        trainer.step(step)
    trainer.cursor = _PROBE_STEPS
    return state_hash(trainer.arrays()).hex()[:16]
