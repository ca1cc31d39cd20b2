"""How long commands take to start: CPU time of `cyxnode --help`, and wall time until a node and a chain are ready.

The node's time includes its stake (one transaction on the local chain) and its worker's report of the execution class.

    .venv/bin/python benchmarks/startup.py [--json] [--repetitions N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import trio

from cyxnode.cli.processes import open_child

HELP_CPU_MAX_S = 0.4


def help_cpu_s() -> float:
    """User and system seconds of one `cyxnode --help`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "cyxnode.cli.main", "--help"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def ready_s(repetitions: int) -> dict[str, list[float]]:
    """Wall seconds until a chain, a bootstrap node and a node are ready, each started alone."""
    found: dict[str, list[float]] = {"chain": [], "bootstrap": [], "node": []}
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory(prefix="cyxnode-bench-") as folder:
            home, began = Path(folder), time.monotonic()
            async with open_child("chain", ["chain", "run", "--in-memory", "--port", "0"], home) as chain:
                found["chain"].append(time.monotonic() - began)
                common, began = ["--rpc", chain.facts["url"], "--listen", "127.0.0.1:0"], time.monotonic()
                async with open_child("bootstrap", ["bootstrap", "run", *common], home):
                    found["bootstrap"].append(time.monotonic() - began)
                    began = time.monotonic()
                    async with open_child("node", ["run", *common, "--faucet"], home):
                        found["node"].append(time.monotonic() - began)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    helps = [help_cpu_s() for _ in range(arguments.repetitions)]
    ready = trio.run(ready_s, arguments.repetitions)
    found = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average_1min": os.getloadavg()[0],
        "help_cpu_s": [round(value, 3) for value in helps],
        "ready_s": {name: [round(value, 2) for value in values] for name, values in ready.items()},
        "passed": median(helps) < HELP_CPU_MAX_S,
    }
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        verdict = "pass" if found["passed"] else "FAIL"
        print(f"cyxnode --help: {median(helps):.3f} s of CPU (at most {HELP_CPU_MAX_S}) {verdict}")
        for name, values in ready.items():
            print(f"{name:10} ready after {median(values):.2f} s")
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
