"""Real worker processes: same bits in each, death and silence noticed, nothing left behind, walls that hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psutil
import pytest
import trio

from cyxnode.executor.pipes import WorkerPipe
from cyxnode.executor.process import ProcessRunner, open_runner
from cyxnode.executor.sandbox import Sandbox, bubblewrap, choose_sandbox, worker_command
from cyxnode.protocol.errors import ExecutionFailed, LocalError, RemoteError
from cyxnode.protocol.ports import SegmentDone, TrainEvent, TrainTask
from executor_tasks import document, node, small_task

pytestmark = pytest.mark.slow
SANDBOX = choose_sandbox("auto")
needs_bubblewrap = pytest.mark.skipif(SANDBOX != "bubblewrap", reason="NO SANDBOX HERE: bubblewrap does not run")


def descendants(pid: int | None = None) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if is_running(process)]


async def gone(processes: list[psutil.Process]) -> bool:
    with trio.move_on_after(5):
        while running(processes):  # noqa: ASYNC110
            await trio.sleep(0.02)
        return True
    return False


def worker_of(pid: int) -> psutil.Process:
    """The Python process behind bubblewrap."""
    family = [psutil.Process(pid), *descendants(pid)]
    return next(process for process in family if "python" in process.name())


class Recorder:
    def __init__(self) -> None:
        self.segments: list[SegmentDone] = []

    async def __call__(self, event: TrainEvent) -> None:
        if isinstance(event, SegmentDone):
            self.segments.append(event)


async def hashes(runner: ProcessRunner, task: TrainTask) -> list[bytes]:
    recorder = Recorder()
    async with runner.session(task) as session:
        await session.train(recorder)
    return [segment.state_hash for segment in recorder.segments]


@asynccontextmanager
async def runner_without_leaks(**options: object) -> AsyncIterator[ProcessRunner]:
    before = set(descendants())
    async with open_runner(**{"device": "cpu", "warm": 0, **options}) as runner:  # type: ignore[arg-type]
        yield runner
    assert await gone([process for process in descendants() if process not in before])


def long_task() -> TrainTask:
    """Minutes of work, unless it is interrupted."""
    return small_task(epochs=10_000, segments=128)


async def test_fresh_processes_compute_the_same_bits() -> None:
    task = small_task()
    async with runner_without_leaks(warm=1) as runner:
        first, second = await hashes(runner, task), await hashes(runner, task)
    assert first == second
    assert len(set(first)) == 7
    async with runner_without_leaks(sandbox="none") as other:
        assert other.execution_class == runner.execution_class
        assert await hashes(other, task) == first
        assert other.description["sandbox"] == "none"
    assert runner.description["sandbox"] == SANDBOX


async def test_a_warm_worker_is_kept_while_somebody_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyxnode.executor.process.WARM_IDLE_MAX_S", 0.2)
    async with runner_without_leaks() as runner:
        await runner.hold()
        assert descendants()
        task = small_task()
        await hashes(runner, task)
        with trio.fail_after(30):
            while not descendants():  # noqa: ASYNC110
                await trio.sleep(0.05)
        kept = descendants()
        await trio.sleep(0.5)
        assert running(kept), "a new one stands by, however idle"
        runner.release()
        assert await gone(kept)


async def test_whole_verification_in_one_session() -> None:
    task, recorder = small_task(), Recorder()
    async with runner_without_leaks() as runner:
        runner.prepare()
        async with runner.session(task) as session:
            done = await session.train(recorder)
        segments = recorder.segments
        async with runner.session(task) as session:
            assert await session.initial_state() == segments[0].state_hash
            replay = await session.replay(3, segments[3].state)
            assert (replay.start_hash, replay.end_hash) == (segments[3].state_hash, segments[4].state_hash)
            assert replay.losses == segments[4].losses
            compared = await session.compare(3, segments[3].state, segments[4].state)
            assert (compared.end_hash, compared.claimed_hash) == (segments[4].state_hash, segments[4].state_hash)
            assert compared.deviation_ppm == 0
            check = await session.check_result(segments[-1].state, done.weights)
            assert check.weights_match
            assert check.accuracy_micro == done.final_accuracy_micro
            with pytest.raises(RemoteError):
                await session.replay(2, segments[3].state)


async def test_invalid_tasks_come_back_with_field_and_fix() -> None:
    task = small_task()
    async with runner_without_leaks() as runner:
        async with runner.session(replace(task, train=b"junk")) as session:
            with pytest.raises(LocalError) as caught:
                await session.initial_state()
        assert caught.value.field == "data.train"
        assert caught.value.fix


async def test_killed_worker_is_noticed_at_once() -> None:
    async with runner_without_leaks() as runner, runner.session(long_task()) as session:

        async def kill(_: TrainEvent) -> None:
            victim = worker_of(session.pid)
            if running([victim]):
                victim.kill()

        started = time.monotonic()
        with pytest.raises(ExecutionFailed, match="SIGKILL"):
            await session.train(kill)
        assert time.monotonic() - started < 10


async def test_hung_worker_is_given_up() -> None:
    async with runner_without_leaks(silence_max_s=3.0) as runner, runner.session(long_task()) as session:

        async def stop(_: TrainEvent) -> None:
            worker_of(session.pid).suspend()

        with pytest.raises(ExecutionFailed, match="silent"):
            await session.train(stop)


async def test_time_is_bounded_and_cancellation_leaves_nothing() -> None:
    async with runner_without_leaks(time_max_s=2.0) as runner:
        async with runner.session(long_task()) as session:
            with pytest.raises(ExecutionFailed, match="longer than 2 s"):
                await session.train(Recorder())
        with trio.move_on_after(2):
            async with runner.session(long_task()) as session:
                await session.train(Recorder())


async def test_memory_is_bounded() -> None:
    wide = document(
        [
            node("flat", "Flatten"),
            node("up", "Linear", "flat", in_features=16, out_features=16384),
            node("down", "Linear", "up", in_features=16384, out_features=2048),
            node("head", "Linear", "down", in_features=2048, out_features=3),
        ],
        [1, 4, 4],
    )
    async with (
        runner_without_leaks(memory_bytes=1200 << 20) as runner,
        runner.session(small_task(graph=wide)) as session,
    ):
        with pytest.raises(ExecutionFailed, match="out of memory"):
            await session.train(Recorder())


PARENT = """
import sys, trio
sys.path.insert(0, {tests!r})
from executor_tasks import small_task
from cyxnode.executor.process import open_runner

