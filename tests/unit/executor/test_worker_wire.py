"""Frames to and from a worker, the seccomp program, hardware samples: pure parts of the process side."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from cyxnode.executor import seccomp, wire
from cyxnode.executor.hardware import HardwareSampler
from cyxnode.protocol.errors import ExecutionFailed, LocalError, RemoteError
from cyxnode.protocol.limits import WORKER_FRAME_MAX_BYTES
from cyxnode.protocol.ports import EpochDone, SegmentDone


@pytest.mark.parametrize("message", [EpochDone(1, 2, 3, 4), SegmentDone(0, b"h" * 32, b"", b"s"), wire.Alive()])
def test_reports_survive_the_trip(message: object) -> None:
    frame = wire.encode_frame(message)
    assert wire.frame_length(frame[:4]) == len(frame) - 4
    assert wire.decode_frame(frame[4:], wire.REPORTS) == message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x93" * 1000,
        wire.encode_frame(wire.Train())[4:],
        b"\x82\xa4kind\xa9EpochDone\xa4body\x80",
        b"\x82\xa4kind\xa9EpochDone\xa4body\xa1x",
    ],
)
def test_nonsense_from_a_worker_is_a_failed_execution(payload: bytes) -> None:
    with pytest.raises(ExecutionFailed, match="nonsense"):
        wire.decode_frame(payload, wire.REPORTS)


def test_frames_are_bounded_before_they_are_read() -> None:
    with pytest.raises(ExecutionFailed):
        wire.frame_length(struct.pack(">I", WORKER_FRAME_MAX_BYTES + 1))


@pytest.mark.parametrize(
    "error",
    [LocalError("m", field="model.nodes[0]", fix="f"), RemoteError("state"), ExecutionFailed("died")],
)
def test_errors_keep_their_kind(error: LocalError | RemoteError | ExecutionFailed) -> None:
    back = wire.from_failure(wire.to_failure(error))
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_filter_has_whole_instructions_and_short_jumps() -> None:
    code = seccomp.program()
    assert len(code) % 8 == 0
    count = len(code) // 8
    for place in range(count):
        kind, yes, no, _ = struct.unpack_from("<HBBI", code, 8 * place)
        if kind & 7 == 5:
            assert place + 1 + max(yes, no) < count


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is a part of Linux")
def test_filter_lets_threads_start_and_nothing_else() -> None:
    script = """
import os, socket, threading, subprocess
from cyxnode.executor.seccomp import confine
assert confine()
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
for attempt in (os.fork, socket.socket, lambda: os.execv("/bin/true", ["true"]), lambda: subprocess.run(["true"])):
    try:
        attempt()
    except PermissionError:
        print("denied")
"""
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert outcome.stdout.split() == ["thread", "denied", "denied", "denied", "denied"], outcome.stderr


def test_hardware_is_read_and_nothing_is_invented() -> None:
    sampler = HardwareSampler()
    try:
        sample = sampler.sample()
    finally:
        sampler.close()
        sampler.close()
    assert sample.cpu_percent
    assert 0 < sample.memory_available_bytes <= sample.memory_total_bytes
    assert sample.cpu_temperature_celsius is None or sample.cpu_temperature_celsius > 0
    assert all(gpu.name for gpu in sample.gpus)
