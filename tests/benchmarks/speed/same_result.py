"""PPO as it is run, and on the plain path, from the same policy and reward model: what does speed change?

    python tests/benchmarks/speed/same_result.py --task translation --seeds 0 1 2

The plain path draws responses with transformers' generate, and has logits of whole batches, padding included, from the
model's own forward. Both are given the same random numbers, so that they draw the same responses until roundings have
grown into another token. Each task is run with its sample data and its own settings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

PLAIN = (
    "import sys; from rlhf_lightning.models.policy import Policy; Policy.has_plain_head = False; "
    "from rlhf_lightning.train import main; sys.exit(main())"
)
FAST = "import sys; from rlhf_lightning.train import main; sys.exit(main())"
WAYS = {"fast": (FAST, []), "plain": (PLAIN, ["rollout=generate", "ppo.micro_batch_tokens=1000000"])}


def run(code: str, options: list[str], folder: Path) -> Path:
    """One run, unless it has finished before."""
    if not (folder / "report.html").exists():
        command = [sys.executable, "-c", code, *options, "logger=csv", f"hydra.run.dir={folder}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def measured(folder: Path) -> dict[str, float]:
    """Held-out figures of a run's last policy."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["policies"][-1]["metrics"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="translation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("outputs/same_result"))
    args = parser.parse_args()
    out = args.out.resolve()
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in args.seeds:
        common = [f"task={args.task}", f"seed={seed}"]
        start = run(FAST, [*common, "stages=[sft,reward]"], out / f"{args.task}-{seed}-start")
        models = [f"policy={start / 'sft' / 'model'}", f"reward_model={start / 'reward' / 'model'}"]
        for way, (code, options) in WAYS.items():
            clock = time.perf_counter()
            folder = run(code, [*common, "stages=[ppo]", *models, *options], out / f"{args.task}-{seed}-{way}")
            figures[way].append({**measured(folder), "seconds": time.perf_counter() - clock})
            print(f"seed {seed} {way}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures[way][-1].items()), flush=True)
    for name in figures["fast"][0]:
        columns = [[row[name] for row in figures[way]] for way in WAYS]
        spread = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
        apart = [abs(a - b) for a, b in zip(*columns, strict=True)]
        print(
            f"{name}: "
            + ", ".join(
                f"{way} {statistics.mean(c):.4g} +- {s:.2g}" for way, c, s in zip(WAYS, columns, spread, strict=True)
            )
            + f"; largest difference at one seed {max(apart):.2g}"
        )


if __name__ == "__main__":
    main()
