"""`cyxnode submit infer`: prompts in, tokens out, verified and paid for one by one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
import trio

from ..protocol.errors import LocalError
from ..protocol.limits import PREDICT_MAX, TOKENS_PER_S_ASSUMED, TOP_K_MAX
from ..protocol.messages import Capability
from ..protocol.units import MicroCyx, format_cyx, parse_cyx
from .prompts import make_task, parse_model, read_prompts
from .seeding import IN_HOME, SeedSources, seed_options, seeds
from .settings import chain_options, home_option, identity, key_options, program_id
from .text import plain, unmarked

if TYPE_CHECKING:
    from rich.console import Console

    from ..protocol.inference import InferTask
    from ..scheduler.requester_service import InferOrder, JobResult, News, RequesterService
    from .answer_stream import AnswerStream
    from .render import JobView

NAMES_SHOWN_MAX = 8
WORK_SECONDS = 600
WITHOUT_RESULT, OTHER_THAN_VERIFIED = 7, 3


@click.command("infer")
@click.option("--model", required=True, help="Its name on the market, or at least 8 digits of its id.")
@click.option("--prompt", default=None, help="The prompt (default, and with '-': standard input).")
@click.option(
    "--batch",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=None,
    help="File with one prompt a line; answers come in this order.",
)
@click.option("--system", default="", help="Text that stands before each prompt.")
@click.option("--temperature", default="0", show_default=True, help="0 is greedy, 2 the most.")
@click.option("--top-k", type=click.IntRange(1, TOP_K_MAX), default=40, show_default=True)
@click.option(
    "--num-predict",
    type=click.IntRange(1, PREDICT_MAX),
    default=128,
    show_default=True,
    help="Tokens that a prompt may be answered with.",
)
@click.option("--seed", type=click.IntRange(0, 2**53), default=0, show_default=True, help="Of sampling.")
@home_option
@key_options("requester")
@chain_options
@seed_options(IN_HOME)
@click.option("--budget", default=None, show_default="highest live price", help="CYX at most; the rest returns.")
@click.option("--k", type=click.Choice(["3", "5", "7"]), default="3", show_default=True, help="Committee.")
@click.option(
    "--work-seconds",
    type=click.IntRange(10, 30 * 86_400),
    default=None,
    show_default="600, more for many tokens",
    help="After that the work is refused.",
)
@click.option(
    "--wait-seconds",
    type=click.IntRange(0, 86_400),
    default=60,
    show_default=True,
    help="How long to wait, unfunded, for k + 1 nodes that serve the model.",
)
@click.option("--allow-unsandboxed", is_flag=True, help="Accept nodes that run jobs without a sandbox.")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Folder for answers and receipt.")
@click.option("--estimate", is_flag=True, help="Print the live price range and stop.")
@click.option("--faucet", is_flag=True, help="Ask the local chain's faucet for tokens and fees.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, and no tokens before.")
def submit_infer(
    model: str,
    prompt: str | None,
    batch: Path | None,
    system: str,
    temperature: str,
    top_k: int,
    num_predict: int,
    seed: int,
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    bootstrap: SeedSources,
    budget: str | None,
    k: str,
    work_seconds: int | None,
    wait_seconds: int,
    allow_unsandboxed: bool,
    output: Path | None,
    estimate: bool,
    faucet: bool,
    as_json: bool,
) -> int:
    """Ask a model on the network. Prompts and answers are readable by 1 + k operators, the worker and the committee;
    the prompts by one more for each hand-over to another worker."""
    wanted, cap = parse_model(model), parse_cyx(budget, field="budget") if budget is not None else MicroCyx(0)
    if budget is not None and not cap:
        raise LocalError("is zero", field="budget", fix="offer something")
    law = {"top_k": top_k, "num_predict": num_predict, "seed": seed}
    prompts = read_prompts(prompt, batch)
    task = make_task(prompts, system=system, temperature=temperature, **law)

    from rich.console import Console

    from ..scheduler.requester_service import InferOrder
    from .compose import Place, open_client

    order = InferOrder(
        model=wanted,
        task=task,
        budget=cap,
        k=cast(Literal[3, 5, 7], int(k)),
        work_seconds=work_seconds or patience_s(task),
        class_wait_ms=1000 * wait_seconds,
        unsandboxed_ok=allow_unsandboxed,
    )
    pair, folder = identity(home, name, key)
    place = Place(rpc, program_id(program), seeds(home, bootstrap, folder))
    asking = Asking(order, Console(stderr=True), output or folder / "results", as_json=as_json)
    opened = partial(open_client, pair, folder, place, faucet=faucet)
    result, prices = asking.run(opened, estimate=estimate)
    if result is None:
        if as_json:
            click.echo(json.dumps({"price_low_micro_cyx": prices[0], "price_high_micro_cyx": prices[1]}))
        return 0
    return asking.conclude(result)


def patience_s(task: InferTask) -> int:
    """Seconds in which even a node whose pace is not known would bid."""
    return max(WORK_SECONDS, 2 * len(task.prompts) * task.num_predict // TOKENS_PER_S_ASSUMED)


@dataclass(slots=True)
class Asking:
    """One inference, shown while it runs. `results` is the folder for what it brings."""

    order: InferOrder
    console: Console
    results: Path
    as_json: bool
    answers: AnswerStream | None = None
    view: JobView = field(init=False)
    service: RequesterService | None = None

    def __post_init__(self) -> None:
        from .answer_stream import AnswerStream
        from .render import JobView

        if not self.as_json:
            self.answers = AnswerStream(len(self.order.task.prompts), sys.stdout, self.say)
        self.view = JobView(self.console, self.answers)

    def say(self, line: str) -> None:
        """On standard error."""
        self.console.print(unmarked(line), highlight=False, soft_wrap=True)

    def run(self, opened: Callable[..., Any], *, estimate: bool = False) -> tuple[JobResult | None, tuple[int, int]]:
        """Ask on a network that `opened` joins, see `compose.open_client`; no result for an estimate."""

        async def work() -> tuple[JobResult | None, tuple[int, int]]:
            async with self.view.shown(), opened(self.observe) as service:
                return await self.ask(service, estimate=estimate)

        return trio.run(work)

    async def ask(
        self, service: RequesterService, *, estimate: bool = False
    ) -> tuple[JobResult | None, tuple[int, int]]:
        """The result, none for an estimate, and the live prices in micro-CYX."""
        from .results import origin_of

        self.service, ended = service, False
        try:
            prices = await self.priced(service)
            result = None if estimate else await service.submit(self.order, origin_of(self.results))
            ended = True
            return result, prices
        finally:
            if not ended and self.answers is not None and self.answers.began:
                self.answers.end()
                self.say("broken off: what is shown above was not verified")

    def observe(self, news: News) -> None:
        """News of the job."""
        self.view.observe(self.explained(news))

    async def priced(self, service: RequesterService) -> tuple[int, int]:
        """Say what it will cost at most, and hold the order to it."""
        from .submit import live_prices

        low, high = await live_prices(service, self.order)
        cap = self.order.budget or MicroCyx(high)
        self.say(f"live prices: {format_cyx(low)} to {format_cyx(high)} CYX, when every token is used")
        most = f"{format_cyx(cap)} CYX" if cap else "the highest price there is, once somebody serves it"
        self.say(f"at most {most}")
        self.order = replace(self.order, budget=cap)
        return low, high

    def explained(self, news: News) -> News:
        """A queue that has its reason in the model says what is served instead."""
        from ..scheduler.requester_service import Stage

        if not isinstance(news, Stage) or news.name != "queued" or self.service is None:
            return news
        offers = list(self.service.presence.alive().values())
        wish = self.order.requirements.model
        if wish is None or any(wish.served(offer) for offer in offers):
            return news
        return replace(news, detail=f"{news.detail}; {served_instead(self.order.model, offers)}")

    def conclude(self, result: JobResult, **more: Any) -> int:
        """Show the end, save the files, and return the exit code. `more` goes into the JSON."""
        from .render import show_waterfall, six_lines
        from .results import save_result, summary, token_lines

        true = self._end_stream(result)
        files = save_result(result, self.results)
        if self.as_json:
            click.echo(json.dumps(summary(result, files) | more))
        else:
            if result.receipt:
                show_waterfall(self.console, result.receipt["timeline_ms"])
            lines = [*six_lines(result, files.get("receipt", "")), *token_lines(result)]
            click.echo("\n".join(["", *lines] if self.answers is not None and self.answers.began else lines))
        return (0 if true else OTHER_THAN_VERIFIED) if result.answers is not None else WITHOUT_RESULT

    def _end_stream(self, result: JobResult) -> bool:
        if self.answers is None:
            return True
        if result.answers is not None:
            return self.answers.finish([one.text for one in result.answers.answers])
        self.answers.end()
        if self.answers.began and (result.receipt or {}).get("paid", {}).get("amount", 0):
            self.say("what is shown above was not compared with the verified answer, which could not be fetched")
        elif self.answers.began:
            self.say("what is shown above was NOT verified, and is not charged")
        return True


def served_instead(model: str, offers: Iterable[Capability]) -> str:
    """What live nodes serve, by name."""
    names = sorted({one.name for offer in offers for one in offer.models})
    if not names:
        return f"nobody serves {plain(model)}, nor any other model"
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    return f"nobody serves {plain(model)}; served: {', '.join(names[:NAMES_SHOWN_MAX])}{more}"
