"""What `cyxnode doctor` asks of the machine: Python, packages, disk, journal, key, sandbox, GPU, port.

What a check reads of the world is an argument, whose default is the real one. They block, and run in threads.
"""

from __future__ import annotations

import ipaddress
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from ..executor.sandbox import choose_sandbox
from ..ledger.journal import LevelJournal
from ..protocol.errors import LocalError
from ..protocol.identity import load_key
from ..protocol.limits import CHECK_TIMEOUT_S, DISK_FREE_MIN_BYTES, DISK_FREE_WANTED_BYTES
from ..protocol.units import base58
from .checkup import Finding, failure, fine, warning

PYTHON_MIN = (3, 11)
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Sequence[Finding]:
    """Its version."""
    text = ".".join(map(str, version))
    if version < PYTHON_MIN:
        return [failure(f"Python {text} is too old", "install Python 3.11 or newer, and set cyxnode up with it")]
    return [fine(f"Python {text}")]


def check_packages(
    required: Iterable[str] | None = None,
    installed: Callable[[str], str] = metadata.version,
    constraints: Path = CONSTRAINTS,
) -> Sequence[Finding]:
    """What is installed, against the ranges of the package and, in a checkout, the tested versions."""
    pins = _pins(constraints)
    found: list[Finding] = []
    count = 0
    for text in required if required is not None else metadata.requires("cyxnode") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = installed(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(failure(f"{requirement.name} is not installed", f"pip install '{requirement}'"))
            continue
        pin = pins.get(_plain(requirement.name), version)
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(failure(f"{requirement.name} {version} does not fit", f"pip install '{requirement}'"))
        elif version.partition("+")[0] != pin.partition("+")[0]:
            fix = f"pip install {requirement.name}=={pin}"
            found.append(warning(f"{requirement.name} {version} is not the tested {pin}", fix))
    return found or [fine(f"{count} packages fit{' and are the tested versions' if pins else ''}")]


def _pins(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lines = (line.partition("==") for line in path.read_text().splitlines() if "==" in line and line[0] != "#")
    return {_plain(name): version.strip() for name, _, version in lines}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def check_disk(home: Path, free_bytes: Callable[[Path], int] = lambda p: shutil.disk_usage(p).free) -> list[Finding]:
    """Room for blobs and states, where --home lies or will lie."""
    there = next(path for path in (home.absolute(), *home.absolute().parents) if path.exists())
    free = free_bytes(there)
    text, fix = f"{free / 1024**3:.1f} GiB are free at {there}", "free some space, or choose another --home"
    if free < DISK_FREE_MIN_BYTES:
        return [failure(text, fix)]
    return [warning(text, fix) if free < DISK_FREE_WANTED_BYTES else fine(text)]


def check_journal(folder: Path) -> Sequence[Finding]:
    """Whether it opens; one that is in use belongs to a running node, which has opened it."""
    path = folder / "journal"
    if not path.exists():
        return [fine(f"{path} will be made")]

    try:
        LevelJournal(path).close()
    except LocalError as error:
        if "in use" in error.message:
            return [fine(f"{path} is in use by a running process")]
        return [failure(error.message, error.fix)]
    return [fine(f"{path} opens")]


def check_key(path: Path) -> Sequence[Finding]:
    """Whether there is one that nobody else can read."""
    if not path.exists():
        return [warning(f"there is no key at {path} yet", "it is made at the first start; or: cyxnode keygen")]
    return [fine(f"{path} is the key of {base58(load_key(path).node_id)}")]


def confines() -> bool:
    """Whether a child process can put our system call filter on itself."""
    code = "import sys; from cyxnode.executor.seccomp import confine; sys.exit(not confine())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=CHECK_TIMEOUT_S, check=False)
    return done.returncode == 0


def check_sandbox(
    choose: Callable[..., object] = choose_sandbox, confined: Callable[[], bool] = confines
) -> Sequence[Finding]:
    """Bubblewrap and seccomp, by using them."""
    found = []
    try:
        choose("bubblewrap")
        found.append(fine("bubblewrap works"))
    except LocalError as error:
        text = f"{error.message}; only requesters that accept it will send jobs here"
        found.append(
            warning(text, "apt install bubblewrap, and allow user namespaces (sysctl user.max_user_namespaces)")
        )
    if confined():
        return [*found, fine("seccomp filters system calls")]
    return [*found, warning("workers cannot filter their system calls", "use Linux on x86-64 with seccomp enabled")]


Card = tuple[str, str]
"""A GPU's name and its driver's version."""


def cards() -> list[Card]:
    """The GPUs that NVIDIA's driver shows."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [(_text(pynvml.nvmlDeviceGetName(handle)), driver) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def torch_build() -> tuple[str, str | None, bool]:
    """PyTorch's version, the CUDA that it was built for, and whether it can use a card here. Takes seconds."""
    import torch

    return str(torch.__version__), torch.version.cuda, torch.cuda.is_available()


def check_gpu(
    seen: Callable[[], list[Card]] = cards, build: Callable[[], tuple[str, str | None, bool]] = torch_build
) -> Sequence[Finding]:
    """Whether card, driver and PyTorch fit together."""
    found = seen()
    version, cuda, usable = build()
    if not found:
        return [fine(f"no NVIDIA GPU is here: jobs run on the CPU with PyTorch {version}")]
    (name, driver), *_ = found
    if usable:
        return [fine(f"{len(found)} x {name}, driver {driver}, PyTorch {version} for CUDA {cuda}")]
    if cuda is None:
        fix = "install the CUDA build of this PyTorch version: pip install torch==2.13.0"
        return [warning(f"{name} is here, but PyTorch {version} was built without CUDA", fix)]
    fix = f"install a driver for CUDA {cuda} or newer, or a PyTorch that was built for this driver"
    return [warning(f"PyTorch {version} for CUDA {cuda} cannot use {name} with driver {driver}", fix)]


def _own_hosts() -> list[str]:
    return [one.address for interface in psutil.net_if_addrs().values() for one in interface]


def check_port(host: str, port: int, own: Callable[[], list[str]] = _own_hosts) -> Sequence[Finding]:
    """Whether peers can dial us there, as far as this machine can tell."""
    return [_bindable(host, port), _reach(host, own())]


def _bindable(host: str, port: int) -> Finding:
    if port == 0:
        fix = "choose a port, e.g. --listen 0.0.0.0:4002"
        return warning("another free port is taken at each start: peers lose a node that restarts", fix)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            fix = "choose another --listen, unless it is a node of yours that listens there"
            return warning(f"{host}:{port} cannot be bound now: {error.strerror}", fix)
    return fine(f"{host}:{port} is free")


def _reach(host: str, own: list[str]) -> Finding:
    hosts = [text.partition("%")[0] for text in (own if host in ("0.0.0.0", "::") else [host])]
    addresses = []
    for text in hosts:
        try:
            addresses.append(ipaddress.ip_address(text))
        except ValueError:
            continue
    public = [one for one in addresses if one.is_global]
    if public:
        return fine(f"{public[0]} is a public address; that no firewall is in front cannot be seen from here")
    if any(not one.is_loopback and not one.is_link_local for one in addresses):
        fix = "forward the port in your router, or run the node where it has a public address"
        return warning("only peers of your own network can dial you: the address is private", fix)
    fix = "listen where others are: --listen 0.0.0.0:4002"
    return warning("only programs of this machine can dial you: the address is loopback", fix)
