"""Train every stage in every way that must come to the same, and print the largest differences.

    python tests/benchmarks/equivalence.py

Each way against one process with whole batches: the largest difference of any weight after the training (beside how far
the weights moved), and after it that of anything that was logged on the way. Fails above 1e-5 and 1e-3.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from helpers.tiny_models import write_model
from helpers.ways import STAGES, made, trained, ways


def logged(report: dict[str, Any], steps: bool) -> list[tuple[str, float]]:
    """What was logged, by name; of accumulated batches what validation logged alone, as they log their own loss."""
    rows = [*report["steps"], report["last"]] if steps else [report["last"]]
    return [(name, value) for row in rows for name, value in sorted(row.items()) if steps or "/val/" in name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kinds", nargs="+", default=["llama", "t5"])
    parser.add_argument("--stages", nargs="+", default=list(STAGES))
    arguments = parser.parse_args()
    failed = False
    names = [way for way in ways("sft") if way != "one process"]
    print(f"| stage | model | weights moved by | {' | '.join(names)} |\n{'| --- ' * (3 + len(names))}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            model = str(write_model(kind, Path(folder, kind)))
            for stage in arguments.stages:
                others = ways(stage)
                weights, report = trained(Path(folder, kind + stage), stage, model, *others.pop("one process"))
                start = made(stage, model, 4)[0].state_dict()
                moved = max(float((weights[name] - start[name]).abs().max()) for name in weights)
                cells = []
                for way, how in others.items():
                    other, told = trained(Path(folder, kind + stage + way), stage, model, *how)
                    apart = max(float((other[name] - weights[name]).abs().max()) for name in weights)
                    steps = stage.startswith("ppo") or way in ("two ranks", "sharded")
                    pairs = zip(logged(told, steps), logged(report, steps), strict=True)
                    gap = max(abs(a[1] - b[1]) for a, b in pairs if not (math.isnan(a[1]) and math.isnan(b[1])))
                    failed |= apart > 1e-5 or gap > 1e-3
                    cells.append(f"{apart:.1e}, {gap:.1e}")
                print(f"| {stage} | {kind} | {moved:.2g} | {' | '.join(cells)} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
