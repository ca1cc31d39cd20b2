"""What a machine does right now: processor, memory, network, graphics cards (DESIGN 3, FEATURES 17-20).

What cannot be read is None or an empty tuple, never a guess. A sample takes about a millisecond and does not block on
anything; rates are left to the reader, who has two samples. Take one every HARDWARE_SAMPLE_INTERVAL_MS.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

T = TypeVar("T")
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One graphics card."""

    name: str
    utilisation_percent: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: int | None
    power_milliwatt: int | None


@dataclass(frozen=True, slots=True)
class HardwareSample:
    """One reading of the machine."""

    cpu_percent: tuple[float, ...]
    """Per core, since the previous sample."""
    cpu_frequency_mhz: int | None
    cpu_temperature_celsius: float | None
    load_average: float | None
    """Of the last minute."""
    memory_total_bytes: int
    memory_available_bytes: int
    swap_total_bytes: int | None
    swap_used_bytes: int | None
    network_sent_bytes: int | None
    """Since boot, all interfaces."""
    network_received_bytes: int | None
    connections: int | None
    """TCP connections of this process."""
    gpus: tuple[GpuSample, ...]


class HardwareSampler:
    """Takes samples. Opens NVML once, if there is one; `close` gives it back."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        psutil.cpu_percent(percpu=True)  # the first reading has nothing to compare with
        self._nvml = _open_nvml()

    def sample(self) -> HardwareSample:
        """Read everything that can be read."""
        memory = psutil.virtual_memory()
        frequency, swap = _readable(psutil.cpu_freq), _readable(psutil.swap_memory)
        network, load = _readable(psutil.net_io_counters), _readable(psutil.getloadavg)
        connections = _readable(lambda: self._process.net_connections(kind="tcp"))
        return HardwareSample(
            cpu_percent=tuple(psutil.cpu_percent(percpu=True)),
            cpu_frequency_mhz=round(frequency.current) if frequency and frequency.current else None,
            cpu_temperature_celsius=_temperature(),
            load_average=load[0] if load else None,
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            swap_total_bytes=swap.total if swap else None,
            swap_used_bytes=swap.used if swap else None,
            network_sent_bytes=network.bytes_sent if network else None,
            network_received_bytes=network.bytes_recv if network else None,
            connections=len(connections) if connections is not None else None,
            gpus=self._gpus(),
        )

    def _gpus(self) -> tuple[GpuSample, ...]:
        nvml = self._nvml
        if nvml is None:
            return ()
        count = self._read(nvml.nvmlDeviceGetCount) or 0
        handles = [self._read(nvml.nvmlDeviceGetHandleByIndex, index) for index in range(count)]
        return tuple(self._gpu(handle) for handle in handles if handle is not None)

    def gpu_utilization_ppm(self) -> int | None:
        """Of the first card, on which torch computes; None where there is none or it does not tell."""
        if self._nvml is None:
            return None
        handle = self._read(self._nvml.nvmlDeviceGetHandleByIndex, 0)
        use = None if handle is None else self._read(self._nvml.nvmlDeviceGetUtilizationRates, handle)
        return None if use is None else min(100, int(use.gpu)) * 10_000

    def _gpu(self, handle: Any) -> GpuSample:
        nvml = self._nvml
        name = self._read(nvml.nvmlDeviceGetName, handle)
        use, memory = (
            self._read(nvml.nvmlDeviceGetUtilizationRates, handle),
            self._read(nvml.nvmlDeviceGetMemoryInfo, handle),
        )
        return GpuSample(
            name=name.decode() if isinstance(name, bytes) else name or "unknown",
            utilisation_percent=use.gpu if use else None,
            memory_used_bytes=memory.used if memory else None,
            memory_total_bytes=memory.total if memory else None,
            temperature_celsius=self._read(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_milliwatt=self._read(nvml.nvmlDeviceGetPowerUsage, handle),
        )

    def _read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A value of NVML, or None: cards differ in what they tell."""
        with suppress(self._nvml.NVMLError):
            return function(*arguments)
        return None

    def close(self) -> None:
        """Give NVML back. Idempotent."""
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
            self._nvml = None


def _open_nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _readable(function: Callable[[], T]) -> T | None:
    """The function's value, or None where the system does not offer it."""
    try:
        return function()
    except (OSError, NotImplementedError, RuntimeError, AttributeError, psutil.Error):
        return None


def _temperature() -> float | None:
    sensors = _readable(lambda: psutil.sensors_temperatures())
    for name in _PROCESSOR_SENSORS:
        for entry in (sensors or {}).get(name, []):
            return float(entry.current)
    return None
