"""Reward models on public sets of human judgements, by way of the event log and the rows made of it.

usage: reward_model.py --data SHARED_DATA --model FOLDER [--pairs 2000] [--seeds 3] [--sets truthfulqa ifllm mlqe]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit"))

from helpers import real_judgements as sets

from rlhf_lightning.feedback.row_files import write_rows
from rlhf_lightning.feedback.rows import Rows, rows_of, split_rows

SETS = {
    "truthfulqa": (sets.truthfulqa, "truthfulqa", "prompt"),
    "ifllm": (sets.ifllm, "ifllm_implicit", "person"),
    "mlqe": (sets.mlqe_corrections, "mlqe_pe_enzh", "prompt"),
}


def measured(name: str, data: Path, model: Path, pairs: int, seed: int, place: Path) -> dict[str, float]:
    """Figures on held-out pairs of a reward model that is trained on the rest."""
    read, folder, by = SETS[name]
    made = rows_of(list(read(data / folder)))
    preferences = made.preferences
    if len(preferences) > pairs:
        preferences = random.Random(seed).sample(preferences, pairs)
    rest, held = split_rows(Rows(preferences=preferences), 0.15, by, seed)  # type: ignore[arg-type]
    write_rows(place / "rows", rest, held)
    options = ["stages=[reward]", "task=dialogue", "data=files", "logger=csv", "trainer.enable_progress_bar=false"]
    options += [f"data.{part}={place}/rows/{part}.jsonl" for part in ("preferences", "preferences_test")]
    options += ["model=minilm", f"model.name={model}", f"seed={seed}", f"hydra.run.dir={place}/run"]
    options += ["task.max_prompt_tokens=128", "task.max_completion_tokens=128"]
    done = subprocess.run([Path(sys.executable).parent / "rlhf-train", *options], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads((place / "run" / "metrics.json").read_text())["reward_model"]
    return {**found, "pairs": len(rest.preferences), "held_out": len(held.preferences)}


def main() -> None:
    """Print a line for each set and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("RLHF_SHARED_DATA"), required=False)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to start from, such as MiniLM")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    args = parser.parse_args()
    for name in args.sets:
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as place:
                found = measured(name, args.data, args.model, args.pairs, seed, Path(place))
            told = {key: round(value, 3) for key, value in found.items()}
            print(f"{name}, seed {seed}: {told}", flush=True)


if __name__ == "__main__":
    main()
