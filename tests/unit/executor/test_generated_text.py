"""Generating and judging text: one port, in this process and simulated; and all that a claim can lie about."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
import trio
from trio.testing import MockClock

from cyxnode.executor.causal import parse_causal_graph
from cyxnode.executor.decoder import Decoder
from cyxnode.executor.generation import Outbox
from cyxnode.executor.inference_inprocess import InProcessInference
from cyxnode.executor.simulated_inference import SimulatedInference, SimulatedModels
from cyxnode.executor.tensors import read_tensors, write_tensors
from cyxnode.executor.tokens import END, decode_tokens
from cyxnode.protocol.errors import ExecutionFailed, LocalError
from cyxnode.protocol.inference import Generated, InferSpec, TokensGenerated, model_id
from cyxnode.protocol.limits import MODELS_OFFERED_MAX, TOKENS_DELAY_MAX_MS
from cyxnode.protocol.ports import Inference
from inference_models import Heard, answers, ask, files, judged, random_model

CPU = torch.device("cpu")
SAMPLED = {"temperature_micro": 800_000, "seed": 12}


@pytest.fixture(scope="module", params=["torch", "simulated"])
def backend(request: pytest.FixtureRequest) -> Inference:
    return InProcessInference() if request.param == "torch" else SimulatedInference(seconds_per_token=0.0)


@pytest.mark.parametrize("options", [{}, SAMPLED])
async def test_an_honest_answer_is_streamed_and_passes(backend: Inference, options: dict[str, int]) -> None:
    model, task, heard = random_model(), ask("Hello", "Is it é?", system="Hm.", **options), Heard()
    async with backend.inference_session(model, task) as session:
        done = await session.generate(heard)
    assert [claim.prompt_index for claim in done] == [0, 1]
    for claim in done:
        mine = [event for event in heard.events if event.prompt_index == claim.prompt_index]
        assert tuple(token for event in mine for token in event.tokens) == claim.tokens
        assert "".join(event.text for event in mine) == claim.text
        assert [event.last for event in mine] == [False] * (len(mine) - 1) + [True]
        assert [event.position for event in mine] == [
            sum(len(event.tokens) for event in mine[:place]) for place in range(len(mine))
        ]
        assert claim.generated_tokens == len(claim.tokens)
        check = await judged(backend, model, task, claim)
        assert check == await judged(backend, model, task, claim)
        assert (check.ok, check.reason, check.exact_ppm) == (True, "", 1_000_000)
        assert check.trace == claim.trace
        assert len(claim.trace) == 4 * len(claim.tokens)
        assert await judged(backend, model, task, replace(claim, trace=b"")) == check
    assert done[0].prompt_tokens == len("Hm.\n\nHello")
    again = await answers(backend, model, task)
    assert [(claim.tokens, claim.trace) for claim in again] == [(claim.tokens, claim.trace) for claim in done]


async def test_seed_prompt_and_temperature_decide(backend: Inference) -> None:
    model = random_model()
    tasks = [ask(**SAMPLED), ask(**(SAMPLED | {"seed": 13})), ask("Hellp", **SAMPLED), ask()]
    texts = {(await answers(backend, model, task))[0].text for task in tasks}
    assert len(texts) == 4


LIES: dict[str, Callable[[Generated], Generated]] = {
    "one forged token": lambda claim: _with_tokens(claim, [*claim.tokens[:5], claim.tokens[5] ^ 1, *claim.tokens[6:]]),
    "truncated": lambda claim: _with_tokens(claim, claim.tokens[:9]),
    "truncated with an end token": lambda claim: replace(
        _with_tokens(claim, [*claim.tokens[:9], END]), stop_reason="end"
    ),
    "too many tokens counted": lambda claim: replace(claim, generated_tokens=claim.generated_tokens + 5),
    "too many tokens": lambda claim: _with_tokens(claim, [*claim.tokens, 65]),
    "prompt counted longer": lambda claim: replace(claim, prompt_tokens=claim.prompt_tokens + 1),
    "invented": lambda claim: _with_tokens(claim, list(b"I am so glad that you ask")[: len(claim.tokens)]),
    "text of other tokens": lambda claim: replace(claim, text=claim.text + "!"),
    "no tokens": lambda claim: _with_tokens(claim, []),
    "a token that does not exist": lambda claim: _with_tokens(claim, [*claim.tokens[:-1], 2**64 - 1]),
    "a negative token": lambda claim: _with_tokens(claim, [*claim.tokens[:-1], -1]),
    "another prompt": lambda claim: replace(claim, prompt_index=1),
    "a prompt that was not asked": lambda claim: replace(claim, prompt_index=7),
    "a negative prompt": lambda claim: replace(claim, prompt_index=-1),
    "another stop": lambda claim: replace(claim, stop_reason="context"),
    "half a trace": lambda claim: replace(claim, trace=claim.trace[: len(claim.trace) // 2]),
}


def _with_tokens(claim: Generated, tokens: list[int] | tuple[int, ...]) -> Generated:
    text = decode_tokens(token for token in tokens if 0 <= token <= END)
    trace = (claim.trace * 9)[: 4 * len(tokens)]
    return replace(claim, tokens=tuple(tokens), text=text, generated_tokens=len(tokens), trace=trace)


@pytest.mark.parametrize("options", [{}, SAMPLED])
@pytest.mark.parametrize("lie", LIES)
async def test_lies_are_caught(backend: Inference, lie: str, options: dict[str, int]) -> None:
    model, task = random_model(), ask("Hello", "Good day", num_predict=12, **options)
    honest = (await answers(backend, model, task))[0]
    assert honest.stop_reason == "length"
    check = await judged(backend, model, task, LIES[lie](honest))
    assert not check.ok
    assert check.reason
    if lie != "half a trace":
        sealed = await judged(backend, model, task, replace(LIES[lie](honest), trace=b""))
        assert (sealed.ok, sealed.reason) == (False, check.reason)


async def test_a_forged_token_is_named() -> None:
    backend, model, task = InProcessInference(), random_model(), ask(num_predict=12)
    honest = (await answers(backend, model, task))[0]
    check = await judged(backend, model, task, LIES["one forged token"](honest))
    assert check.reason.startswith("tokens[")
    assert check.max_gap_micro > 1_000
    assert check.exact_ppm < 1_000_000


async def test_other_weights_are_caught_and_a_trace_of_others_too() -> None:
    backend, task = InProcessInference(), ask(num_predict=12)
    honest = (await answers(backend, random_model(), task))[0]
    assert not (await judged(backend, random_model(), task, (await answers(backend, random_model(seed=2), task))[0])).ok
    logits = np.frombuffer(honest.trace, "<f4") + np.float32(0.01)
    check = await judged(backend, random_model(), task, replace(honest, trace=logits.tobytes()))
    assert (check.ok, check.reason.partition("[")[0]) == (False, "trace")


@pytest.mark.parametrize("options", [{}, SAMPLED])
async def test_a_trace_is_that_of_one_pass_over_the_answer(options: dict[str, int]) -> None:
    """Which it is to the bit; while decoding piece by piece gives other last bits."""
    model, task = random_model(), ask(num_predict=16, **options)
    claim = (await answers(InProcessInference(), model, task))[0]
    decoder, prompt = Decoder(parse_causal_graph(model.graph), model.weights, CPU), list(b"Hello")
    passed = decoder.prefill([*prompt, *claim.tokens[:-1]], len(prompt) - 1)
    decoder.begin()
    pieces = [decoder.advance(fed) for fed in (prompt, *([token] for token in claim.tokens[:-1]))]
    chosen = [[row[token] for row, token in zip(rows, claim.tokens, strict=True)] for rows in (passed, pieces)]
    assert claim.trace == struct.pack("<16f", *chosen[0])
    assert claim.trace != struct.pack("<16f", *chosen[1])


async def test_generation_stops_at_the_end_token_the_count_and_the_context() -> None:
    backend, model = InProcessInference(), random_model()
    counted = (await answers(backend, model, ask("12345", num_predict=3)))[0]
    assert (counted.stop_reason, counted.generated_tokens) == ("length", 3)
    full = (await answers(backend, model, ask("12345", num_predict=500)))[0]
    assert (full.stop_reason, full.prompt_tokens + full.generated_tokens) == ("context", 32)
    assert (await judged(backend, model, ask("12345", num_predict=500), full)).ok
    # a head that always prefers the end token
    arrays = dict(read_tensors(model.weights))
    arrays["head.bias"] = np.where(np.arange(257) == END, 1e3, 0).astype(np.float32)
    ending = files(model.graph, write_tensors(arrays))
    ended = (await answers(backend, ending, ask("12345")))[0]
    assert (ended.stop_reason, ended.tokens, ended.text, ended.generated_tokens) == ("end", (END,), "", 1)
    assert (await judged(backend, ending, ask("12345"), ended)).ok


def test_decoding_piece_by_piece_gives_what_one_pass_gives() -> None:
    model = random_model()
    decoder = Decoder(parse_causal_graph(model.graph), model.weights, CPU)
    tokens = list(b"The whole text in one pass.")
    whole = decoder.prefill(tokens, 0)
    assert whole.shape == (len(tokens), 257)
    for cut in ([1] * len(tokens), [5, 1, 1, 7, len(tokens) - 14]):
        decoder.begin()
        place = 0
        for length in cut:
            place += length
            logits = decoder.advance(tokens[place - length : place])
            assert logits == pytest.approx(whole[place - 1], abs=1e-4)
    assert (decoder.prefill(tokens, 20) == whole[20:]).all()


def test_later_tokens_do_not_change_earlier_logits() -> None:
    model = random_model()
    decoder = Decoder(parse_causal_graph(model.graph), model.weights, CPU)
    first, second = decoder.prefill(list(b"abcdefgh"), 0), decoder.prefill(list(b"abcdXXXX"), 0)
    assert (first[:4] == second[:4]).all()
    assert not (first[4:] == second[4:]).any(axis=1).all()


async def test_bad_models_are_refused_with_field_and_fix() -> None:
    backend, model = InProcessInference(), random_model()
    arrays = dict(read_tensors(model.weights))
    bad = {
        "model.digest": replace(model, weights=random_model(seed=2).weights),
        "model.weights": files(model.graph, random_model(width=16).weights),
    }
    for field, broken in bad.items():
        with pytest.raises(LocalError) as caught:
            await answers(backend, broken, ask())
        assert (caught.value.field, bool(caught.value.fix)) == (field, True)
    infinite = write_tensors(arrays | {"head.bias": np.full(257, np.nan, np.float32)})
    with pytest.raises(LocalError, match="NaN"):
        await answers(backend, files(model.graph, infinite), ask())
    huge = write_tensors(arrays | {"head.weight": np.full((257, 32), 3e38, np.float32)})
    with pytest.raises(ExecutionFailed, match="NaN or infinity"):
        await answers(backend, files(model.graph, huge), ask())


async def test_simulated_tokens_take_virtual_time(autojump_clock: MockClock) -> None:
    backend, started = SimulatedInference(seconds_per_token=2.0), trio.current_time()
    claim = (await answers(backend, random_model(), ask(num_predict=10)))[0]
    assert trio.current_time() - started == pytest.approx(2.0 * len(claim.tokens))
    assert claim.compute_ms == round(2000 * len(claim.tokens))
    assert SimulatedInference("a").execution_class != SimulatedInference("b").execution_class


async def test_simulated_models_are_served_by_id_and_class() -> None:
    first = msgspec.structs.replace(random_model().manifest, name="b")
    second = msgspec.structs.replace(first, name="a", digest=bytes(32))
    models = SimulatedModels([(first, 500, 2_000), (second, 1, 4)], seconds_per_token=0.0)
    assert [offer.name for offer in models.offers()] == ["a", "b"]
    offer = models.offers()[1]
    assert (offer.model, offer.backend) == (model_id(first), models.execution_class)
    assert (offer.prompt_rate, offer.generated_rate, offer.context_length) == (500, 2_000, 32)
    spec = InferSpec(model=offer.model, backend=offer.backend, task=ask("Hello"), secret=bytes(32))
    async with models.session(spec) as session:
        (claim,) = await session.generate(Heard())
        assert (await session.check(claim)).ok
    for wrong in ({"model": bytes(32)}, {"backend": bytes(32)}):
        with pytest.raises(ExecutionFailed, match="not served"):
            async with models.session(msgspec.structs.replace(spec, **wrong)):
                pass
    with pytest.raises(LocalError, match="twice"):
        SimulatedModels([(first, 1, 1), (msgspec.structs.replace(first, name="c"), 1, 1)])
    many = [(msgspec.structs.replace(first, digest=bytes([n]) * 32), 1, 1) for n in range(MODELS_OFFERED_MAX + 1)]
    with pytest.raises(LocalError, match="are 9"):
        SimulatedModels(many)


@pytest.mark.parametrize(("token_ms", "most_events"), [(1, 7), (7, 35), (50, 100)])
def test_fast_tokens_travel_together_and_none_waits_long(token_ms: int, most_events: int) -> None:
    now, waiting, sent = 0.0, dict[int, float](), list[TokensGenerated]()
    outbox = Outbox(0, lambda: now)
    for place in range(100):
        now += token_ms / 1000
        waiting[place] = now
        event = outbox.push(65, last=place == 99)
        if event is not None:
            sent.append(event)
            for early in range(event.position, event.position + len(event.tokens)):
                assert now - waiting.pop(early) < TOKENS_DELAY_MAX_MS / 1000
    assert not waiting
    assert sent[0].tokens == (65,)
    assert len(sent) <= most_events


def test_the_simulated_backend_imports_no_torch() -> None:
    script = "import sys, cyxnode.executor.simulated_inference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


async def test_a_claim_with_hostile_numbers_is_judged_not_raised() -> None:
    backend, model, task = InProcessInference(), random_model(), ask(num_predict=4)
    honest = (await answers(backend, model, task))[0]
    for trace in (struct.pack("<4f", *[float("nan")] * 4), struct.pack("<4f", *[float("inf")] * 4)):
        assert "trace" in (await judged(backend, model, task, replace(honest, trace=trace))).reason
    check = await judged(backend, model, task, replace(honest, trace=struct.pack("<4f", *[3e38] * 4)))
    assert not check.ok
