"""What a job left behind: its files, and how it ended, as JSON and as lines."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from ..protocol.envelope import open_as
from ..protocol.inference import Answer
from ..protocol.limits import MICRO
from ..protocol.messages import InferenceClaim, token_units
from ..protocol.units import base58, parse_id
from ..scheduler.orders import JobResult, Origin


def origin_of(folder: Path) -> Origin:
    """Of an order whose results this process will put into `folder`."""
    return Origin(str(folder.absolute()), os.getpid())


def save_result(result: JobResult, folder: Path) -> dict[str, str]:
    """Write weights or answers, and the receipt, as far as they are there, into `folder`; returns the paths by name."""
    if result.receipt is None and not result.delivered:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    job = base58(result.job)
    files = {}
    if result.weights is not None:
        path = folder / f"{job}.safetensors"
        path.write_bytes(result.weights)
        files["weights"] = str(path)
    if result.answers is not None:
        path = folder / f"{job}.answers.json"
        path.write_text(_json({"job": job, "answers": answers(result)}))
        files["answers"] = str(path)
    if result.receipt is not None:
        path = folder / f"{job}.receipt.json"
        path.write_text(_json(result.receipt))
        files["receipt"] = str(path)
    return files


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def summary(result: JobResult, files: dict[str, str]) -> dict[str, Any]:
    """A job's end as JSON; of an inference also its answers, its counts and the worker's signature."""
    receipt = result.receipt or {}
    accuracy = receipt.get("metrics", {}).get("final_accuracy_micro")
    end = {
        "job_id": result.name,
        "status": result.phase.value,
        "reason": result.reason,
        "result_cid": receipt.get("result", {}).get("uri", "").removeprefix("ipfs://"),
        "weights": files.get("weights", ""),
        "receipt": files.get("receipt", ""),
        "completed_in_ms": receipt.get("completed_in_ms", 0),
        "cost_micro_cyx": receipt.get("paid", {}).get("amount", 0),
        "verified_by": receipt.get("verified_by", []),
        "validation_accuracy": accuracy / 1e6 if accuracy is not None else None,
        "timeline_ms": receipt.get("timeline_ms", {}),
    }
    return end | _inference(result, files) if result.answers is not None else end


def _inference(result: JobResult, files: dict[str, str]) -> dict[str, Any]:
    found, metrics = answers(result), (result.receipt or {}).get("metrics", {})
    texts = [one["text"] for one in found]
    end = {
        "result": texts[0] if len(texts) == 1 else texts,
        "results": found,
        "answers": files.get("answers", ""),
        "prompt_tokens": metrics.get("prompt_tokens", 0),
        "tokens_generated": metrics.get("tokens_generated", 0),
        "tokens_per_second": tokens_per_second(metrics),
        "compute_time_ms": metrics.get("compute_time_ms", 0),
        "proof": _proof(result),
    }
    busy = metrics.get("gpu_utilization_ppm")
    return end if busy is None else end | {"gpu_utilization": busy / 1e6}


def answers(result: JobResult) -> list[dict[str, Any]]:
    """Each answer with its tokens and its part of the price, rounded down, in micro-CYX."""
    receipt = result.receipt or {}
    price, units_total = receipt.get("price_micro_cyx", 0), receipt.get("metrics", {}).get("units_total", 0)

    def cost(one: Answer) -> int:
        return int(price * token_units(one.prompt_tokens, one.generated_tokens) // units_total) if units_total else 0

    return [
        {
            "text": one.text,
            "prompt_tokens": one.prompt_tokens,
            "tokens_generated": one.generated_tokens,
            "stop_reason": one.stop_reason,
            "cost_micro_cyx": cost(one),
        }
        for one in (result.answers.answers if result.answers is not None else ())
    ]


def tokens_per_second(metrics: dict[str, Any]) -> float | None:
    """How fast the worker wrote, by its own clock; None for less than a millisecond."""
    took_ms = metrics.get("compute_time_ms", 0)
    return round(metrics["tokens_generated"] * 1000 / took_ms, 2) if took_ms else None


def _proof(result: JobResult) -> dict[str, str]:
    """The result hash on chain, and the worker's signature over it, which the escrow program can check."""
    receipt = result.receipt or {}
    genesis = parse_id(receipt["network"]["genesis"], field="receipt.network.genesis")
    claim = open_as(base64.b64decode(receipt["evidence"]["claim"]), genesis, InferenceClaim).message
    return {"hash": receipt["result"]["result_hash"], "signature": claim.seal.hex()}


def token_lines(result: JobResult) -> list[str]:
    """What follows the six lines of an inference."""
    metrics = (result.receipt or {}).get("metrics", {})
    if "tokens_generated" not in metrics:
        return []
    lines = [f"tokens        {metrics['tokens_generated']} generated, {metrics['prompt_tokens']} read"]
    speed, busy = tokens_per_second(metrics), metrics.get("gpu_utilization_ppm")
    if speed is not None:
        lines.append(f"speed         {speed:.0f} tokens/s" + (f", GPU {busy * 100 / MICRO:.0f} % busy" if busy else ""))
    return lines
