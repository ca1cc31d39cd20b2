"""Plays worlds in processes of their own, so that a seed decides everything: a fresh interpreter with fixed hashing.

`python -m cyxnode.simulation.process` reads a plan as JSON from standard input, and writes lines of JSON: how far it
is, then the report. It ends by itself when nobody reads any more, and ignores Ctrl-C, which its parent answers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..protocol.errors import ExecutionFailed
from .plan import Plan

Tell = Callable[[float, int], None]
MODULE = "cyxnode.simulation.process"


def plan_to_json(plan: Plan) -> str:
    """One line."""
    return json.dumps(asdict(plan))


def plan_from_json(text: str) -> Plan:
    """The plan of `plan_to_json`."""
    fields: dict[str, Any] = json.loads(text)
    frozen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Plan(**frozen)


@dataclass(slots=True)
class Worlds:
    """Starts processes, and leaves none behind. `module` is what they run; `quiet` hides their standard error."""

    module: str = MODULE
    quiet: bool = False
    _live: set[subprocess.Popen[str]] = field(default_factory=set)
    _closed: bool = False

    def __enter__(self) -> Worlds:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def play(self, plan: Plan, tell: Tell | None = None) -> dict[str, Any]:
        """The report of a plan; ExecutionFailed when the process ends without one. May be called from any thread."""
        if self._closed:
            raise ExecutionFailed("no more worlds are started")
        child = subprocess.Popen(
            [sys.executable, "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if self.quiet else None,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self._live.add(child)
        if self._closed:  # meanwhile, by another thread
            child.kill()
        try:
            return self._converse(child, plan, tell)
        finally:
            self._end(child)
            self._live.discard(child)

    def close(self) -> None:
        """End all that still run, and start no more."""
        self._closed = True
        self.interrupt()

    def interrupt(self) -> None:
        """End all that still run."""
        for child in list(self._live):
            child.kill()

    @staticmethod
    def _converse(child: subprocess.Popen[str], plan: Plan, tell: Tell | None) -> dict[str, Any]:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(plan_to_json(plan))
        child.stdin.close()
        for line in child.stdout:
            said = json.loads(line)
            if "report" in said:
                report: dict[str, Any] = said["report"]
                return report
            if tell is not None:
                tell(said["virtual_s"], said["jobs"])
        raise ExecutionFailed(f"the world ended without a report (exit code {child.wait()}): {plan.command()}")

    @staticmethod
    def _end(child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        child.kill()  # what it had to say was read, or nobody wants it
        child.stdout.close()
        child.wait()


def _say(said: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)  # nobody reads any more


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main() -> None:
    """Play the plan on standard input."""
    import structlog

    from .report import crashed, report_of
    from .run import run_plan

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    asked = sys.stdin.read()
    if not asked:  # whoever started this process was interrupted before it could say what to play
        return
    plan = plan_from_json(asked)
    try:
        report = report_of(run_plan(plan, lambda virtual_s, jobs: _say({"virtual_s": virtual_s, "jobs": jobs})))
    except Exception as error:  # an error of our own code is a find, like a broken invariant
        traceback.print_exc()
        cause = _first(error)
        report = crashed(plan.seed, plan.command(), f"the world broke down: {type(cause).__name__}: {cause}")
    _say({"report": report})


if __name__ == "__main__":
    main()
