"""`cyxnode submit train`: one job from order file to receipt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from ..protocol.units import base58, format_cyx
from .seeding import IN_HOME, SeedSources, seed_options, seeds
from .settings import chain_options, home_option, identity, key_options, program_id

if TYPE_CHECKING:
    from ..scheduler.requester_service import JobResult, Order, RequesterService

ESTIMATE_WAIT_S = 5.0


@click.group()
def submit() -> None:
    """Submit a job."""


@submit.command("train")
@click.argument("order", type=click.Path(path_type=Path, dir_okay=False))
@home_option
@key_options("requester")
@chain_options
@seed_options(IN_HOME)
@click.option("--budget", default=None, help="CYX; replaces the order's budget_cyx.")
@click.option("--allow-unsandboxed", is_flag=True, help="Accept nodes that run jobs without a sandbox.")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Folder for weights and receipt.")
@click.option("--wait", is_flag=True, help="Show the job until it ends (the default; kept for scripts).")
@click.option("--estimate", is_flag=True, help="Print the live price range and stop.")
@click.option("--faucet", is_flag=True, help="Ask the local chain's faucet for tokens and fees.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def submit_train(
    order: Path,
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    bootstrap: SeedSources,
    budget: str | None,
    allow_unsandboxed: bool,
    output: Path | None,
    wait: bool,
    estimate: bool,
    faucet: bool,
    as_json: bool,
) -> int:
    """Train a model on the network. The spec is readable by 1 + k operators: the worker and the committee."""
    from rich.console import Console

    from .compose import Place, open_client
    from .order import load_plan
    from .render import JobView, show_waterfall, six_lines

    plan = load_plan(order, budget=budget, unsandboxed_ok=allow_unsandboxed)
    pair, folder = identity(home, name, key)
    place = Place(rpc, program_id(program), seeds(home, bootstrap, folder))
    console = Console(stderr=True)
    view = JobView(console)

    async def work() -> tuple[JobResult | None, tuple[int, int]]:
        async with view.shown(), open_client(pair, folder, place, view.observe, faucet=faucet) as service:
            job_order = plan.place(service.blobs)
            prices = await live_prices(service, job_order)
            console.print(f"live prices: {format_cyx(prices[0])} to {format_cyx(prices[1])} CYX", highlight=False)
            return (None if estimate else await service.submit(job_order)), prices

    result, prices = trio.run(work)
    if result is None:
        if as_json:
            click.echo(json.dumps({"price_low_micro_cyx": prices[0], "price_high_micro_cyx": prices[1]}))
        return 0
    files = save_result(result, output or folder / "results")
    if as_json:
        click.echo(json.dumps(summary(result, files)))
    else:
        if result.receipt:
            show_waterfall(console, result.receipt["timeline_ms"])
        click.echo("\n".join(six_lines(result, files.get("receipt", ""))))
    return 0 if result.weights is not None else 7


async def live_prices(service: RequesterService, order: Order) -> tuple[int, int]:
    """Lowest and highest live price in micro-CYX; (0, 0) when nobody fits within ESTIMATE_WAIT_S."""
    with trio.move_on_after(min(ESTIMATE_WAIT_S, order.class_wait_ms / 1000)):
        while max((len(nodes) for nodes in service.fitting(order).values()), default=0) <= order.k:
            with trio.move_on_after(0.2):
                await service.presence.changed.wait()
    return service.estimate(order)


def save_result(result: JobResult, folder: Path) -> dict[str, str]:
    """Write weights and receipt into `folder`; returns the paths by name."""
    if result.receipt is None:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    job = base58(result.job)
    files = {}
    if result.weights is not None:
        path = folder / f"{job}.safetensors"
        path.write_bytes(result.weights)
        files["weights"] = str(path)
    path = folder / f"{job}.receipt.json"
    path.write_text(json.dumps(result.receipt, indent=1, ensure_ascii=False))
    files["receipt"] = str(path)
    return files


def summary(result: JobResult, files: dict[str, str]) -> dict[str, Any]:
    """A job's end as JSON."""
    receipt = result.receipt or {}
    accuracy = receipt.get("metrics", {}).get("final_accuracy_micro")
    return {
        "job_id": receipt.get("job", ""),
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
