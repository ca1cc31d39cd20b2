"""Build the escrow program: `python -m cyxnode.ledger.program.build [--check]`.

The compiler is pinned (ziglang from PyPI, which carries clang), so that the same sources give the same bytes
anywhere. `--check` rebuilds into a temporary folder and fails when the committed program differs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent
PROGRAM, CHECKSUM = FOLDER / "escrow.so", FOLDER / "escrow.so.sha256"
COMPILER = "0.17.1"
COMPILE_TIMEOUT_S = 300
FLAGS = [
    *("-target", "bpfel-freestanding-none", "-mcpu=v2", "-O2", "-std=c11", "-ffreestanding", "-fno-builtin"),
    *("-fno-strict-aliasing", "-fno-jump-tables", "-fno-sanitize=all"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unused-function"),
]
"""-mcpu=v2: sBPF sign-extends 32-bit results, which BPF v3 would not expect. No builtins: there is no memcpy."""


def compile_object(source: Path) -> bytes:
    """Compile one C file with the pinned compiler; SystemExit with the compiler's words when it fails."""
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version != COMPILER:
        raise SystemExit(f"ziglang: {version} is installed, not {COMPILER} (fix: pip install ziglang=={COMPILER})")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "program.o"
        caches = {"ZIG_GLOBAL_CACHE_DIR": f"{folder}/global", "ZIG_LOCAL_CACHE_DIR": f"{folder}/local"}
        done = subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-c", source.name, "-o", str(out)],
            cwd=source.parent, env=os.environ | caches, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{source.name} does not compile (fix: see below)\n{done.stderr}")
        return out.read_bytes()


def build() -> bytes:
    """The program's ELF from the sources beside this file."""
    from .sbpf_link import LinkError, link

    try:
        return link(compile_object(FOLDER / "escrow.c"))
    except LinkError as error:
        raise SystemExit(f"escrow.c does not link: {error}") from None


def checksum_line(program: bytes) -> str:
    """Content of escrow.so.sha256, in the form that `sha256sum -c` reads."""
    return f"{sha256(program).hexdigest()}  {PROGRAM.name}\n"


def check() -> None:
    """SystemExit unless the committed program and checksum are what the sources give."""
    built = build()
    if not PROGRAM.exists() or PROGRAM.read_bytes() != built:
        raise SystemExit("escrow.so is not what its sources give (fix: python -m cyxnode.ledger.program.build)")
    if not CHECKSUM.exists() or CHECKSUM.read_text() != checksum_line(built):
        raise SystemExit("escrow.so.sha256 is stale (fix: python -m cyxnode.ledger.program.build)")


def main() -> None:
    """Build, or with --check compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="rebuild elsewhere and compare byte for byte")
    if parser.parse_args().check:
        check()
        return
    built = build()
    PROGRAM.write_bytes(built)
    CHECKSUM.write_text(checksum_line(built))


if __name__ == "__main__":
    main()
