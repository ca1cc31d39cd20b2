"""Try the tests of the escrow program: `python scripts/mutate_program.py [--only TEXT] [--out FILE]`.

Builds every mutant of `program_mutants` and runs the fast tests of tests/chain against it. A mutant that survives is a
check that nobody would miss: exit 1, unless `EQUIVALENT` says why it is no difference. Takes ten minutes of two idle
cores; not part of `make check`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path

import pytest
from program_equivalents import EQUIVALENT
from program_mutants import FOLDER, Mutant, mutants

from cyxnode.ledger import escrow_layout
from cyxnode.ledger.program import build as program_build
from cyxnode.ledger.program.sbpf_link import LinkError, link

ROOT = FOLDER.parent.parent
TESTS = ROOT / "tests" / "chain"
FIRST = ("test_escrow_terms.py", "test_escrow_griefing.py", "test_escrow_verdicts.py", "test_escrow_settle.py")
LEFT_OUT = ("test_escrow_sources.py", "test_escrow_mutants.py", "test_escrow_sizes.py", "test_escrow_model.py")
"""They look at sources, run mutants themselves, measure, or are played before."""
SHORT_GAME = "test_escrow_model.py::test_one_short_game"
NOT_BUILT, SURVIVED = "does not build", "SURVIVED"


@dataclass(frozen=True, slots=True)
class Fate:
    """`killer` is the first test that failed, or NOT_BUILT or SURVIVED."""

    mutant: Mutant
    killer: str

    @property
    def excuse(self) -> str | None:
        return EQUIVALENT.get(self.mutant.name) if self.killer == SURVIVED else None


def test_files() -> list[str]:
    """Tests of the program, those that kill most first."""
    rest = sorted(path.name for path in TESTS.glob("test_escrow_*.py") if path.name not in (*FIRST, *LEFT_OUT))
    return [str(TESTS / name) for name in (*FIRST, *rest)]


def build_mutant(mutant: Mutant) -> bytes | None:
    """Its ELF; None when it does not compile."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "program"
        shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        (copy / mutant.file).write_text(mutant.text)
        try:
            return link(program_build.compile_object(copy / "escrow.c"))
        except (LinkError, SystemExit):
            return None


def _run(program: Path, arguments: list[str]) -> str:
    """The first test that fails against `program`, or SURVIVED."""
    notes = FirstFailure()
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", f"--escrow-program={program}"]
    with redirect_stdout(StringIO()) as said:
        code = pytest.main([*options, *arguments], plugins=[notes])
    if code == pytest.ExitCode.OK:
        return SURVIVED
    if not notes.name:
        raise SystemExit(f"the tests did not run:\n{said.getvalue()}")
    return notes.name


def _loses(program: Path) -> bool:
    """Whether the short game is lost: it kills nine of ten mutants, and needs no pytest for that."""
    escrow_layout.PROGRAM_PATH = program
    machine = importlib.import_module("escrow_model.machine")
    try:
        return machine.fails(machine.SHORT_GAME) is not None
    except Exception:  # a mutant may write accounts that nobody can decode: whatever happens, it was noticed
        return True


class FirstFailure:
    """A plugin of pytest that remembers the first test that failed."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.rpartition("/")[2].partition("[")[0]


def judge(mutant: Mutant, tests: Sequence[str] = ()) -> Fate:
    """Build a mutant and look for a test that notices, in these files of tests/chain only if there are any.

    Call it in a process of its own: pytest loads the tests once and forgets nothing.
    """
    built = build_mutant(mutant)
    if built is None:
        return Fate(mutant, NOT_BUILT)
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "escrow.so"
        program.write_bytes(built)
        if not tests and _loses(program):
            return Fate(mutant, SHORT_GAME)
        files = [str(TESTS / name) for name in tests] or test_files()
        killer = _run(program, [*files, "-m", "not slow"])
    return Fate(mutant, killer)


def judged(chosen: Iterable[Mutant], workers: int, tests: Sequence[str]) -> Iterator[Fate]:
    """The fate of each, in order. Forked processes start with everything imported, which saves most of the time."""
    os.environ["CI"] = "1"
    if "-Werror" in program_build.FLAGS:  # a check left out may leave a parameter unused
        program_build.FLAGS.remove("-Werror")
    sys.path.insert(0, str(ROOT / "tests"))
    importlib.import_module("escrow_model.machine")
    with redirect_stdout(StringIO()):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *test_files()])
    with Pool(workers, maxtasksperchild=1, context=get_context("fork")) as pool:
        yield from pool.imap(partial(judge, tests=tests), chosen, chunksize=1)


def row(fate: Fate) -> str:
    """One line of the table."""
    said = f"{fate.killer}: {fate.excuse}" if fate.excuse else fate.killer
    return f"{fate.mutant.file}:{fate.mutant.line} | {fate.mutant.name.partition(': ')[2]} | {said}"


def main() -> int:
    """1 when a mutant survived that is not excused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--tests", nargs="*", default=[], help="files of tests/chain to try, instead of all")
    parser.add_argument("--out", type=Path, help="write the table to this file, too")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [mutant for mutant in mutants() if options.only in mutant.name]
    fates: list[Fate] = []
    for fate in judged(chosen, options.workers, options.tests):
        fates.append(fate)
        print(row(fate), flush=True)
    bad = [fate for fate in fates if fate.killer == SURVIVED and not fate.excuse]
    built = [fate for fate in fates if fate.killer != NOT_BUILT]
    killed = sum(fate.killer != SURVIVED for fate in built)
    summary = (
        f"{len(built)} mutants, {killed} killed, {len(built) - killed - len(bad)} equivalent, {len(bad)} survived "
        f"({len(fates) - len(built)} more do not build)"
    )
    print(summary)
    if options.out:
        options.out.write_text("\n".join([summary, *map(row, built)]) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
