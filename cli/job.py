"""`cyxnode job`: `watch` follows a job that anybody runs, from its escrow and its gossip; `reclaim` brings money back;
the rest tells of this requester's own jobs (job_look.py, job_result.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import trio

from ..protocol.errors import LocalError
from ..protocol.units import JobId, base58, format_cyx, parse_id
from .job_look import audit, explain, list_jobs, status, trace
from .job_result import result
from .paying import send_policy
from .seeding import IN_HOME, SeedSources, nobody_known, seed_options, seeds
from .settings import chain_options, home_option, identity, key_options, program_id

POLL_S = 1.0


@click.group()
def job() -> None:
    """See this requester's jobs: list, status, explain, trace, audit, result; watch any job."""


@job.command()
@click.argument("job_id")
@home_option
@chain_options
@seed_options(IN_HOME)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def watch(job_id: str, home: Path, rpc: str, program: str | None, bootstrap: SeedSources, as_json: bool) -> None:
    """Print a job's escrow state and its progress until it is settled."""
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc
    from ..p2p.transport import Libp2pTransport
    from ..protocol.chain import JobState
    from ..protocol.identity import KeyPair
    from ..protocol.messages import JobStatus
    from ..protocol.validation import STATUS_KINDS, job_topic
    from ..scheduler.node import open_presence
    from .world import SystemClock, SystemRandomness

    watched = JobId(parse_id(job_id, field="job_id"))
    key, peers = KeyPair.generate(), seeds(home, bootstrap)
    if not peers:
        raise nobody_known(home)

    def say(text: str, **facts: Any) -> None:
        click.echo(json.dumps({"job": base58(watched), **facts}) if as_json else text)

    async def follow_progress(presence: Any) -> None:
        async with presence.wire.listen(job_topic(watched), STATUS_KINDS) as messages:
            async for signed in messages:
                if isinstance(signed.message, JobStatus) and signed.message.job == watched:
                    one = signed.message
                    say(
                        f"{one.state}  {one.progress_ppm / 10_000:.1f} %  epoch {one.epoch}  "
                        f"loss {one.loss_micro / 1e6:.4f}  accuracy {one.accuracy_micro / 1e6:.3f}",
                        state=one.state,
                        progress_ppm=one.progress_ppm,
                        epoch=one.epoch,
                        loss_micro=one.loss_micro,
                        accuracy_micro=one.accuracy_micro,
                    )

    async def main() -> None:
        async with open_http_rpc(rpc, send_policy()) as client:
            chain = ChainClient(client, key, program_id(program))
            config = await chain.config()
            transport = Libp2pTransport(key)
            async with (
                transport.run(),
                open_presence(key, transport, config.genesis, SystemClock(), SystemRandomness(), peers) as presence,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(follow_progress, presence)
                last: tuple[Any, ...] | None = None
                while True:
                    account = await chain.job(watched)
                    if account is None and last is None:
                        fix = "check the id and --rpc; a receipt tells of a closed job"
                        raise LocalError("no such job: never opened, or closed", field="job_id", fix=fix)
                    if account is None:
                        say("closed: its account is gone", state="closed")
                        break
                    now = (account.state, account.verdict)
                    if now != last:
                        verdict = account.verdict.name if account.verdict else ""
                        say(
                            f"{account.state.name.lower()} {verdict}  budget {format_cyx(account.budget)} CYX  "
                            f"paid {format_cyx(account.paid)} CYX",
                            state=account.state.name.lower(),
                            verdict=verdict,
                            budget_micro_cyx=account.budget,
                            paid_micro_cyx=account.paid,
                        )
                        last = now
                    if account.state is JobState.SETTLED:
                        break
                    await trio.sleep(POLL_S)
                nursery.cancel_scope.cancel()

    trio.run(main)


@job.command("reclaim")
@home_option
@key_options("requester")
@chain_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object per job.")
def reclaim_jobs(home: Path, name: str, key: Path | None, rpc: str, program: str | None, as_json: bool) -> None:
    """Close or refund escrows of jobs that this requester left behind. `submit` does the same first."""
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc
    from ..ledger.journal import LevelJournal
    from ..scheduler.reclaim import Reclaimed, reclaim

    pair, folder = identity(home, name, key)

    async def work() -> list[Reclaimed]:
        journal = LevelJournal(folder / "journal")
        try:
            async with open_http_rpc(rpc, send_policy()) as client:
                return await reclaim(ChainClient(client, pair, program_id(program)), journal)
        finally:
            journal.close()

    done = trio.run(work)
    for one in done:
        click.echo(
            json.dumps({"job": base58(one.job), "done": one.what}) if as_json else f"{base58(one.job)}  {one.what}"
        )
    if not done and not as_json:
        click.echo("nothing is left in escrow")


for command in (list_jobs, status, explain, trace, audit, result):
    job.add_command(command)
