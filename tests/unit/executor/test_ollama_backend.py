"""The Ollama backend against a small scripted server: streaming, cancelling, and whose fault each failure is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from cyxnode.executor.ollama_server import OllamaInference, open_ollama
from cyxnode.protocol.errors import CyxError, ExecutionFailed, LocalError, PeerUnreachable, TransientError
from cyxnode.protocol.inference import ModelFiles, ModelManifest, TokensGenerated
from inference_models import Heard, answers, ask, judged
from ollama_script import DIGEST, END, MANIFEST, MODEL, Send, Server, part

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ollama") is None, reason="NO OLLAMA CLIENT HERE: pip install 'cyxnode[ollama]'"
    ),
    # where the client itself raises, it leaves generators of httpx to the garbage collector
    pytest.mark.filterwarnings("ignore:Async generator 'http[xc]:ResourceWarning"),
]


@asynccontextmanager
async def backend_of(server: Server, *, silence_max_s: float = 30.0) -> AsyncIterator[OllamaInference]:
    async with server.listening() as url, open_ollama(url, silence_max_s=silence_max_s) as backend:
        yield backend


async def refusal(
    server: Server, kind: type[CyxError], *, model: ModelFiles = MODEL, silence_max_s: float = 30.0
) -> CyxError:
    caught: CyxError | None = None
    async with backend_of(server, silence_max_s=silence_max_s) as backend:
        try:
            await answers(backend, model, ask("Hello"))
        except kind as error:
            caught = error
    assert caught is not None
    return caught


async def test_an_answer_is_streamed_and_counted() -> None:
    server, heard = Server(), Heard()
    task = ask("Hello", "Again", system="Be brief.", temperature_micro=700_000, top_k=5, seed=3, num_predict=20)
    async with backend_of(server) as backend:
        assert backend.description["ollama"] == "0.99"
        async with backend.inference_session(MODEL, task) as session:
            first, second = await session.generate(heard)
            check = await session.check(first)
            forged = await session.check(replace(first, text="Good night."))
            counted = await session.check(replace(first, generated_tokens=300))
            absent = await session.check(replace(first, prompt_index=2))
    assert [event.text for event in heard.events] == ["Good", " day", ".", ""] * 2
    assert [event.last for event in heard.events] == [False, False, False, True] * 2
    assert [event.position for event in heard.events] == [0, 1, 2, 3] * 2
    assert (first.text, first.prompt_tokens, first.generated_tokens, first.stop_reason) == ("Good day.", 9, 3, "end")
    assert (first.tokens, first.trace, second.prompt_index) == ((), b"", 1)
    assert [check.ok, forged.ok, counted.ok, absent.ok] == [True, False, False, False]
    assert forged.reason.startswith("text[5]")
    sent, other = server.requests[:2]
    assert (sent["model"], sent["prompt"], sent["system"], sent["stream"]) == ("tiny", "Hello", "Be brief.", True)
    wanted = {"temperature": 0.7, "top_k": 5, "num_predict": 20, "num_ctx": 128}
    assert sent["options"] | wanted == sent["options"]
    assert sent["options"]["seed"] != other["options"]["seed"]
    assert server.requests[2] == sent


async def test_missing_counts_are_the_pieces() -> None:
    async def script(_: dict[str, Any], send: Send) -> None:
        await send(part("a"))
        await send(part("\ud800b"))
        await send(part("", done=True, done_reason="length"))

    async with backend_of(Server(script)) as backend:
        (claim,) = await answers(backend, MODEL, ask("Hello", num_predict=2))
    assert (claim.text, claim.generated_tokens, claim.prompt_tokens, claim.stop_reason) == ("a?b", 2, 0, "length")


async def test_a_server_that_is_down_is_a_passing_error() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(TransientError, match="ollama serve"):
        async with open_ollama(f"http://127.0.0.1:{port}"):
            pass


async def test_a_server_that_goes_down_later_is_one_too() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    stopped = trio.Event()

    async def serve(scope: trio.CancelScope) -> None:
        with scope:
            await trio.serve_listeners(Server().serve, [listener])
        stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, scope := trio.CancelScope())
        async with open_ollama(f"http://127.0.0.1:{listener.socket.getsockname()[1]}") as backend:
            assert await backend.digests() == {"tiny:latest": DIGEST}
            scope.cancel()
            await stopped.wait()
            with pytest.raises(TransientError, match="ollama serve"):
                await backend.digests()


async def test_a_missing_or_other_model_is_this_nodes_fault() -> None:
    other = ModelFiles(ModelManifest(**(_fields() | {"name": "llama9"})))
    assert "ollama pull llama9" in str(await refusal(Server(), ExecutionFailed, model=other))
    changed = ModelFiles(ModelManifest(**(_fields() | {"digest": bytes(32)})))
    assert "another model" in str(await refusal(Server(), ExecutionFailed, model=changed))
    assert "(404)" in str(await refusal(Server(status=404), ExecutionFailed))
    assert "(500)" in str(await refusal(Server(status=500), ExecutionFailed))


def _fields() -> dict[str, Any]:
    return {name: getattr(MANIFEST, name) for name in MANIFEST.__struct_fields__}


async def test_a_refused_prompt_is_the_requesters_fault() -> None:
    error = await refusal(Server(status=400), LocalError)
    assert isinstance(error, LocalError)
    assert (error.field, bool(error.fix)) == ("task.prompts[0]", True)
    gguf = ModelFiles(ModelManifest(**(_fields() | {"kind": "gguf"})))
    assert "model.kind" in str(await refusal(Server(), LocalError, model=gguf))


async def test_silence_is_a_passing_error() -> None:
    async def before(_: dict[str, Any], send: Send) -> None:
        await trio.sleep_forever()

    async def between(_: dict[str, Any], send: Send) -> None:
        await send(part("Good"))
        await trio.sleep_forever()

    for script in (before, between):
        assert "silent" in str(await refusal(Server(script), TransientError, silence_max_s=0.3))


async def test_a_broken_stream_is_this_nodes_fault() -> None:
    async def dies(_: dict[str, Any], send: Send) -> None:
        await send(part("Good"))
        raise ConnectionAbortedError

    async def forgets(_: dict[str, Any], send: Send) -> None:
        await send(part("Good"))

    async def fails(_: dict[str, Any], send: Send) -> None:
        await send(part("Good"))
        await send({"error": "out of memory"})

    async def babbles(_: dict[str, Any], send: Send) -> None:
        await send(b"this is no JSON\n")

    async def floods(_: dict[str, Any], send: Send) -> None:
        for _round in range(9):
            await send(part("x" * (1 << 20)))

    words = {dies: "broke off", forgets: "in the middle", fails: "out of memory", babbles: "nonsense", floods: "bytes"}
    for script, word in words.items():
        assert word in str(await refusal(Server(script), ExecutionFailed))


async def test_cancelling_closes_the_connection() -> None:
    async def endless(_: dict[str, Any], send: Send) -> None:
        while True:
            await send(part("on and "))
            await trio.sleep(0.001)

    server, count = Server(endless), 0
    async with backend_of(server) as backend:
        with trio.CancelScope() as scope:

            async def emit(_: TokensGenerated) -> None:
                nonlocal count
                count += 1
                if count == 3:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()

            async with backend.inference_session(MODEL, ask("Hello")) as session:
                await session.generate(emit)
        assert (scope.cancelled_caught, count) == (True, 3)
        with trio.fail_after(5):
            await server.broken_off.wait()


async def test_what_the_receiver_raises_comes_back_as_it_is() -> None:
    async def emit(_: TokensGenerated) -> None:
        raise PeerUnreachable("the requester is gone")

    async with backend_of(Server()) as backend, backend.inference_session(MODEL, ask("Hello")) as session:
        with pytest.raises(PeerUnreachable):
            await session.generate(emit)


async def test_without_the_package_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ollama", None)
    with pytest.raises(LocalError, match=r"cyxnode\[ollama\]"):
        async with open_ollama():
            pass


async def test_a_claim_of_another_server_is_judged_by_text() -> None:
    async with backend_of(Server()) as backend:
        (claim,) = await answers(backend, MODEL, ask("Hello"))
        assert (await judged(backend, MODEL, ask("Hello"), claim)).ok

    async def other(_: dict[str, Any], send: Send) -> None:
        await send(part("Bye."))
        await send(END)

    async with backend_of(Server(other)) as backend:
        assert not (await judged(backend, MODEL, ask("Hello"), claim)).ok
