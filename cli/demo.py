"""`cyxnode demo`: a whole network of processes on this machine, and one paid job on it.

Nothing is staged: the chain, the bootstrap node and the nodes are the commands that anyone runs by hand, and this
process is an ordinary requester. All of them are gone at the end, also after Ctrl-C.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from ..protocol.errors import LocalError
from ..protocol.units import base58, format_cyx, parse_id
from .processes import Child, open_child
from .serving import interruptible

NODES_MAX = 32
RATES = ("0.02", "0.025", "0.03", "0.035", "0.04")


@dataclass(slots=True)
class Network:
    """Addresses of a running demo network."""

    home: Path
    rpc: str
    bootstrap: tuple[str, ...]
    nodes: dict[str, str] = field(default_factory=dict)
    sandboxed: bool = True


@asynccontextmanager
async def open_network(home: Path, nodes: int, say: Any) -> AsyncIterator[Network]:
    """Chain, bootstrap node and `nodes` staked nodes as processes, while the context is open."""
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(
            open_child("chain", ["chain", "run", "--in-memory", "--port", "0", "--home", str(home)], home)
        )
        rpc = chain.facts["url"]
        say(f"chain      {rpc}  (escrow program {chain.facts['program']})")
        common = ["--home", str(home), "--rpc", rpc, "--listen", "127.0.0.1:0"]
        boot = await stack.enter_async_context(open_child("bootstrap", ["bootstrap", "run", *common], home))
        say(f"bootstrap  {boot.facts['addresses'][0]}")
        network = Network(home, rpc, tuple(boot.facts["addresses"]))

        for child in await _start_nodes(stack, home, common, nodes):
            network.nodes[child.name] = child.facts["node"]
            network.sandboxed = network.sandboxed and child.facts["sandbox"] != "none"
            say(f"{child.name:10} {child.facts['node']}  sandbox {child.facts['sandbox']}")
        yield network


async def _start_nodes(stack: AsyncExitStack, home: Path, common: list[str], count: int) -> list[Child]:
    """All at once; and all told to end before any is waited for."""
    contexts = {
        f"node{i + 1}": open_child(
            f"node{i + 1}",
            ["run", *common, "--name", f"node{i + 1}", "--faucet", "--rate", RATES[i % len(RATES)]],
            home,
        )
        for i in range(count)
    }
    children: dict[str, Child] = {}

    async def start(name: str) -> None:
        children[name] = await stack.enter_async_context(contexts[name])

    async with trio.open_nursery() as nursery:
        for name in contexts:
            nursery.start_soon(start, name)
    for child in children.values():
        stack.callback(child.process.terminate)
    return [children[name] for name in contexts]


async def balances(network: Network, requester: bytes) -> dict[str, dict[str, int]]:
    """CYX of every party, and what verifiers have earned inside the program, in micro-CYX."""
    from ..ledger.addresses import LOCAL_PROGRAM_ID, local_keypair
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc
    from ..protocol.identity import KeyPair

    result: dict[str, dict[str, int]] = {}
    async with open_http_rpc(network.rpc) as rpc:
        chain = ChainClient(rpc, KeyPair.generate(), LOCAL_PROGRAM_ID)
        accounts = {account.node: account for account in await chain.nodes()}
        parties = {"requester": requester, "treasury": bytes(local_keypair("treasury").pubkey())}
        parties |= {name: parse_id(node, field="node") for name, node in network.nodes.items()}
        for name, address in parties.items():
            balance = await chain.balance(address)
            account = accounts.get(address)  # type: ignore[call-overload]
            result[name] = {
                "micro_cyx": balance.micro_cyx,
                "stake_micro_cyx": account.stake if account else 0,
                "earned_micro_cyx": account.earned if account else 0,
            }
    return result


@click.command()
@click.option("--nodes", default=5, show_default=True, type=click.IntRange(4, NODES_MAX), help="Staked nodes to start.")
@click.option("--keep", is_flag=True, help="Leave the network up until Ctrl-C, and say how to use it.")
@click.option(
    "--order",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Order file (default: the digits example).",
)
@click.option("--infer", is_flag=True, help="Train a tiny language model first, then ask it: streamed, verified, paid.")
@click.option("--prompt", default=None, help="What --infer asks; the model knows examples/tiny_lm.txt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def demo(nodes: int, keep: bool, order: Path | None, infer: bool, prompt: str | None, as_json: bool) -> int:
    """A whole network on this machine, and one paid job."""
    from .demo_infer import demo_infer, demo_task

    if prompt is not None and not infer:
        raise LocalError("is asked by --infer only", field="prompt", fix="add --infer")
    if order is not None and infer:
        raise LocalError("is not for --infer, which trains its own model", field="order", fix="leave it out")
    task, example = (demo_task(prompt), None) if infer else (None, order or example_order())
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    home = Path(tempfile.mkdtemp(prefix="cyxnode-demo-"))
    try:
        if task is not None:
            return trio.run(interruptible, partial(demo_infer, home, nodes, keep, task, as_json, teller()))
        assert example is not None
        return trio.run(interruptible, partial(_demo, home, nodes, keep, example, as_json))
    finally:
        if not keep:
            _clear(home)


def example_order() -> Path:
    """The digits example."""
    return example("digits.toml")


def example(name: str) -> Path:
    """An example's file: beside this package's folders, in a checkout as in an installed wheel."""
    path = Path(__file__).resolve().parent.parent / "examples" / name
    if not path.exists():
        raise LocalError(f"the example {name} is not installed", field="order", fix="give --order FILE")
    return path


def teller() -> Callable[[str], None]:
    """Says lines on standard error, each with the seconds since now."""
    from rich.console import Console

    console, began = Console(stderr=True), time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:7.2f} s[/]  {line}", highlight=False, soft_wrap=True)

    return say


def _clear(home: Path) -> None:
    """Remove what the demo does not hand over: results and receipt stay."""
    for path in home.iterdir():
        if path.name == "results":
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    with suppress(OSError):
        home.rmdir()  # fails, as it should, where there are results


async def _demo(home: Path, nodes: int, keep: bool, order: Path, as_json: bool) -> int:
    from rich.console import Console

    from ..ledger.addresses import LOCAL_PROGRAM_ID
    from .compose import Place, open_client
    from .order import load_plan
    from .render import JobView, show_waterfall, six_lines
    from .results import origin_of, save_result, summary
    from .settings import identity

    console, say = Console(stderr=True), teller()
    view = JobView(console)
    plan = load_plan(order)

    async with open_network(home, nodes, say) as network:
        if not network.sandboxed:
            say("[yellow]no sandbox[/]: bubblewrap is missing or may not be used; the demo's job accepts that")
            plan = load_plan(order, unsandboxed_ok=True)
        pair, folder = identity(home, "requester", None)
        place = Place(network.rpc, LOCAL_PROGRAM_ID, network.bootstrap)
        async with open_client(pair, folder, place, view.observe, faucet=True) as service:
            say(f"requester  {base58(pair.node_id)}")
            before = await balances(network, pair.node_id)
            async with view.shown():
                result = await service.submit(plan.place(service.blobs), origin_of(home / "results"))
            after = await balances(network, pair.node_id)
        files = save_result(result, home / "results")
        if result.receipt is not None:
            show_waterfall(console, result.receipt["timeline_ms"])
            show_balances(console, before, after)
            show_checks(console, json.loads(await trio.Path(files["receipt"]).read_bytes()))
        if as_json:
            end = summary(result, files)
            click.echo(json.dumps({**end, "balances_before": before, "balances_after": after}))
        else:
            click.echo("\n".join(six_lines(result, files.get("receipt", ""))))
        if keep:
            await stay(console, network, "cyxnode submit train examples/digits.toml --faucet")
    return 0 if result.weights is not None else 7


def show_balances(console: Any, before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> None:
    """Who paid and who was paid."""
    from rich.table import Table

    table = Table(title="balances (CYX)", title_justify="left", box=None, padding=(0, 2))
    for heading in ("", "before", "after", "change", "verifier's earnings"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, was in before.items():
        now = after[name]
        change = now["micro_cyx"] - was["micro_cyx"]
        earned = now["earned_micro_cyx"] - was["earned_micro_cyx"]
        table.add_row(
            name,
            format_cyx(was["micro_cyx"]),
            format_cyx(now["micro_cyx"]),
            f"{'+' if change > 0 else ''}{format_cyx(change)}" if change else "",
            f"+{format_cyx(earned)}" if earned else "",
        )
    console.print(table)


def show_checks(console: Any, receipt: dict[str, Any]) -> None:
    """What of a receipt was verified, as `cyxnode receipt verify` does."""
    from ..protocol.receipt import verify_receipt

    for line in verify_receipt(receipt):
        console.print(f"[green]ok[/]  {line}", highlight=False, soft_wrap=True)


async def stay(console: Any, network: Network, command: str) -> None:
    """Until Ctrl-C. `command` is what to try first in another terminal."""
    console.print(
        "\nThe network stays up until Ctrl-C. In another terminal:\n"
        f"  export CYXNODE_HOME={network.home} CYXNODE_RPC={network.rpc}\n"
        f"  {command}\n"
        "  cyxnode run --name one-more --faucet\n"
        "  cyxnode chain info",
        highlight=False,
        soft_wrap=True,
    )
    await trio.sleep_forever()
