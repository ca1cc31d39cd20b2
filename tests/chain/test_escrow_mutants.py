"""The mutation script works: it kills a mutant that a test notices, and fails for one that none does."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
program_equivalents, program_mutants = (
    importlib.import_module(name) for name in ("program_equivalents", "program_mutants")
)
RUN_LIMIT_S = 600


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "mutate_program.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)


def test_every_check_of_the_program_has_a_mutant_without_it() -> None:
    made = program_mutants.mutants()
    assert len({mutant.name for mutant in made}) == len(made)
    for file in program_mutants.SOURCES:
        text = (program_mutants.FOLDER / file).read_text()
        checks = text.count("REQUIRE(") - text.count("#define REQUIRE(")
        assert sum(m.file == file and m.name.startswith(f"{file}: no REQUIRE(") for m in made) == checks
        assert all(m.text != text for m in made if m.file == file)


def test_excuses_are_for_mutants_that_exist() -> None:
    assert program_equivalents.EQUIVALENT.keys() <= {mutant.name for mutant in program_mutants.mutants()}


@pytest.mark.slow
def test_mutants_are_killed() -> None:
    """A missing check of a time, of a signature, of an amount, and a counter that stands still."""
    for name in (
        "stake.h: no REQUIRE(now_s() >= n->unbonding_at_s", "quorum.h: no REQUIRE(count >= quorum",
        "close.h: no sum += j->shares[i]", "settle.h: no j->settlements++",
    ):  # fmt: skip
        done = _run("--only", name)
        assert (done.returncode, "1 mutants, 1 killed" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.slow
def test_a_mutant_that_nobody_notices_is_reported() -> None:
    """Tests of the draw know nothing of earned shares; nor can they excuse what is no difference."""
    done = _run("--only", "stake.h: no REQUIRE(n->earned", "--tests", "test_escrow_seat.py")
    assert (done.returncode, "SURVIVED" in done.stdout) == (1, True), done.stdout + done.stderr
    done = _run("--only", "open.h: no i == 0 in REQUIRE(", "--tests", "test_escrow_stake.py")
    assert (done.returncode, "1 equivalent" in done.stdout) == (0, True), done.stdout + done.stderr
