"""`cyxnode run`: a node that sells compute and verifies that of others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

from ..protocol.errors import LocalError
from ..protocol.ports import Runner
from ..protocol.units import base58, format_cyx, parse_cyx
from .discovering import mdns_option, wants_lan
from .seeding import IN_HOME, SeedSources, seed_options, seeds
from .serving import metrics_option, ready_options, run_until_stopped, say_ready
from .settings import (
    chain_options,
    deny_list_of,
    deny_list_option,
    home_option,
    identity,
    key_options,
    program_id,
)

if TYPE_CHECKING:
    from ..executor.model_shelf import ModelShelf

log = structlog.get_logger()


@click.command()
@home_option
@key_options("node")
@chain_options
@seed_options(IN_HOME)
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT for peers; port 0 takes a free one."
)
@deny_list_option
@mdns_option
@click.option("--rate", default="0.02", show_default=True, help="CYX per second of work.")
@click.option("--stake", default="100", show_default=True, help="CYX to stake on the first start.")
@click.option("--region", default="", help="Region that bids name.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--sandbox", type=click.Choice(["auto", "bubblewrap", "none"]), default="auto", show_default=True)
@click.option("--verify-only", is_flag=True, help="Sit on committees, but never bid.")
@click.option("--no-models", is_flag=True, help="Serve no language models, whatever is on the shelf.")
@click.option(
    "--models-memory",
    type=click.IntRange(1, 2**24),
    default=None,
    show_default="a quarter of all memory",
    help="MiB that loaded models may have together.",
)
@click.option("--simulated-runner", default=None, metavar="CLASS", hidden=True, help="For `cyxnode sim run --real`.")
@click.option("--faucet", is_flag=True, help="Ask the local chain's faucet for stake and fees.")
@metrics_option
@ready_options
def run(
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    bootstrap: SeedSources,
    listen: str,
    deny_list: Path | None,
    mdns: bool | None,
    rate: str,
    stake: str,
    region: str,
    device: str,
    sandbox: str,
    verify_only: bool,
    no_models: bool,
    models_memory: int | None,
    simulated_runner: str | None,
    faucet: bool,
    metrics: str | None,
    as_json: bool,
    until_stdin_closes: bool,
) -> None:
    """Run a node: it stakes, hears of jobs, bids, works, verifies, and is paid."""
    pair, folder = identity(home, name, key)
    rate_micro, stake_micro = parse_cyx(rate, field="rate"), parse_cyx(stake, field="stake")
    peers, denied = seeds(home, bootstrap, folder), deny_list_of(deny_list)

    if simulated_runner is not None and program is not None:
        fix = "leave it out: a node that only pretends to train has no business on a real chain"
        raise LocalError("only the local chain takes simulated work", field="simulated-runner", fix=fix)

    async def serve() -> None:
        from ..bootstrap.discovery import Ways, open_discovery
        from ..scheduler.context import NodeSettings
        from ..scheduler.node import open_node
        from ..simulation.plan import REAL_MFLOP_PER_S
        from .compose import Place, figured, open_ports, parse_listen
        from .metrics import Gauges
        from .metrics_server import open_metrics
        from .reach_text import tell_changes, told
        from .shelf import shelf_facts, shelf_lines

        host, port = parse_listen(listen)
        figures = parse_listen(metrics, "metrics") if metrics else None
        ways = Ways(lan=wants_lan(host, mdns))
        place = Place(rpc, program_id(program), peers, host, port, deny_list=denied, lan=ways.lan)
        settings = NodeSettings(
            bootstrap=peers,
            region=region,
            rate_micro_per_s=rate_micro,
            stake=stake_micro,
            provider=not verify_only,
        )
        if simulated_runner is not None:
            settings = replace(settings, mflop_per_s=REAL_MFLOP_PER_S)
        async with (
            open_ports(pair, folder, place, faucet=faucet) as ports,
            _open_runner(simulated_runner, sandbox, device) as runner,
            _open_models(runner, home, name, models_memory, served=not no_models) as shelf,
            open_node(ports, runner, settings, models=shelf) as node,
            open_discovery(figured(ports.transport), node.presence, ways, runner.execution_class) as discovery,
            open_metrics(figures, Gauges(figured(ports.transport), node.presence, node, discovery)) as url,
        ):
            about = runner.description
            addresses, transport = ports.transport.addresses(), figured(ports.transport)
            reach = told(transport.reach_report)
            say_ready(
                as_json,
                f"node {base58(pair.node_id)} ready\n  class {runner.execution_class.hex()[:16]} on {about['device']}, "
                f"sandbox {about['sandbox']}, {format_cyx(rate_micro)} CYX/s\n  "
                + "\n  ".join([*addresses, reach, *(shelf_lines(shelf) if shelf else ())])
                + (f"\n  metrics {url}/metrics" if url else ""),
                node=base58(pair.node_id),
                execution_class=runner.execution_class.hex(),
                addresses=addresses,
                sandbox=about["sandbox"],
                metrics=url,
                reach=reach,
                models=shelf_facts(shelf) if shelf else [],
            )

            def say(line: str) -> None:
                log.info("reach", line=line)
                if not as_json:
                    click.echo(line)

            await tell_changes(transport, say, node.presence.announce_capability)

    run_until_stopped(serve, until_stdin_closes=until_stdin_closes)


def _open_models(
    runner: Runner, home: Path, name: str, memory: int | None, *, served: bool
) -> AbstractAsyncContextManager[ModelShelf | None]:
    """The identity's own models and those of all nodes of this home; None with --no-models."""
    from .shelf import memory_budget, open_models, shelf_folders

    return open_models(runner, shelf_folders(home, name), memory_budget(memory)) if served else nullcontext()


@asynccontextmanager
async def _open_runner(simulated: str | None, sandbox: str, device: str) -> AsyncIterator[Runner]:
    """The sandboxed process that trains; or the stand-in of simulations."""
    if simulated is None:
        from ..executor.process import open_runner

        async with open_runner(sandbox=sandbox, device=device, warm=0) as runner:  # type: ignore[arg-type]
            yield runner
        return
    from ..executor.simulated import SimulatedRunner
    from ..simulation.plan import MFLOP_PER_STEP, REAL_MFLOP_PER_S

    stand_in = SimulatedRunner(MFLOP_PER_STEP / REAL_MFLOP_PER_S, class_name=simulated)
    log.warning(
        "SIMULATED RUNNER: this node trains nothing, and is of a class of its own",
        execution_class=stand_in.execution_class.hex(),
    )
    yield stand_in
