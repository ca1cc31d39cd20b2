"""`cyxnode demo --infer`: the demo's network trains a tiny language model, serves it, and is asked a question.

The training is an ordinary paid job, and its weights go onto the shelf of all nodes, as `cyxnode models add` puts them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import trio

from ..protocol.errors import ExecutionFailed
from ..protocol.messages import Capability
from ..protocol.units import MicroCyx, NodeId, base58
from .demo import Network, balances, example, open_network, show_balances, show_checks, stay
from .prompts import make_task, read_prompts
from .render import JobView

if TYPE_CHECKING:
    from ..protocol.inference import InferTask
    from ..scheduler.requester_service import InferOrder, News, RequesterService

MODEL = "tiny-lm"
PROMPT = "A harbour at "
NUM_PREDICT = 50
"""With PROMPT it fills the model's context of 64 tokens, less one."""
PROMPT_RATE, GENERATED_RATE = 500, 2_000
"""Micro-CYX for 1,000 tokens."""
K: Literal[3] = 3
OFFERED_WITHIN_S = 60.0


def demo_task(prompt: str | None) -> InferTask:
    """What is asked. Raises LocalError for a prompt that is none."""
    prompts = read_prompts(prompt if prompt is not None else PROMPT, None)
    return make_task(prompts, system="", temperature="0", top_k=40, num_predict=NUM_PREDICT, seed=0)


async def demo_infer(
    home: Path, nodes: int, keep: bool, task: InferTask, as_json: bool, say: Callable[[str], None]
) -> int:
    """The whole of it; returns the exit code."""
    from rich.console import Console

    from ..ledger.addresses import LOCAL_PROGRAM_ID
    from ..scheduler.requester_service import InferOrder
    from .compose import Place, open_client
    from .settings import identity
    from .submit_infer import Asking

    console = Console(stderr=True)
    async with open_network(home, nodes, say) as network:
        pair, folder = identity(home, "requester", None)
        place = Place(network.rpc, LOCAL_PROGRAM_ID, network.bootstrap)
        order = InferOrder(model=MODEL, task=task, budget=MicroCyx(0), k=K, unsandboxed_ok=not network.sandboxed)
        training, asking = JobView(console), Asking(order, console, home / "results", as_json=as_json)
        watching: list[Callable[[News], None]] = [training.observe]
        async with open_client(pair, folder, place, lambda news: watching[-1](news), faucet=True) as service:
            say(f"requester  {base58(pair.node_id)}")
            async with training.shown():
                await train_and_serve(network, service, say)
            await offered(service, order, nodes, say)
            watching.append(asking.observe)
            before = await balances(network, pair.node_id)
            async with asking.view.shown():
                result, _ = await asking.ask(service)
            after = await balances(network, pair.node_id)
        if result is None:
            return 1
        code = asking.conclude(result, balances_before=before, balances_after=after)
        if result.receipt is not None:
            show_balances(console, before, after)
            show_checks(console, result.receipt)
        if keep:
            await stay(console, network, f"cyxnode submit infer --model {MODEL} --prompt 'The lamp '")
    return code


async def train_and_serve(network: Network, service: RequesterService, say: Callable[[str], None]) -> None:
    """A paid job makes the weights; then they are on the shelf of every node of this home."""
    from ..executor.model_adding import Rates, draft_torch
    from ..executor.model_record import write_record
    from .order import load_plan
    from .shelf import own_folder

    plan = load_plan(example("tiny_lm.toml"), unsandboxed_ok=not network.sandboxed)
    result = await service.submit(plan.place(service.blobs))
    if result.weights is None:
        raise ExecutionFailed(f"there is no model to ask: its training ended as {result.phase.value}, {result.reason}")
    weights = network.home / f"{MODEL}.safetensors"
    weights.write_bytes(result.weights)
    draft = draft_torch(MODEL, example("tiny_lm.json"), weights, Rates(PROMPT_RATE, GENERATED_RATE))
    shelved = write_record(own_folder(network.home, None), draft.record, graph=draft.graph, weights=draft.weights)
    say(f"model      {MODEL} {shelved.short_id}, {len(result.weights)} bytes, on the shelf of all nodes")


async def offered(service: RequesterService, order: InferOrder, nodes: int, say: Callable[[str], None]) -> None:
    """Until all nodes have the model warm, and have said so."""
    warm, fitting = 0, dict[NodeId, Capability]()
    with trio.move_on_after(OFFERED_WITHIN_S):
        while warm < nodes:
            await trio.sleep(0.5)
            await service.presence.exchange.survey()  # a requester hears no gossip of nodes
            fitting = max(service.fitting(order).values(), key=len, default={})
            served = [order.requirements.served_by(offer) for offer in fitting.values()]
            warm = sum(one is not None and one.warm for one in served)
    say(f"offered    by {len(fitting)} nodes, warm on {warm}")
