"""`cyxnode job list | status | explain | trace | audit`: what became of this requester's jobs, and why.

They read a copy of the journal: nothing is changed, no key is needed, and a running `submit` is not in the way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from ..protocol.errors import LocalError
from ..protocol.limits import JOBS_LISTED_MAX
from .settings import Command, home_option, name_option, program_option, rpc_option

if TYPE_CHECKING:
    from ..scheduler.chronicle import Chronicle
    from ..scheduler.explanation_left import OnChain
    from .job_book import Book

JOBS_LISTED = 20


def job_options(help_json: str = "Print one JSON object.") -> Callable[[Command], Command]:
    """--home, --name and --json"""

    def decorate(command: Command) -> Command:
        command = click.option("--json", "as_json", is_flag=True, help=help_json)(command)
        return home_option(name_option("requester")(command))

    return decorate


def now_unix_ms() -> int:
    """Wall time."""
    return time.time_ns() // 1_000_000


@click.command("list")
@job_options("One JSON object per job.")
@click.option("--limit", default=JOBS_LISTED, show_default=True, type=click.IntRange(1, JOBS_LISTED_MAX), help="Jobs.")
def list_jobs(home: Path, name: str, as_json: bool, limit: int) -> None:
    """Every job that this requester placed, newest first."""
    from ..scheduler.job_summary import summarise, summary_json
    from .job_book import open_book
    from .job_text import show_list, wide_console

    with open_book(home, name) as book:
        found = [summarise(told, running=book.running(told)) for told in book.latest(limit)]
    if as_json:
        for one in found:
            click.echo(json.dumps(summary_json(one)))
    elif found:
        show_list(wide_console(), found)
        if len(found) == limit:
            click.echo(f"older ones: --limit {min(JOBS_LISTED_MAX, 10 * limit)}", err=True)
    else:
        click.echo(f"{name} has placed no job yet")


@click.command()
@click.argument("job_id")
@job_options()
@rpc_option
@program_option
def status(job_id: str, home: Path, name: str, as_json: bool, rpc: str, program: str | None) -> None:
    """How a job stands: state, result, receipt, cost. JOB_ID may be the beginning of an id."""
    from ..scheduler.job_summary import summarise, summary_json
    from .job_book import open_book
    from .job_text import status_lines

    with open_book(home, name) as book:
        told = book.find(job_id)
        running, files = book.running(told), book.results(told)
    one = summarise(told, running=running, chain=_left_to_chain(told, running, rpc, program))
    if as_json:
        paths = {what: files.get(what, "") for what in ("weights", "answers", "receipt")}
        click.echo(json.dumps({**summary_json(one), **paths}))
    else:
        click.echo("\n".join(status_lines(one, files)))


@click.command()
@click.argument("job_id")
@job_options()
@rpc_option
@program_option
def explain(job_id: str, home: Path, name: str, as_json: bool, rpc: str, program: str | None) -> None:
    """Why a job is in its state, what it waits for and until when, which nodes declined and why, and what to do."""
    from ..scheduler.explanation import explain as explained
    from .job_book import open_book
    from .job_text import explanation_json, explanation_lines

    with open_book(home, name) as book:
        told = book.find(job_id)
        running = book.running(told)
    chain, now_ms = _left_to_chain(told, running, rpc, program), now_unix_ms()
    one = explained(told, now_ms, running=running, chain=chain)
    if as_json:
        click.echo(json.dumps(explanation_json(told.name, one)))
    else:
        click.echo("\n".join(explanation_lines(told.name, one, now_ms)))


def _left_to_chain(told: Chronicle, running: bool, rpc: str, program: str | None) -> OnChain | None:
    """Of a job whose `submit` is gone before its end, what the chain says."""
    from .job_book import ask_chain

    return None if told.ended or running else trio.run(ask_chain, rpc, program, told)


@click.command()
@click.argument("job_id")
@job_options()
def trace(job_id: str, home: Path, name: str, as_json: bool) -> None:
    """Where a job's time went: every transition with its cause, and what each part of the way took."""
    from ..scheduler.timeline import parts, stays
    from .job_book import open_book
    from .job_text import show_trace, trace_json, wide_console

    with open_book(home, name) as book:
        told = book.find(job_id)
        now_ms = now_unix_ms() if book.running(told) else max((one.at_ms for one in told.records), default=0)
    steps, way = stays(told, now_ms), parts(told, now_ms)
    if as_json:
        click.echo(json.dumps(trace_json(told, steps, way)))
        return
    show_trace(wide_console(), told, steps, way)
    if told.damaged:
        click.echo(f"{told.damaged} records of this job cannot be read: what they said is missing here", err=True)


@click.command()
@click.argument("job_id", metavar="JOB_ID|RECEIPT")
@job_options()
def audit(job_id: str, home: Path, name: str, as_json: bool) -> None:
    """Recompute an award from its signed bids and tallies: of a job of this requester, or of a receipt file."""
    from ..protocol.audit import audit as audited
    from ..protocol.units import base58
    from .job_book import open_book
    from .job_text import audit_json, show_audit, wide_console

    if Path(job_id).is_file():
        terms, certificate = _award_of_receipt(Path(job_id))
    else:
        with open_book(home, name) as book:
            terms, certificate = _award_of_job(book, job_id)
    one, job = audited(terms, certificate), base58(terms.job)
    if as_json:
        click.echo(json.dumps(audit_json(job, one)))
    else:
        show_audit(wide_console(), job, one)


def _award_of_receipt(path: Path) -> tuple[Any, bytes]:
    from ..protocol.receipt import load_receipt, open_award, verify_receipt
    from .receipt import read_receipt

    loaded = load_receipt(read_receipt(path))
    verify_receipt(loaded)
    terms, certificate = open_award(loaded)
    if not certificate:
        raise _no_award(f"this job ended {loaded['status']} without an award", "there is nothing to recompute")
    return terms, certificate


def _award_of_job(book: Book, job_id: str) -> tuple[Any, bytes]:
    from ..scheduler.job_evidence import evidence_of

    told = book.find(job_id)
    found, certificate = evidence_of(told), told.evidence.get("certificate", b"")
    if found.terms is None and found.notes:
        raise _no_award(found.notes[0], "give the job's receipt instead")
    if found.terms is None or not certificate:
        text = f"the journal has no award of this job, which is {told.phase.value}"
        raise _no_award(text, f"cyxnode job explain {told.name}")
    return found.terms, certificate


def _no_award(text: str, fix: str) -> LocalError:
    return LocalError(text, field="certificate", fix=fix)
