"""How long it takes to start, and how much memory is taken before anything is trained (Linux).

    python tests/benchmarks/speed/startup.py
    python tests/benchmarks/speed/startup.py --runs 9 --json outputs/startup.json

Every run is a process of its own; the first of each command is not counted, as it may have to read the files from disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = "import sys; from rlhf_lightning.train import main; sys.exit(main())"
"""What the console script `rlhf-train` does; that of this interpreter need not be on the path."""

COMMANDS: dict[str, tuple[list[str], int]] = {
    "python -c pass": (["pass"], 0),
    "import rlhf_lightning": (["import rlhf_lightning"], 0),
    "rlhf-train --help": ([TRAIN, "--help"], 0),
    "rlhf-train --cfg job": ([TRAIN, "--cfg", "job"], 0),
    "rlhf-train task=qaa": ([TRAIN, "task=qaa"], 2),
    "rlhf-train ppo.ecohs=2": ([TRAIN, "ppo.ecohs=2"], 2),
    "rlhf-train resume=nowhere": ([TRAIN, "resume=nowhere"], 2),
}
"""What is timed: the code and its arguments, and the status that it ends with."""

IMPORTS = ("torch", "lightning", "rlhf_lightning.pipeline", "rouge_score.rouge_scorer")
"""Modules in the order in which they are imported; the last is ROUGE's, which loads nltk when it is first used."""

MEMORY = """
import importlib, json, pathlib, re, sys
sizes = {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    sizes[name] = int(re.search(r"VmRSS:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024 / 1e6
print(json.dumps(sizes))
"""


def call(arguments: list[str], status: int) -> str:
    """What a new interpreter prints, in an empty folder; it has to end with ``status``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != status:
        raise SystemExit(f"{arguments} ended with {done.returncode} instead of {status}:\n{done.stderr[-4000:]}")
    return done.stdout


def seconds(arguments: list[str], status: int, runs: int) -> list[float]:
    """Wall time of each run, after one that is not counted."""
    taken = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        call(arguments, status)
        taken.append(time.perf_counter() - start)
    return taken[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="that are timed of each command")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"{'command':<28} {'median s':>9} {'least':>7} {'most':>7}")
    times: dict[str, list[float]] = {}
    for name, (arguments, status) in COMMANDS.items():
        times[name] = seconds(arguments, status, args.runs)
        print(f"{name:<28} {statistics.median(times[name]):>9.3f} {min(times[name]):>7.3f} {max(times[name]):>7.3f}")
    memory: dict[str, float] = json.loads(call([MEMORY, *IMPORTS], 0))
    print(f"\n{'in one process, after':<28} {'RSS in MB':>9} {'more':>7}")
    before = 0.0
    for name, size in memory.items():
        print(f"{name:<28} {size:>9.0f} {size - before:>+7.0f}")
        before = size
    if args.json:
        args.json.write_text(json.dumps({"seconds": times, "rss_mb": memory}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
