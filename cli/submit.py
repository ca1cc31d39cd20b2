"""`cyxnode submit`: `submit train` is one job from order file to receipt, `submit infer` (submit_infer.py) one from
prompts to answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from ..protocol.units import format_cyx
from .seeding import IN_HOME, SeedSources, seed_options, seeds
from .settings import chain_options, home_option, identity, key_options, program_id
from .submit_infer import submit_infer

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
    """Train a model on the network. The spec is readable by 1 + k operators, the worker and the committee, and by one
    more for each hand-over to another worker."""
    from rich.console import Console

    from .compose import Place, open_client
    from .order import load_plan
    from .render import JobView, show_waterfall, six_lines
    from .results import origin_of, save_result, summary

    plan = load_plan(order, budget=budget, unsandboxed_ok=allow_unsandboxed)
    pair, folder = identity(home, name, key)
    place = Place(rpc, program_id(program), seeds(home, bootstrap, folder))
    console = Console(stderr=True)
    view, results = JobView(console), output or folder / "results"

    async def work() -> tuple[JobResult | None, tuple[int, int]]:
        async with view.shown(), open_client(pair, folder, place, view.observe, faucet=faucet) as service:
            job_order = plan.place(service.blobs)
            prices = await live_prices(service, job_order)
            console.print(f"live prices: {format_cyx(prices[0])} to {format_cyx(prices[1])} CYX", highlight=False)
            return (None if estimate else await service.submit(job_order, origin_of(results))), prices

    result, prices = trio.run(work)
    if result is None:
        if as_json:
            click.echo(json.dumps({"price_low_micro_cyx": prices[0], "price_high_micro_cyx": prices[1]}))
        return 0
    files = save_result(result, results)
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


submit.add_command(submit_infer)
