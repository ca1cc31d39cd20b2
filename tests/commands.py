"""Runs cyxnode commands as real processes, each with a time limit, and finds those that outlive their test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

CYXNODE = [sys.executable, "-m", "cyxnode.cli.main"]
EXAMPLES = Path(__file__).parents[1] / "examples"
READY_S = 60.0
LOGGED = ("--log-level", "info", "--log-format", "json")
"""Options with which a log can be read by `events`."""


def environment(home: Path) -> dict[str, str]:
    """Nothing of the developer's own settings; temporary files inside `home`, so that they are found there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CYXNODE_")}
    return {**kept, "CYXNODE_HOME": str(home), "TMPDIR": str(home), "COLUMNS": "200"}


def cyxnode(home: Path, *arguments: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its whole process group is killed after `within_s`."""
    with started(home, *arguments) as process:
        out, err = process.communicate(timeout=within_s)
    return subprocess.CompletedProcess(arguments, process.returncode, out.decode(), err.decode())


@contextmanager
def started(home: Path, *arguments: str, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A running command, killed with its process group at the end. Its standard error goes to `log`, else to a pipe."""
    sink = log.open("wb") if log else None
    process = subprocess.Popen(
        [*CYXNODE, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sink or subprocess.PIPE,
        env=environment(home),
        start_new_session=True,
        bufsize=0,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr, sink):
            if stream is not None:
                stream.close()


@contextmanager
def processes(home: Path, *options: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function that starts `cyxnode OPTIONS ARGUMENTS` in `home`, logging to NAME.log there. All of them end with the
    context, and nothing may be left over."""
    home.mkdir(exist_ok=True)
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(started(home, *options, *arguments, "--json", log=home / f"{name}.log"))

        yield start
    until(lambda: not left_over(home), 10, "all ended")


def ready_line(process: subprocess.Popen[bytes], within_s: float = READY_S) -> dict[str, Any]:
    """The JSON line with which a long-running command says that it is ready."""
    assert process.stdout is not None
    line, deadline = b"", time.monotonic() + within_s
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        chunk = process.stdout.read(4096) if readable else b""
        assert chunk, f"not ready: {line!r}"
        line += chunk
    facts = json.loads(line)
    assert isinstance(facts, dict)
    return facts


def until(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {within_s} s")


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Every process below a command."""
    return psutil.Process(process.pid).children(recursive=True)


def running(processes: list[psutil.Process]) -> list[str]:
    """Those that still run; a zombie does not."""
    alive = []
    for one in processes:
        try:
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                alive.append(" ".join(one.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return alive


def left_over(home: Path) -> list[str]:
    """Command lines of running processes that name `home`."""
    return running(
        [one for one in psutil.process_iter(["cmdline"]) if str(home) in " ".join(one.info["cmdline"] or [])]
    )


def order_file(folder: Path, **changes: str) -> Path:
    """The digits example with some values replaced, e.g. `epochs="40"`; `name="..."` is TOML text."""
    lines = (EXAMPLES / "digits.toml").read_text().replace("digits_cnn.json", str(EXAMPLES / "digits_cnn.json"))
    result = []
    for line in lines.splitlines():
        name = line.split("=")[0].strip()
        result.append(f"{name} = {changes.pop(name)}" if name in changes else line)
    path = folder / "order.toml"
    extra = "".join(f"{name} = {value}\n" for name, value in changes.items())
    path.write_text("\n".join(result).replace("[job]\n", f"[job]\n{extra}") + "\n")
    return path


def events(log: Path, event: str) -> list[dict[str, Any]]:
    """Records of one kind in a JSON log."""
    records = (json.loads(line) for line in log.read_text(errors="replace").splitlines() if line.startswith("{"))
    return [record for record in records if record.get("event") == event]


def seen(log: Path) -> set[str]:
    """Nodes that have appeared in the sight of one that logged so."""
    return {record["peer"] for record in events(log, "NodeAppeared")}


def assert_one_line(ended: subprocess.CompletedProcess[str], field: str, code: int) -> None:
    """A refusal: one line that names the field and a fix, and the exit code."""
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith(f"error: {field}: "), lines[0]
    assert "(fix: " in lines[0] and lines[0].endswith(")"), lines[0]
    assert ended.returncode == code
