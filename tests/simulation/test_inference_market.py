"""Prompts in, tokens out, in virtual time: metered, checked, paid; and what is not paid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from cyxnode.executor.simulated_inference import SimulatedModels
from cyxnode.protocol.errors import ExecutionFailed, LocalError
from cyxnode.protocol.inference import Generated
from cyxnode.protocol.limits import CLASS_WAIT_MS, MICRO
from cyxnode.protocol.messages import token_units
from cyxnode.protocol.receipt import verify_receipt
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.chronicle import read_chronicles
from cyxnode.scheduler.job import JobPhase
from cyxnode.simulation.cheaters import CHEATS
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.run import run_plan
from inference_world import asked, manifest, market, question, serving
from market_world import World, open_world


async def test_tokens_are_streamed_checked_metered_and_paid(autojump_clock: object) -> None:
    async with market() as (_, requester, heard):
        before = (await requester.chain.balance(requester.wire.me)).micro_cyx
        result = await asked(requester, question())
        assert result.phase is JobPhase.SETTLED, result
        assert result.answers is not None and result.receipt is not None
        (answer,) = result.answers.answers
        assert heard.text() == answer.text != ""
        metrics, paid = result.receipt["metrics"], result.receipt["paid"]
        assert metrics["tokens_generated"] == answer.generated_tokens > 0
        assert metrics["prompt_tokens"] == answer.prompt_tokens == len("What is on the boat?")
        assert metrics["gpu_utilization_ppm"] is None, "there is no GPU here"
        assert metrics["units"] == token_units(answer.prompt_tokens, answer.generated_tokens) < metrics["units_total"]
        assert paid["amount"] == result.receipt["price_micro_cyx"] * metrics["units"] // metrics["units_total"]
        assert verify_receipt(result.receipt)
        left = (await requester.chain.balance(requester.wire.me)).micro_cyx
        assert before - left - paid["amount"] in range(-2, 1), "all but the metered tokens comes back"


async def test_a_batch_is_answered_in_order_each_prompt_metered(autojump_clock: object) -> None:
    prompts = tuple(f"question {number}" for number in range(7))
    async with market() as (_, requester, heard):
        result = await asked(requester, question(*prompts, seed=5, temperature_micro=MICRO))
        assert result.answers is not None and result.receipt is not None
        answers = result.answers.answers
        assert [heard.text(index) for index in range(7)] == [answer.text for answer in answers]
        assert result.receipt["metrics"]["tokens_generated"] == sum(answer.generated_tokens for answer in answers)
        assert len({answer.text for answer in answers}) == 7
        ends = [piece.prompt_index for piece in heard.pieces if piece.last]
        assert ends == list(range(7)), "each answer says once where it ends"


async def test_a_batch_of_the_most_prompts_fits(autojump_clock: object) -> None:
    async with market() as (_, requester, _):
        result = await asked(requester, question(*["?"] * 64, num_predict=8))
        assert result.answers is not None and len(result.answers.answers) == 64


async def test_the_receipt_of_other_tokens_does_not_verify(autojump_clock: object) -> None:
    async with market() as (_, requester, _):
        receipt = (await asked(requester, question())).receipt
        assert receipt is not None
        forged = {**receipt, "metrics": {**receipt["metrics"], "tokens_generated": 1}}
        with pytest.raises(LocalError, match="metrics"):
            verify_receipt(forged)


async def test_a_model_that_nobody_serves_is_waited_for_and_then_unsold(autojump_clock: object) -> None:
    async with market() as (_, requester, _):
        began = trio.current_time()
        result = await asked(requester, question(model="another"))
        assert result.phase is JobPhase.UNSOLD
        assert trio.current_time() - began == pytest.approx(CLASS_WAIT_MS / 1000, abs=2)
        assert "5 do not serve the model: see what is served: cyxnode market models" in result.reason
        assert "nothing was funded" in result.reason


async def test_of_two_models_with_one_name_that_of_the_most_nodes_is_meant(autojump_clock: object) -> None:
    async with open_world() as world:
        for number in range(7):
            other = manifest(digest=b"o" * 32) if number < 2 else manifest()
            await world.add_node(f"node{number}", models=serving(other))
        requester = await world.add_requester()
        result = await asked(requester, question())
        assert result.phase is JobPhase.SETTLED, result
        assert result.receipt is not None
        wrong = {world.key(f"node{number}").node_id for number in range(2)}
        assert not wrong & set(world_members(world)), "they cannot check what they do not serve"


def world_members(world: World) -> set[NodeId]:
    rooms = [room for node in world.nodes.values() for room in node.market.rooms.by_job.values()]
    return {member for room in rooms if room.auction.terms is not None for member in room.auction.terms.committee}


async def test_a_prompt_that_cannot_fit_is_refused_before_anything_is_funded(autojump_clock: object) -> None:
    files = manifest(
        kind="torch", tokenizer="bytes", quantisation="float32", graph_cid="b" + "a" * 58, weights_cid="b" + "a" * 58
    )
    async with market(lambda: serving(files)) as (_, requester, _):
        with pytest.raises(LocalError, match="reads fewer than 512") as caught:
            await asked(requester, question("fits", "x" * 512))
        assert caught.value.field == "prompts[1]"
        assert not list(requester.journal.items(b"open/"))
        (told,) = read_chronicles(requester.journal, 2)
        assert told.phase is JobPhase.CANCELLED and "prompts[1]" in told.cause


@pytest.mark.parametrize("kind", [name for name, cheat in CHEATS.items() if cheat.infers])
def test_who_cheats_at_answers_is_not_paid(kind: str) -> None:
    plan = Plan(seed=1, peers=8, minutes=1.0, jobs=6, requesters=2, cheaters=0.13, cheats=(kind,), prompts=1.0)
    run = run_plan(plan)
    assert not run.violations
    assert run.cheats_tried > 0
    assert (run.cheats_caught, run.cheats_paid) == (run.cheats_tried, 0)


class Broken(SimulatedModels):
    """Raises `error` where others answer, after some pieces."""

    def __init__(self, error: Exception) -> None:
        super().__init__([(manifest(), 500, 2_000)])
        self._error = error

    @asynccontextmanager
    async def _session(self, spec: Any) -> AsyncIterator[Any]:
        async with super()._session(spec) as honest:
            error = self._error

            class Session:
                async def generate(self, emit: Any) -> Any:
                    await trio.sleep(0.1)
                    raise error

                async def check(self, generated: Generated) -> Any:
                    if isinstance(error, LocalError):
                        raise error
                    return await honest.check(generated)

            yield Session()


async def test_a_backend_that_fails_is_reported_and_nothing_is_charged(autojump_clock: object) -> None:
    async with market(lambda: Broken(ExecutionFailed("out of memory"))) as (world, requester, _):
        result = await asked(requester, question())
        assert (result.phase, result.delivered) == (JobPhase.FAILED, False)
        assert "out of memory" in result.reason
        assert result.receipt is not None and result.receipt["paid"]["amount"] == 0
        assert list((await world.failures()).values()) == [1]


async def test_what_no_model_could_answer_costs_no_worker_its_record(autojump_clock: object) -> None:
    broken = LocalError("has 900 tokens, 512 fit", field="prompts[0]", fix="shorten it")
    async with market(lambda: Broken(broken)) as (world, requester, _):
        result = await asked(requester, question())
        assert result.phase is JobPhase.FAILED
        assert "prompts[0]: has 900 tokens" in result.reason
        assert await world.failures() == {}


async def test_a_worker_cannot_blame_a_good_request(autojump_clock: object) -> None:
    async with open_world() as world:
        for number in range(5):
            await world.add_node(f"node{number}", models=serving())
        liar = await world.add_node("liar", models=_liar())
        requester = await world.add_requester()
        for _ in range(8):
            result = await asked(requester, question())
            if result.phase is not JobPhase.SETTLED:
                break
        assert result.phase is JobPhase.FAILED
        assert await world.failures() == {liar.context.wire.me: 1}


def _liar() -> Broken:
    liar = Broken(LocalError("is bad", field="prompts[0]", fix="never"))
    liar._models = {model: (one, 1, 1) for model, (one, *_) in liar._models.items()}
    return liar


async def test_a_training_and_an_inference_go_side_by_side(autojump_clock: object) -> None:
    from market_world import run_job

    async with market() as (_, requester, _):
        trained = await run_job(requester)
        answered = await asked(requester, question())
        assert trained.weights is not None and trained.answers is None
        assert answered.answers is not None and answered.weights is None


def test_the_budget_of_an_order_may_be_left_to_the_market() -> None:
    assert replace(question(), budget=0).budget == 0


async def test_a_new_model_is_on_the_market_within_seconds(autojump_clock: object) -> None:
    shelves = [serving() for _ in range(5)]
    async with market(iter(shelves).__next__) as (_, requester, _):
        await trio.sleep(60)
        for shelf in shelves:
            shelf._models |= serving(manifest("new", digest=b"n" * 32))._models
        await trio.sleep(3)
        await requester.presence.exchange.survey()
        assert max(len(nodes) for nodes in requester.fitting(question(model="new")).values()) == 5
