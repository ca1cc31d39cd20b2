"""How a worker process is walled in: the bubblewrap command, its probe, and the limits a worker puts on itself.

Inside there is a read-only system, the Python installation, and of this package only `executor` and `protocol`; no
home, no /etc, no network, no other processes, a private /tmp, and the user nobody. Without bubblewrap a worker still
has its resource limits and its seccomp filter, and the node says 'none' in its description.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from ..protocol.errors import LocalError
from ..protocol.limits import (
    WORKER_FILE_BYTES_MAX,
    WORKER_FILES_MAX,
    WORKER_NICENESS,
    WORKER_START_MAX_S,
    WORKER_THREADS_MAX,
    WORKER_TIME_MAX_S,
)

Sandbox = Literal["bubblewrap", "none"]
SandboxChoice = Literal["auto", "bubblewrap", "none"]

_PACKAGE = Path(__file__).resolve().parent
_INSIDE = "/app"
_GPU_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *(f"nvidia{index}" for index in range(16)))


def choose_sandbox(wanted: SandboxChoice) -> Sandbox:
    """Bubblewrap where it really works, probed by running it. LocalError when it is demanded and does not."""
    if wanted == "none":
        return "none"
    problem = _probe()
    if problem is None:
        return "bubblewrap"
    if wanted == "bubblewrap":
        raise LocalError(problem, field="sandbox", fix="apt install bubblewrap and allow user namespaces, or use none")
    return "none"


def _probe() -> str | None:
    """Why bubblewrap cannot be used here, or None."""
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    command = bubblewrap([sys.executable, "-c", ""], {}, gpu=False)
    try:
        outcome = subprocess.run(command, capture_output=True, timeout=WORKER_START_MAX_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not run: {error}"
    if outcome.returncode != 0:
        return f"bwrap does not run: {outcome.stderr.decode(errors='replace').strip()[:120]}"
    return None


def worker_command(
    sandbox: Sandbox, arguments: Sequence[str], environment: Mapping[str, str], *, gpu: bool
) -> tuple[list[str], dict[str, str]]:
    """Command line and environment that start `python -m cyxnode.executor.worker`."""
    python = [sys.executable, "-s", "-P", "-B", "-m", "cyxnode.executor.worker", *arguments]
    if sandbox == "bubblewrap":
        inside = {**environment, "PYTHONPATH": _INSIDE, "HOME": "/tmp", "TMPDIR": "/tmp", "PATH": "/usr/bin:/bin"}
        return bubblewrap(python, inside, gpu=gpu), dict(os.environ)
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ}
    return python, {**kept, **environment}


def bubblewrap(command: Sequence[str], environment: Mapping[str, str], *, gpu: bool) -> list[str]:
    """Wrap `command`. The command must end by itself when its standard input does, as a worker does.

    --die-with-parent is left out: a bubblewrap that is killed in its first milliseconds leaves a child behind that
    waits for it forever, so nothing may kill it when the node dies; it goes when the worker goes.
    """
    wrapped = ["bwrap", "--unshare-all", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    wrapped += ["--uid", "65534", "--gid", "65534", "--hostname", "worker"]
    wrapped += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for name in ("lib", "lib32", "lib64", "bin", "sbin"):
        root = Path("/", name)
        if root.is_symlink():
            wrapped += ["--symlink", os.readlink(root), str(root)]
        elif root.is_dir():
            wrapped += ["--ro-bind", str(root), str(root)]
    for optional in ("/etc/ld.so.cache", "/sys/devices/system/cpu"):
        wrapped += ["--ro-bind-try", optional, optional]
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
        if not Path(prefix).is_relative_to("/usr"):
            wrapped += ["--ro-bind", prefix, prefix]
    if gpu:
        for node in _GPU_NODES:
            wrapped += ["--dev-bind-try", f"/dev/{node}", f"/dev/{node}"]
        wrapped += ["--ro-bind-try", "/sys", "/sys"]
    wrapped += _package_binds()
    for name, value in environment.items():
        wrapped += ["--setenv", name, value]
    return [*wrapped, "--remount-ro", "/", "--chdir", "/tmp", "--", *command]


def _package_binds() -> list[str]:
    """Only what a worker imports, and at one place, whether the package is installed or linked from a checkout."""
    root = _PACKAGE.parent
    binds = ["--ro-bind", str(root / "__init__.py"), f"{_INSIDE}/cyxnode/__init__.py"]
    for part in ("executor", "protocol"):
        binds += ["--ro-bind", str(root / part), f"{_INSIDE}/cyxnode/{part}"]
    return binds


def limit_self(*, memory_bytes: int | None, seconds: float = WORKER_TIME_MAX_S) -> None:
    """Resource limits of the calling process, for good. `memory_bytes` bounds address space; None with CUDA."""
    os.nice(WORKER_NICENESS)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, WORKER_FILE_BYTES_MAX)
    _limit(resource.RLIMIT_NOFILE, WORKER_FILES_MAX)
    _limit(resource.RLIMIT_CPU, int(seconds))
    if memory_bytes is not None:
        _limit(resource.RLIMIT_AS, memory_bytes)


def limit_threads() -> None:
    """Bound processes and threads, where the kernel counts them per namespace; otherwise leave them alone.

    Elsewhere the count includes all of the user's processes, and the limit could forbid our own threads.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(
        resource.RLIMIT_NPROC, (min(WORKER_THREADS_MAX, hard) if hard >= 0 else WORKER_THREADS_MAX, hard)
    )
    try:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    except RuntimeError:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    else:
        _limit(resource.RLIMIT_NPROC, WORKER_THREADS_MAX)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard < 0 else min(value, hard)
    resource.setrlimit(kind, (value, value))
