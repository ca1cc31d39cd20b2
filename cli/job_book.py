"""A requester's jobs as its journal has them: read from a copy, so that a running `submit` is not in the way.

LevelDB lets one process in. A second file beside it could be read at any time, but then two records of one job would
have to agree after every kill; the copy is what the journal itself would say after a kill now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..ledger.journal_copy import open_copy, owner_of
from ..protocol.errors import CyxError, LocalError
from ..protocol.identity import KeyPair
from ..protocol.limits import CANDIDATES_SHOWN_MAX
from ..protocol.ports import Journal
from ..scheduler.chronicle import Chronicle, last_number, numbers_named, read_chronicle, read_chronicles
from ..scheduler.explanation_left import OnChain
from .settings import identity_folder, program_id
from .text import plain

FIX_ID = "see cyxnode job list; --home and --name choose whose; cyxnode job watch follows the jobs of others"


@dataclass(frozen=True, slots=True)
class Book:
    """The jobs of one identity. `journal` is None when it never placed one; `owner` is the process that has the journal
    open, see `owner_of`."""

    folder: Path
    journal: Journal | None
    owner: int | None

    def running(self, told: Chronicle) -> bool:
        """Whether the `submit` of a job is up: one at a time owns the journal, and works on its newest order."""
        if self.owner is None or self.journal is None or told.number != last_number(self.journal):
            return False
        process = told.placed.process if told.placed is not None else 0
        return not process or not self.owner or process == self.owner

    def latest(self, limit: int) -> list[Chronicle]:
        """Newest first."""
        return list(read_chronicles(self.journal, limit)) if self.journal is not None else []

    def find(self, text: str) -> Chronicle:
        """The job whose id begins with `text`, or the order of that number; LocalError names the candidates."""
        named = numbers_named(self.journal, text) if self.journal is not None and text else {}
        if len(set(named.values())) > 1:
            shown = sorted(named)[:CANDIDATES_SHOWN_MAX]
            more = f" and {len(named) - len(shown)} more" if len(named) > len(shown) else ""
            fix = f"give more of one of {', '.join(shown)}{more}"
            raise LocalError(f"{plain(text)!r} could be {len(named)} jobs", field="job_id", fix=fix)
        told = None
        if self.journal is not None and named:
            told = read_chronicle(self.journal, next(iter(named.values())))
        if told is None:
            raise LocalError(f"no job of this requester begins with {plain(text)[:80]!r}", field="job_id", fix=FIX_ID)
        return told

    def results_folder(self, told: Chronicle) -> Path:
        """Where the files of a job are put."""
        named = told.placed.results if told.placed is not None else ""
        return Path(named) if named else self.folder / "results"

    def results(self, told: Chronicle) -> dict[str, str]:
        """The files that a job has left, by what they are."""
        folder = self.results_folder(told)
        paths = {what: folder / f"{told.name}.{suffix}" for what, suffix in RESULT_FILES.items()}
        return {what: str(path) for what, path in paths.items() if os.path.isfile(path)}


RESULT_FILES = {"weights": "safetensors", "answers": "answers.json", "receipt": "receipt.json"}


@contextmanager
def open_book(home: Path, name: str) -> Iterator[Book]:
    """LocalError when the journal is damaged."""
    folder = identity_folder(home, name)
    path = folder / "journal"
    if not path.is_dir():
        yield Book(folder, None, None)
        return
    owner = owner_of(path)
    with open_copy(path) as journal:
        yield Book(folder, journal, owner if owner is not None else owner_of(path))


async def ask_chain(rpc: str, program: str | None, told: Chronicle) -> OnChain | None:
    """What the chain says of a job that its `submit` left; None of one that never had an id."""
    if told.job is None:
        return None
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc

    funded = told.funded
    address = funded.program if funded is not None and program is None else program_id(program)
    async with open_http_rpc(rpc) as client:
        chain = ChainClient(client, KeyPair.generate(), address)
        try:
            if funded is not None and (await chain.config()).genesis != funded.genesis:
                return OnChain(fault="--rpc is of another network")
            account = await chain.job(told.job)
            landed = await chain.settlements(told.job)
        except CyxError as error:
            return OnChain(fault=str(error))
    return OnChain(account, landed[-1] if landed else None)