async def emit(event):
    print("training", flush=True)

async def main():
    async with open_runner(device="cpu", warm=1, sandbox={sandbox!r}) as runner:
        async with runner.session(small_task(epochs=10_000, segments=128)) as session:
            await session.train(emit)

trio.run(main)
"""


@pytest.mark.parametrize("sandbox", ["none", pytest.param("bubblewrap", marks=needs_bubblewrap)])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_workers_die_with_their_parent(sandbox: Sandbox, number: signal.Signals) -> None:
    script = PARENT.format(tests=os.path.dirname(os.path.dirname(__file__)), sandbox=sandbox)
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert parent.stdout is not None
    with parent, trio.fail_after(60):
        line = await trio.to_thread.run_sync(parent.stdout.readline, abandon_on_cancel=True)
        assert line == b"training\n"
        workers = descendants(parent.pid)
        assert running(workers)
        parent.stdout.close()
        parent.send_signal(number)
        assert await gone([*workers, psutil.Process(parent.pid)])


@needs_bubblewrap
@pytest.mark.parametrize("number", [None, signal.SIGKILL])
async def test_nothing_is_left_of_a_start_that_was_broken_off(number: signal.Signals | None) -> None:
    """Each moment of bubblewrap's own start is hit, by closing the pipe or by killing a parent."""
    mark = f"BROKEN_OFF_{os.getpid()}"
    command, environment = worker_command("bubblewrap", ["cpu", "0"], {mark: "1"}, gpu=False)
    for milliseconds in [step / 4 for step in range(40)] * 3:
        if number is None:
            async with WorkerPipe(command, environment):
                await trio.sleep(milliseconds / 1000)
        else:
            start = f"subprocess.Popen({command!r}, stdin=subprocess.PIPE)"
            script = f"import subprocess, time; kept = {start}; print(); time.sleep(9)"
            with subprocess.Popen([sys.executable, "-uSc", script], stdout=subprocess.PIPE) as parent:  # noqa: ASYNC220
                assert parent.stdout is not None
                await trio.to_thread.run_sync(parent.stdout.readline)
                await trio.sleep(milliseconds / 1000)
                parent.kill()
    assert await gone([process for process in psutil.process_iter() if mark in command_line(process)])


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


async def test_parent_of_workers_does_not_load_torch() -> None:
    script = "import sys, cyxnode.executor.process; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert (await trio.run_process([sys.executable, "-c", script], check=False)).returncode == 0


def inside(code: str) -> str:
    """What a Python program prints behind the walls."""
    command = bubblewrap([sys.executable, "-s", "-B", "-c", code], {"PYTHONPATH": "/app"}, gpu=False)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


@needs_bubblewrap
def test_walls_hide_files_and_keep_out_writes(tmp_path: os.PathLike[str]) -> None:
    secret = os.path.join(tmp_path, "secret")
    home = os.path.expanduser("~")
    with open(secret, "w") as file:
        file.write("secret")
    code = f"""
import os, sys
for path in ("/etc/passwd", "/etc/shadow", {secret!r}, "{home}/.bashrc", "{home}/.ssh", "{os.getcwd()}/README.md"):
    assert not os.path.exists(path), path
for path in ("/usr/x", "/app/cyxnode/executor/x", sys.prefix + "/x", "/x"):
    try:
        open(path, "w")
    except OSError:
        continue
    sys.exit(path)
assert sorted(os.listdir("/app/cyxnode")) == ["__init__.py", "executor", "protocol"]
assert os.getuid() == 65534
assert len([name for name in os.listdir("/proc") if name.isdigit()]) <= 2
print(sorted(os.environ))
"""
    assert "SECRET" not in inside(code)


@needs_bubblewrap
def test_walls_keep_out_the_network() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2)
except OSError as error:
    print("refused")
print([name for _, name in socket.if_nameindex()])
"""
        assert inside(code).split("\n") == ["refused", "['lo']"]


async def test_demands_that_cannot_be_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LocalError, match="sandbox"):
        async with open_runner(sandbox="bubblewrap"):
            pass
