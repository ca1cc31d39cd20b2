"""Look for inputs that break a law of `targets.py`, with coverage as the guide; `make fuzz` runs it.

    .venv/bin/python tests/fuzz/atheris_run.py TARGET SECONDS [--found FOLDER]

Begins with the valid inputs and the committed corpus. Inputs that reach new code go to FOLDER (build/fuzz/TARGET by
default); copy the few that are small and new into the corpus. An input that breaks a law is written to
build/fuzz/TARGET.crash-… and shown; put it into the corpus together with the cure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent.parent)]
with atheris.instrument_imports(include=["cyxnode.protocol", "cyxnode.p2p", "cyxnode.bootstrap", "cyxnode.ledger",
                                         "cyxnode.executor.graph", "cyxnode.executor.tensors", "cyxnode.executor.ops",
                                         "cyxnode.scheduler.data_service", "msgspec", "solana.rpc"]):  # fmt: skip
    from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path("build/fuzz")
INPUT_MAX_BYTES = 16_384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("seconds", type=int)
    parser.add_argument("--found", type=Path)
    options = parser.parse_args()
    fuzzed, committed = TARGETS[options.target], CORPUS / options.target
    found: Path = options.found or FOUND / options.target
    with tempfile.TemporaryDirectory() as folder:
        seeds, words = Path(folder, "seeds"), Path(folder, "words")
        for one in (seeds, committed, found):
            one.mkdir(parents=True, exist_ok=True)
        for seed in fuzzed.seeds:
            (seeds / sha256(seed).hexdigest()[:16]).write_bytes(seed)
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in one) + '"\n' for one in fuzzed.words))
        folders = [found, committed, seeds]
        arguments = [sys.argv[0], *map(str, folders), f"-artifact_prefix={found}.", f"-max_len={INPUT_MAX_BYTES}"]
        arguments += [f"-max_total_time={options.seconds}", "-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1"]
        arguments += ["-verbosity=0", *([f"-dict={words}"] if fuzzed.words else [])]
        atheris.Setup(arguments, fuzzed.run)
        atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
