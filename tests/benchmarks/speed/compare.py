"""Ours and a peer on the same work, in turn, each in a process of its own; the ratio is taken pair by pair.

    python tests/benchmarks/speed/compare.py ppo-5m ppo-135m --models MODELS --peer-python PYTHON
    python tests/benchmarks/speed/compare.py sample-5m sft-5m --models MODELS --json outputs/speed.json

MODELS holds the folder `smollm2_135m_instruct` (cases of 135m only). PYTHON is of an environment that has the peer: the
extra `bench-ppo` (TRL 1.12, the last with PPO) for `ppo-*`, the extra `bench` (TRL 1.16) for `sft-*` and `reward-*`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SAMPLE_TEXT = HERE.parents[2] / "tasks"

CASES: dict[str, dict[str, Any]] = {
    "ppo-5m": {"work": "ppo", "size": "5m", "batch": 32, "new": 48, "prompt": (8, 64), "epochs": 4, "updates": 4},
    "ppo-135m": {"work": "ppo", "size": "135m", "batch": 8, "new": 32, "prompt": (32, 32), "epochs": 4, "updates": 2},
    "ppo-135m-lora": {
        "work": "ppo",
        "size": "135m",
        "lora": 16,
        "batch": 8,
        "new": 32,
        "prompt": (32, 32),
        "epochs": 4,
        "updates": 2,
    },
}


def words() -> list[str]:
    """Words of the sample data, in the order of its files."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(SAMPLE_TEXT.rglob("*.jsonl"))]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    return [word for row in rows for value in row.values() if isinstance(value, str) for word in value.split()]


def model_5m(folder: Path) -> None:
    """A Llama of 5.2 million random weights with 4096 tokens."""
    from rlhf_lightning.models import TinySpec, make_tiny

    spoken = words()
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    invented = ["".join(draw.choices(letters, k=draw.randint(3, 9))) for _ in range(20_000)]
    texts = [" ".join(spoken[i : i + 50]) for i in range(0, len(spoken), 50)]
    texts += [" ".join(invented[i : i + 50]) for i in range(0, len(invented), 50)]
    make_tiny(TinySpec(hidden=256, layers=4, heads=4, vocab_size=4096), texts, folder)


def model_135m(folder: Path, models: Path | None) -> None:
    """SmolLM2-135M-Instruct without its chat template, ended by a token that it never says: lengths stay equal."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if models is None:
        raise SystemExit("--models MODELS is needed for the cases of 135m")
    source = models / "smollm2_135m_instruct"
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = None
    tokenizer.eos_token, tokenizer.pad_token = "<jupyter_start>", "<empty_output>"
    model = AutoModelForCausalLM.from_pretrained(source)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def reward_model(folder: Path, source: Path) -> None:
    """A reward model with the policy's trunk and a head of its own."""
    import torch

    from rlhf_lightning.models import RewardModel

    torch.manual_seed(0)
    RewardModel.load(source, max_prompt=64, max_completion=64, fresh_head=True).save(folder)


def prompts(folder: Path, count: int, least: int, most: int) -> list[dict[str, Any]]:
    """Prompts that have from ``least`` to ``most`` tokens, as many of each length."""
    from transformers import AutoTokenizer

    tokenizer, spoken, draw = AutoTokenizer.from_pretrained(folder), words(), random.Random(1)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        start, length = draw.randrange(len(spoken) - most), draw.randint(least, most)
        ids = tokenizer(" ".join(spoken[start : start + most]))["input_ids"][:length]
        text = tokenizer.decode(ids)
        if tokenizer(text)["input_ids"] == ids and len(ids) == length:
            rows.append({"prompt": text, "ids": ids})
    return rows


def made(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is made where it is not there."""
    if not folder.exists():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        make(part)
        part.rename(folder)
    return folder


def described(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """A case's work, with its models made and its rows drawn."""
    case = CASES[name]
    size = case["size"]
    make: Callable[[Path], None] = model_5m if size == "5m" else lambda folder: model_135m(folder, args.models)
    model = made(args.cache / size, make)
    given = {**case, "model": str(model), "threads": args.threads, "temperature": 0.7}
    if case["work"] == "ppo":
        given["reward_model"] = str(made(args.cache / f"{size}-reward", lambda folder: reward_model(folder, model)))
        given["rows"] = prompts(model, case["batch"] * 4, *case["prompt"])
    if args.updates:
        given["updates"] = args.updates
    return given


def run(python: str, script: str, given: dict[str, Any]) -> dict[str, Any]:
    """A side's figures of the work, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder, "asked.json"), Path(folder, "told.json")
        asked.write_text(json.dumps(given), encoding="utf-8")
        done = subprocess.run([python, HERE / script, asked, told], capture_output=True, text=True, check=False)
        if done.returncode or not told.exists():
            raise SystemExit(f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return json.loads(told.read_text(encoding="utf-8"))


def summary(figures: dict[str, Any], given: dict[str, Any]) -> dict[str, float]:
    """Medians of a process's updates."""
    seconds = statistics.median(figures["seconds"])
    told = {"seconds": seconds, "per_second": given["batch"] / seconds, "peak_gb": figures["peak_bytes"] / 1e9}
    phases: list[dict[str, float]] = figures.get("phases", [])
    for phase in phases[0] if phases else ():
        told[f"{phase}_s"] = statistics.median(row[phase] for row in phases)
    if figures.get("tokens"):
        told["tokens"] = statistics.median(figures["tokens"])
    return told


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Pairs of a case: ours, the peer, ours, the peer, ..."""
    given = described(name, args)
    pairs = []
    for i in range(args.pairs):
        ours = summary(run(sys.executable, "ours.py", given), given)
        peer = {} if args.alone else summary(run(args.peer_python, "peers.py", given), given)
        pairs.append({"ours": ours, "peer": peer})
        print(
            f"{name} pair {i + 1}: ours {shown(ours)}"
            + (f"\n{'':>{len(name)}}         peer {shown(peer)}" if peer else "")
        )
    result: dict[str, Any] = {"case": name, "pairs": pairs}
    if not args.alone:
        for what, figure in (("episodes/s", "per_second"), ("peak memory", "peak_gb")):
            ratios = [pair["ours"][figure] / pair["peer"][figure] for pair in pairs]
            result[what] = statistics.median(ratios)
            print(
                f"{name}: {what}, ours over the peer's: {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
    return result


def shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--updates", type=int, help="that are timed in each process")
    parser.add_argument("--models", type=Path, help="folder of the pre-trained models")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--alone", action="store_true", help="ours only")
    parser.add_argument("--cache", type=Path, default=Path("outputs/speed"), help="where the models are made")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    args.cache = args.cache.resolve()
    results = [compare(name, args) for name in args.cases]
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
