"""Workers that are paid for what they did not do, or try to be."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import ClassVar

import trio
from blake3 import blake3

from ...executor.simulated import _Model
from ...protocol.chain import Verdict
from ...protocol.limits import MICRO
from ...protocol.ports import (
    Comparison,
    Replay,
    ResultCheck,
    Runner,
    RunnerSession,
    SegmentDone,
    TrainDone,
    TrainEvent,
    TrainTask,
)
from ...protocol.settlement import NOBODY
from ...protocol.spec import TrainSpec, encode_spec, spec_hash
from ...protocol.units import NodeId
from ...scheduler.node import Ports
from ...scheduler.wire import CLAIM, SPEC, START
from ..plan import SECONDS_PER_STEP
from ..world import Peer
from .cheat import Cheat, Ending, Fate, seen_by
from .meddling import DressedRunner, Emit, Meddler, Session

RETURN_S = 45.0
"""How long a vanished worker stays away: longer than it takes to be dead for all."""


class WorkerCheat(Cheat):
    """A try is a job that it trained: caught when it FAILED or was FRAUD, paid when it is OK."""

    cheap = True

    def dress(self, peer: Peer, ports: Ports, runner: Runner) -> tuple[Ports, Runner]:
        """The runner is dressed with `session`."""
        ports, runner = super().dress(peer, ports, runner)
        return ports, DressedRunner(runner, self.session)

    def session(self, inner: RunnerSession, task: TrainTask) -> RunnerSession:
        """The session that the peer's node gets."""
        raise NotImplementedError

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By the verdict on chain."""
        return worker_fate(self.me, key, ending)


def worker_fate(me: NodeId, key: bytes, ending: Ending) -> Fate:
    """What became of a job that `me` was to do."""
    account = ending.settled(key)
    if account is None or account.worker != me:
        return Fate.NEITHER
    fates = {Verdict.OK: Fate.PAID, Verdict.FAILED: Fate.CAUGHT, Verdict.FRAUD: Fate.CAUGHT}
    return fates.get(account.verdict or Verdict.UNSOLD, Fate.NEITHER)


def absent_fate(me: NodeId, key: bytes, ending: Ending) -> Fate:
    """What became of a job that `me` was to do and let lie: another node may have taken over, and been settled with."""
    account = ending.settled(key)
    if account is not None and account.worker not in (me, NOBODY):
        return Fate.CAUGHT
    return worker_fate(me, key, ending)


class PartialWork(WorkerCheat):
    """Leaves out some segments, and goes on from made-up states: each leaf that was not computed is a bad one."""

    def left_out(self, segments: int) -> frozenset[int]:
        """The segments that are not computed."""
        raise NotImplementedError

    def session(self, inner: RunnerSession, task: TrainTask) -> RunnerSession:
        """Trains in parts; replays honestly, since a seat is paid for it."""
        spec, cheat = task.spec, self

        @dataclass
        class Partial(Session):
            async def train(self, emit: Emit) -> TrainDone:
                skipped = cheat.left_out(spec.segments)
                odds = seen_by(cheat.world.plan.k, len(skipped), spec.segments)
                cheat.tried(spec_hash(encode_spec(spec)), odds)
                return await _train_without(skipped, spec, emit)

        return Partial(inner, task)


async def _train_without(skipped: frozenset[int], spec: TrainSpec, emit: Emit) -> TrainDone:
    model, trained_s = _Model(spec), 0.0
    await emit(SegmentDone(0, model.hash(), b"", model.blob()))
    for segment in range(spec.segments):
        steps = spec.segment_steps(segment)
        if segment in skipped:
            made_up = made_up_digest(model.blob())
            model.restore(model.blob()[:8] + struct.pack("<Q", steps.stop) + made_up, cursor=steps.stop)
            losses = [0.5] * len(steps)
        else:
            await trio.sleep(SECONDS_PER_STEP * len(steps))
            trained_s += SECONDS_PER_STEP * len(steps)
            losses = [model.step() for _ in steps]
        bits = struct.pack(f"<{len(losses)}f", *losses)
        await emit(SegmentDone(segment + 1, model.hash(), bits, model.blob()))
    loss, accuracy = model.metrics()
    return TrainDone(model.weights(), loss, accuracy, 0, round(1000 * trained_s))


def made_up_digest(state: bytes) -> bytes:
    """A digest that looks like a computed one."""
    return blake3(b"made up" + state).digest()


class LazyWorker(PartialWork):
    """Computes every second segment only."""

    name: ClassVar[str] = "lazy"

    def left_out(self, segments: int) -> frozenset[int]:
        """Half of them, drawn anew for each job."""
        return frozenset(self.rng.sample(range(segments), segments // 2))


class ForgedLeaf(PartialWork):
    """Makes up the end of one segment and trains on from there: the poisoned step that sampling rarely sees."""

    name: ClassVar[str] = "forged-leaf"

    def left_out(self, segments: int) -> frozenset[int]:
        """One of them."""
        return frozenset([self.rng.randrange(segments)])


class WrongWeights(WorkerCheat):
    """Trains honestly, delivers other weights."""

    name: ClassVar[str] = "wrong-weights"

    def session(self, inner: RunnerSession, task: TrainTask) -> RunnerSession:
        """The weights of the result are changed."""
        cheat = self

        @dataclass
        class Swapping(Session):
            async def train(self, emit: Emit) -> TrainDone:
                done = await self.inner.train(emit)
                cheat.tried(spec_hash(encode_spec(task.spec)), 1.0)
                return replace(done, weights=flipped(done.weights))

        return Swapping(inner, task)


def flipped(data: bytes) -> bytes:
    """The same bytes but for the last bit."""
    return data[:-1] + bytes([data[-1] ^ 1])


class FakeHardware(WorkerCheat):
    """Claims the class of its neighbours on a device that computes other bits: as a worker and as a judge."""

    name: ClassVar[str] = "fake-hardware"

    def session(self, inner: RunnerSession, task: TrainTask) -> RunnerSession:
        """Every state after the first differs by one bit from what the class computes."""
        cheat, key = self, spec_hash(encode_spec(task.spec))

        @dataclass
        class OtherBits(Session):
            async def train(self, emit: Emit) -> TrainDone:
                cheat.tried(key, 1.0)

                async def flip(event: TrainEvent) -> None:
                    if isinstance(event, SegmentDone) and event.index:
                        state = flipped(event.state)
                        event = replace(event, state=state, state_hash=blake3(state).digest())
                    await emit(event)

                done = await self.inner.train(flip)
                return replace(done, weights=flipped(done.weights))

            async def replay(self, segment: int, state: bytes) -> Replay:
                cheat.tried(b"judged" + key)
                honest = await self.inner.replay(segment, state)
                return replace(honest, end_hash=blake3(honest.end_hash).digest())

            async def compare(self, segment: int, state: bytes, claimed: bytes) -> Comparison:
                honest = await self.inner.compare(segment, state, claimed)
                return replace(honest, end_hash=blake3(honest.end_hash).digest(), deviation_ppm=MICRO)

            async def check_result(self, final_state: bytes, weights: bytes) -> ResultCheck:
                honest = await self.inner.check_result(final_state, weights)
                return replace(honest, loss_micro=honest.loss_micro + 1)

        return OtherBits(inner, task)

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """As a worker, by the verdict; as a judge, by whose word held."""
        if not key.startswith(b"judged"):
            return super().fate(key, ending)
        account = ending.settled(key.removeprefix(b"judged"))
        if account is None or self.me not in account.committee:
            return Fate.NEITHER
        if account.verdict is Verdict.OK:
            counted = account.fee_mask >> account.committee.index(self.me) & 1
            return Fate.PAID if counted else Fate.CAUGHT
        blamed = next((peer for peer in self.world.peers if peer.node_id == account.worker), None)
        slandered = account.verdict in (Verdict.FAILED, Verdict.FRAUD) and blamed is not None and not blamed.cheat
        return Fate.PAID if slandered else Fate.NEITHER


class VanishingWorker(WorkerCheat):
    """Dies without a word somewhere in the middle of each job, and comes back when all have forgotten it."""

    name: ClassVar[str] = "vanishing-worker"

    def session(self, inner: RunnerSession, task: TrainTask) -> RunnerSession:
        """Kills its own node at a share of the segments that is drawn anew for each job."""
        cheat, at = self, self.rng.random()

        @dataclass
        class Dying(Session):
            async def train(self, emit: Emit) -> TrainDone:
                cheat.tried(spec_hash(encode_spec(task.spec)), 1.0)

                async def perhaps_die(event: TrainEvent) -> None:
                    await emit(event)
                    if isinstance(event, SegmentDone) and event.index >= at * task.spec.segments:
                        cheat.vanish()
                        await trio.sleep_forever()

                return await self.inner.train(perhaps_die)

        return Dying(inner, task)

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By the verdict on chain."""
        return absent_fate(self.me, key, ending)

    def vanish(self) -> None:
        """Power off, and on again after RETURN_S."""
        self.world.kill(self.peer)
        self.world.nursery.start_soon(self._return)

    async def _return(self) -> None:
        await trio.sleep(RETURN_S)
        if self.peer.node is None:
            await self.world.start(self.peer)


class AbsentWinner(Meddler):
    """Bids low, wins, and never starts."""

    name: ClassVar[str] = "absent-winner"
    cheap = True

    async def sends(self, node: NodeId, protocol: str, payload: bytes) -> bytes | None:
        """Nothing of what a winner says; as a member it behaves."""
        if protocol not in (START, SPEC, CLAIM):
            return payload
        job = self.open(payload).message.job
        room = self.peer.node.market.rooms.get(job) if self.peer.node is not None else None
        if protocol == SPEC and room is not None and room.work is None:
            return payload
        self.tried(job, 1.0)
        return None

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By the verdict on chain."""
        return absent_fate(self.me, key, ending)
