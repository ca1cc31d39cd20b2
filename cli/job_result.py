"""`cyxnode job result`: where a job's result is; what its `submit` missed is fetched, and the receipt written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from ..protocol.errors import LocalError
from .seeding import IN_HOME, SeedSources, seed_options, seeds
from .settings import chain_options, home_option, identity, key_options, program_id
from .text import plain

if TYPE_CHECKING:
    from ..protocol.identity import KeyPair
    from ..scheduler.chronicle import Chronicle
    from ..scheduler.orders import JobResult
    from .compose import Place

WITHOUT_RESULT = 7


@click.command()
@click.argument("job_id")
@home_option
@key_options("requester")
@chain_options
@seed_options(IN_HOME)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def result(
    job_id: str,
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    bootstrap: SeedSources,
    as_json: bool,
) -> int:
    """Where the weights or answers and the receipt of a job are; fetches what was settled while `submit` was gone."""
    from ..scheduler.job import JobPhase
    from .compose import Place
    from .job_book import open_book
    from .results import save_result

    with open_book(home, name) as book:
        told = book.find(job_id)
        running, owner, files = book.running(told), book.owner, book.results(told)
        folder = book.results_folder(told)
    reason, phase = told.cause, told.phase
    if "receipt" in files and ("weights" in files or "answers" in files):
        phase, reason = JobPhase.SETTLED, ""
    elif running:
        reason = f"its `submit` is up and will write it: see cyxnode job explain {told.name}"
    elif told.job is None:
        reason = reason if told.ended else "its `submit` ended before anything was funded: submit it again"
    elif not told.ended or phase is JobPhase.SETTLED:
        if owner is not None:
            fix = "try again when it has ended"
            raise LocalError("another command of this requester is at work", field="data dir", fix=fix)
        pair, own = identity(home, name, key)
        funded = told.funded
        address = funded.program if funded is not None and program is None else program_id(program)
        ended = trio.run(_recover, pair, own, Place(rpc, address, seeds(home, bootstrap, own)), told)
        files, reason, phase = {**files, **save_result(ended, folder)}, ended.reason, ended.phase
    return _say(told.name, phase.value, reason, files, as_json=as_json)


async def _recover(pair: KeyPair, folder: Path, place: Place, told: Chronicle) -> JobResult:
    from .compose import open_client

    async with open_client(pair, folder, place, lambda news: None) as service:
        return await service.recover(told)


def _say(name: str, state: str, reason: str, files: dict[str, str], *, as_json: bool) -> int:
    """The files, and why one is missing."""
    here = "weights" in files or "answers" in files
    if as_json:
        paths = {what: files.get(what, "") for what in ("weights", "answers", "receipt")}
        click.echo(json.dumps({"job_id": name, "status": state, "reason": reason, **paths}))
    else:
        why = f": {plain(reason)}" if reason else ""
        lines = [f"job id        {name}", f"status        {state}{why}"]
        lines += [f"{what:13} {files[what]}" for what in ("weights", "answers", "receipt") if what in files]
        click.echo("\n".join(lines if here else [*lines, "result        none is here"]))
    return 0 if here else WITHOUT_RESULT
