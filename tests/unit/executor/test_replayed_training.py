"""Determinism in one process: replayed segments equal the training, and every kind of cheating changes a hash."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from cyxnode.executor.determinism import pin_torch, seed_torch
from cyxnode.executor.graph import parse_graph
from cyxnode.executor.inprocess import InProcessRunner
from cyxnode.executor.optimizer import make_optimizer
from cyxnode.executor.order import permutation, step_seed
from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.executor.state import deviation_ppm
from cyxnode.executor.task import check_task
from cyxnode.executor.tensors import read_tensors, write_tensors
from cyxnode.executor.training import initial_state, make_trainer
from cyxnode.protocol.errors import ExecutionFailed, LocalError, RemoteError
from cyxnode.protocol.limits import DEVIATION_MAX_PPM, FRAUD_DEVIATION_PPM
from cyxnode.protocol.ports import (
    BatchDone,
    EpochDone,
    Runner,
    SegmentDone,
    TrainDone,
    TrainEvent,
    TrainTask,
)
from cyxnode.protocol.spec import TrainSpec
from executor_tasks import document, node, small_document, small_task

CPU = torch.device("cpu")


class Recording:
    """A training with all that it emitted."""

    def __init__(self) -> None:
        self.events: list[TrainEvent] = []

    async def emit(self, event: TrainEvent) -> None:
        self.events.append(event)

    @property
    def segments(self) -> list[SegmentDone]:
        return [event for event in self.events if isinstance(event, SegmentDone)]

    @property
    def epochs(self) -> list[EpochDone]:
        return [event for event in self.events if isinstance(event, EpochDone)]

    @property
    def batches(self) -> list[BatchDone]:
        return [event for event in self.events if isinstance(event, BatchDone)]


async def train(runner: Runner, task: TrainTask) -> tuple[TrainDone, Recording]:
    recording = Recording()
    async with runner.session(task) as session:
        done = await session.train(recording.emit)
    return done, recording


@pytest.fixture(scope="module", params=["torch", "simulated"])
def runner(request: pytest.FixtureRequest) -> Runner:
    return InProcessRunner() if request.param == "torch" else SimulatedRunner(0.0)


async def test_each_segment_replays_to_the_same_bits(runner: Runner) -> None:
    task = small_task()
    done, recording = await train(runner, task)
    segments = recording.segments
    assert [segment.index for segment in segments] == list(range(task.spec.segments + 1))
    assert segments[0].losses == b""
    assert len(b"".join(segment.losses for segment in segments)) == 4 * task.spec.steps
    async with runner.session(task) as session:
        assert await session.initial_state() == segments[0].state_hash
        for index in reversed(range(task.spec.segments)):
            replay = await session.replay(index, segments[index].state)
            assert replay.start_hash == segments[index].state_hash
            assert replay.end_hash == segments[index + 1].state_hash
            assert replay.losses == segments[index + 1].losses
        check = await session.check_result(segments[-1].state, done.weights)
    assert check.state_hash == segments[-1].state_hash
    assert check.weights_match
    assert (check.loss_micro, check.accuracy_micro) == (done.final_loss_micro, done.final_accuracy_micro)


async def test_metrics_have_their_places(runner: Runner) -> None:
    done, recording = await train(runner, small_task())
    assert [epoch.epoch for epoch in recording.epochs] == [0, 1, 2]
    assert recording.batches
    assert recording.epochs[-1].epoch_loss_micro < recording.epochs[0].epoch_loss_micro
    assert recording.epochs[-1].validation_loss_micro == done.final_loss_micro
    best = min(recording.epochs, key=lambda epoch: (-epoch.validation_accuracy_micro, epoch.validation_loss_micro))
    assert done.best_epoch == best.epoch
    assert all(0 <= batch.batch_accuracy_micro <= 1_000_000 for batch in recording.batches)
    assert recording.batches[0].learning_rate_micro == 5_000


async def test_seed_and_hyper_parameters_decide_the_bits(runner: Runner) -> None:
    _, first = await train(runner, small_task())
    _, again = await train(runner, small_task())
    _, other = await train(runner, small_task(seed=12))
    assert [s.state_hash for s in first.segments] == [s.state_hash for s in again.segments]
    assert [s.state for s in first.segments] == [s.state for s in again.segments]
    assert not {s.state_hash for s in first.segments} & {s.state_hash for s in other.segments}


async def test_flipped_bit_in_a_state_is_seen(runner: Runner) -> None:
    task = small_task()
    _, recording = await train(runner, task)
    state = bytearray(recording.segments[2].state)
    state[-1] ^= 1
    async with runner.session(task) as session:
        replay = await session.replay(2, bytes(state))
    assert replay.start_hash != recording.segments[2].state_hash
    assert replay.end_hash != recording.segments[3].state_hash


async def test_deviation_tells_a_slip_from_a_lie(runner: Runner) -> None:
    """Equal bits, one flipped low bit, and a segment that was not computed at all."""
    task = small_task()
    _, recording = await train(runner, task)
    segments = recording.segments
    honest = segments[3].state
    slipped = bytearray(honest)
    slipped[-4 if isinstance(runner, InProcessRunner) else -1] ^= 1
    async with runner.session(task) as session:
        equal = await session.compare(2, segments[2].state, honest)
        slip = await session.compare(2, segments[2].state, bytes(slipped))
        lazy = with_cursor_of(segments[3].state, segments[2].state)
        lie = await session.compare(2, segments[2].state, lazy)
    assert (equal.end_hash, equal.claimed_hash, equal.deviation_ppm) == (
        segments[3].state_hash, segments[3].state_hash, 0,
    )  # fmt: skip
    assert slip.claimed_hash != slip.end_hash == segments[3].state_hash
    assert slip.deviation_ppm <= FRAUD_DEVIATION_PPM < lie.deviation_ppm


def with_cursor_of(later: bytes, earlier: bytes) -> bytes:
    """The earlier state, passed off as the later one."""
    if earlier.startswith(b"cyxsim"):
        return later[:16] + earlier[16:]
    tensors = {name: array.copy() for name, array in read_tensors(earlier).items()}
    tensors["cursor.step"] = read_tensors(later)["cursor.step"].copy()
    return write_tensors(tensors)


async def test_a_claimed_state_of_another_model_or_step_is_refused(runner: Runner) -> None:
    task = small_task()
    _, recording = await train(runner, task)
    segments = recording.segments
    for claimed in (segments[4].state, b"nothing of the kind"):
        async with runner.session(task) as session:
            with pytest.raises(RemoteError):
                await session.compare(2, segments[2].state, claimed)


@pytest.mark.parametrize(
    ("replayed", "claimed", "expected"),
    [
        ([1.0, 1.0], [1.0, 1.0], 0),
        ([1.0, 1.0], [1.0, 1.001], 707),
        ([1.0, 1.0], [0.0, 0.0], 1_000_000),
        ([0.0, 0.0], [1e-30, 0.0], DEVIATION_MAX_PPM),  # the segment changes nothing
        ([1.0, 1.0], [float("nan"), 1.0], DEVIATION_MAX_PPM),
        ([1.0, 1.0], [1e30, 1.0], DEVIATION_MAX_PPM),
    ],
)
def test_deviation_is_relative_to_the_update(replayed: list[float], claimed: list[float], expected: int) -> None:
    names = ("model.w", "cursor.step")
    start, end, theirs = (
        dict(zip(names, (np.array(values, np.float32), np.array([step], np.int64)), strict=True))
        for values, step in (([0.0, 0.0], 0), (replayed, 5), (claimed, 5))
    )
    assert deviation_ppm(start, end, theirs) == expected


async def test_state_of_another_step_is_refused(runner: Runner) -> None:
    task = small_task()
    _, recording = await train(runner, task)
    async with runner.session(task) as session:
        for state in (recording.segments[1].state, b"", b"\0" * 48, b"junk" * 1000):
            with pytest.raises(RemoteError):
                await session.replay(2, state)
        with pytest.raises(RemoteError):
            await session.check_result(recording.segments[2].state, b"")
        with pytest.raises(ExecutionFailed):
            await session.replay(6, recording.segments[6].state)


async def test_other_weights_do_not_match(runner: Runner) -> None:
    task = small_task()
    done, recording = await train(runner, task)
    flipped = done.weights[:-1] + bytes([done.weights[-1] ^ 1])
    async with runner.session(task) as session:
        for weights in (flipped, b"", done.weights + b"\0", recording.segments[-1].state):
            assert not (await session.check_result(recording.segments[-1].state, weights)).weights_match


def test_skipped_step_changes_every_later_hash() -> None:
    checked = check_task(small_task())
    hashes = []
    for skipped in (None, 2):
        trainer = make_trainer(checked, CPU)
        for step in range(6):
            if step != skipped:
                trainer.step(step)
            trainer.cursor = step + 1
        hashes.append(initial_state(trainer))
    assert hashes[0] != hashes[1]


@pytest.fixture(scope="module")
def torch_runner() -> InProcessRunner:
    return InProcessRunner()


HOSTILE_STATES = ["renamed", "missing", "extra", "shape", "type"]


@pytest.mark.parametrize("kind", HOSTILE_STATES)
async def test_hostile_states_are_the_peers_fault(torch_runner: InProcessRunner, kind: str) -> None:
    task = small_task()
    _, recording = await train(torch_runner, task)
    tensors: dict[str, Any] = dict(read_tensors(recording.segments[1].state))
    name = "model.head.bias"
    match kind:
        case "renamed":
            tensors["model.head.bias2"] = tensors.pop(name)
        case "missing":
            del tensors[name]
        case "extra":
            tensors["model.extra"] = tensors[name]
        case "shape":
            tensors[name] = np.zeros((3, 1), np.float32)
        case "type":
            tensors[name] = np.zeros(3, np.int64)
    async with torch_runner.session(task) as session:
        with pytest.raises(RemoteError, match="does not belong"):
            await session.replay(1, write_tensors(tensors))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum_micro": 900_000},
        {"steps_per_segment": 24},
        {"steps_per_segment": 1},
        {"steps_per_segment": 7},
    ],
)
async def test_replay_with_other_optimizers_and_segments(
    torch_runner: InProcessRunner, changes: dict[str, Any]
) -> None:
    task = small_task(**changes)
    _, recording = await train(torch_runner, task)
    segments = recording.segments
    async with torch_runner.session(task) as session:
        for index in {0, task.spec.segments - 1}:
            replay = await session.replay(index, segments[index].state)
            assert (replay.start_hash, replay.end_hash, replay.losses) == (
                segments[index].state_hash,
                segments[index + 1].state_hash,
                segments[index + 1].losses,
            )


async def test_transformer_and_mse_train(torch_runner: InProcessRunner) -> None:
    graph = document(
        [
            node("rows", "Reshape", shape=[4, 4]),
            node("place", "PositionEmbedding", "rows", length=4, embed_dim=4),
            node("block", "TransformerBlock", "place", embed_dim=4, num_heads=2, feedforward=8, dropout=0.1),
            node("flat", "Flatten", "block"),
            node("head", "Linear", "flat", in_features=16, out_features=3),
        ],
        [1, 4, 4],
    )
    task = small_task(graph=graph, loss="mse")
    parts = [read_tensors(task.train), read_tensors(task.validation)]
    blobs = [write_tensors({"x": p["x"], "y": np.eye(3, dtype=np.float32)[p["y"]]}) for p in parts]
    done, recording = await train(torch_runner, TrainTask(task.spec, *blobs))
    assert done.final_accuracy_micro == 0
    assert recording.epochs[-1].epoch_loss_micro < recording.epochs[0].epoch_loss_micro


async def test_divergence_is_reported_not_signed(torch_runner: InProcessRunner) -> None:
    graph = document(
        [node("flat", "Flatten"), node("head", "Linear", "flat", in_features=16, out_features=3)], [1, 4, 4]
    )
    task = small_task(
        graph=graph, optimizer="sgd", learning_rate_micro=10_000_000, weight_decay_micro=1_000_000, epochs=40
    )
    with pytest.raises(ExecutionFailed, match="NaN or infinit"):
        await train(torch_runner, task)


async def test_invalid_task_is_a_local_error(torch_runner: InProcessRunner) -> None:
    task = small_task()
    async with torch_runner.session(TrainTask(task.spec, b"junk", task.validation)) as session:
        with pytest.raises(LocalError, match=r"data\.train"):
            await session.initial_state()


@pytest.mark.parametrize(("kind", "momentum"), [("adamw", 0.0), ("sgd", 0.0), ("sgd", 0.9)])
def test_our_optimizers_equal_torchs_bit_by_bit(kind: str, momentum: float) -> None:
    pin_torch()
    spec: TrainSpec = small_task(optimizer=kind, momentum_micro=int(momentum * 1_000_000)).spec
    seed_torch(3, CPU)
    start = [torch.randn(7, 5), torch.randn(4)]
    ours = {str(index): value.clone() for index, value in enumerate(start)}
    theirs = [torch.nn.Parameter(value.clone()) for value in start]
    reference: torch.optim.Optimizer
    if kind == "adamw":
        reference = torch.optim.AdamW(theirs, lr=0.005, weight_decay=0.01, fused=True)
    else:
        reference = torch.optim.SGD(theirs, lr=0.005, weight_decay=0.01, momentum=momentum, fused=True)
    optimizer = make_optimizer(spec, ours)
    for step in range(5):
        gradients = [torch.randn_like(value) for value in start]
        optimizer.update([gradient.clone() for gradient in gradients], first=step == 0)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        reference.step()
    for mine, parameter in zip(ours.values(), theirs, strict=True):
        assert torch.equal(mine, parameter.detach())


def test_order_is_frozen() -> None:
    """A changed order would make every old job unverifiable."""
    assert permutation(7, 0, 8).tolist() == permutation(7, 0, 8).tolist()
    assert sorted(permutation(7, 1, 1000).tolist()) == list(range(1000))
    assert permutation(7, 0, 100).tolist() != permutation(7, 1, 100).tolist()
    assert permutation(7, 0, 8).tolist() == FROZEN_ORDER
    assert step_seed(7, 3) == FROZEN_STEP_SEED


FROZEN_ORDER = [4, 2, 7, 3, 5, 0, 6, 1]
FROZEN_STEP_SEED = 1780538903371500900


def test_graph_without_use_of_a_parameter_cannot_exist() -> None:
    """Each node leads to the output, so each parameter gets a gradient."""
    idle = small_document()
    idle["nodes"].append(node("idle", "Linear", "flat", in_features=64, out_features=3))
    with pytest.raises(LocalError, match="leads nowhere"):
        parse_graph(json.dumps(idle))
