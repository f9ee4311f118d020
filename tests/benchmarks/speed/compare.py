"""Ours and a peer on the same work, in turn, each in a process of its own; the ratio is taken pair by pair.

    python tests/benchmarks/speed/compare.py ppo-5m ppo-135m --models MODELS --peer-python PYTHON
    python tests/benchmarks/speed/compare.py sample-5m sft-5m --models MODELS --json outputs/speed.json

MODELS holds the folder `smollm2_135m_instruct` (cases of 135m only). PYTHON is of an environment that has the peer: the
extra `bench-ppo` (TRL 1.12, the last with PPO) for `ppo-*`, the extra `bench` (TRL 1.16) for `sft-*` and `reward-*`;
the peer of `sample-*` is transformers' own `generate`, in this environment.

- `ppo-*`: updates of PPO, from sampling to the last optimizer step.
- `sft-*`, `reward-*`: an epoch over rows of 10 to 300 tokens in a random order, which is the same on both sides. Both
  have the same model folder, tokens, batch size, learning rate (constant), AdamW (betas 0.9 and 0.95, eps 1e-5, no
  weight decay), gradient norm bound 1, float32 and threads, and learn completions alone. The peer runs as it comes
  (`peer`) and with its sampler for rows of like length (`peer grouped`), an order of its own, which sorts within a
  quarter of the rows at most, so that a short epoch shows it at less than its best: `--rows` makes it longer (one of
  fewer than eight batches is not sorted at all, and needs `--peers peer` alone). TRL's `packing` is left out: it keeps
  rows apart only with flash attention, which a CPU has not. The first step is a warm-up (see `common.epoch`). The loss
  on rows that nobody trained on, before and after, is computed by `heldout.py` for both sides alike.
- `sample-*`: answers whose lengths were drawn beforehand, the same for both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import hush

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
    "sft-5m": {"work": "sft", "size": "5m", "batch": 32, "count": 320, "held": 64, "tokens": (10, 300), "lr": 1e-3},
    "sft-135m": {"work": "sft", "size": "135m", "batch": 8, "count": 32, "held": 16, "tokens": (10, 300), "lr": 2e-5},
    "reward-5m": {
        "work": "reward",
        "size": "5m",
        "batch": 32,
        "count": 160,
        "held": 64,
        "tokens": (10, 300),
        "lr": 3e-4,
    },
    "reward-135m": {
        "work": "reward",
        "size": "135m",
        "batch": 8,
        "count": 32,
        "held": 16,
        "tokens": (10, 300),
        "lr": 1e-5,
    },
    "sample-5m": {
        "work": "sample",
        "size": "5m",
        "batch": 32,
        "count": 128,
        "prompt": (8, 64),
        "lengths": (8, 128),
        "mean": 40,
    },
    "sample-135m": {
        "work": "sample",
        "size": "135m",
        "batch": 16,
        "count": 48,
        "prompt": (8, 64),
        "lengths": (8, 64),
        "mean": 20,
    },
}
RATES = {
    "ppo": ("episodes/s", "per_second"),
    "sft": ("rows/s", "per_second"),
    "reward": ("pairs/s", "per_second"),
    "sample": ("tokens/s", "tokens_per_second"),
}
"""What each kind of work is measured by: its name, and that of the figure."""
TRAINED: dict[str, dict[str, Any]] = {"peer": {}, "peer grouped": {"grouped": True}}
PEERS: dict[str, dict[str, dict[str, Any]]] = {
    "ppo": {"peer": {}},
    "sft": TRAINED,
    "reward": TRAINED,
    "sample": {"peer": {}},
}
"""The peers of each kind of work, with what they are given beside the work."""
HIDDEN = {"5m": 256, "tiny-128": 128, "tiny-256": 256, "tiny-512": 512}
"""Widths of the models with random weights."""


def words() -> list[str]:
    """Words of the sample data, in the order of its files."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(SAMPLE_TEXT.rglob("*.jsonl"))]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    return [word for row in rows for value in row.values() if isinstance(value, str) for word in value.split()]


def model_tiny(folder: Path, hidden: int) -> None:
    """A Llama of random weights with 4096 tokens; 5.2 million weights at a width of 256."""
    from rlhf_lightning.models import TinySpec, make_tiny

    spoken = words()
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    invented = ["".join(draw.choices(letters, k=draw.randint(3, 9))) for _ in range(20_000)]
    texts = [" ".join(spoken[i : i + 50]) for i in range(0, len(spoken), 50)]
    texts += [" ".join(invented[i : i + 50]) for i in range(0, len(invented), 50)]
    make_tiny(TinySpec(hidden=hidden, layers=4, heads=hidden // 64, vocab_size=4096), texts, folder)


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


class Texts:
    """Draws texts that have a given number of tokens, in words of the sample data."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer, self.words, self.draw = AutoTokenizer.from_pretrained(folder), words(), random.Random(1)

    def text(self, length: int, lead: str = "", ordered: bool = True) -> tuple[str, list[int]]:
        """A text, and the ids of ``lead`` and the text; its words as they stand in the data, or any."""
        while True:
            start = self.draw.randrange(len(self.words) - length)
            said = self.words[start : start + length] if ordered else self.draw.choices(self.words, k=length)
            ids = self.tokenizer(lead + " ".join(said))["input_ids"][:length]
            text = self.tokenizer.decode(ids)
            whole = text.startswith(lead) and text.strip() == text[len(lead) :]
            if whole and len(ids) == length and self.tokenizer(text)["input_ids"] == ids:
                return text[len(lead) :], ids

    def prompts(self, count: int, least: int, most: int) -> list[dict[str, Any]]:
        """Prompts that have from ``least`` to ``most`` tokens, as many of each length."""
        drawn = (self.text(self.draw.randint(least, most)) for _ in range(count))
        return [{"prompt": text, "ids": ids} for text, ids in drawn]

    def parts(self, least: int, most: int) -> tuple[int, int]:
        """Tokens of a prompt and its completion, from ``least`` to ``most`` together."""
        total = self.draw.randint(least, most)
        completion = self.draw.randint(total // 4 + 1, total * 3 // 4)
        return total - completion, completion

    def completion(self, length: int, ordered: bool = True) -> tuple[str, list[int]]:
        """A completion as it follows a prompt; the end of sequence is its last token."""
        text, ids = self.text(length - 1, " ", ordered)
        return text, [*ids, self.tokenizer.eos_token_id]

    def demonstrations(self, count: int, least: int, most: int) -> list[dict[str, Any]]:
        """Prompts and completions; ``start`` is where the completion begins."""
        rows = []
        for _ in range(count):
            asked, answered = self.parts(least, most)
            (prompt, ids), (completion, more) = self.text(asked), self.completion(answered)
            rows.append({"prompt": prompt, "completion": completion, "ids": ids + more, "start": asked})
        return rows

    def preferences(self, count: int, least: int, most: int) -> list[dict[str, Any]]:
        """Prompts with words in order, and words in none, of which the longer has the length that was drawn."""
        rows = []
        for _ in range(count):
            asked, answered = self.parts(least, most)
            lengths = [answered, self.draw.randint(2, answered)]
            self.draw.shuffle(lengths)
            prompt, ids = self.text(asked)
            chosen, good = self.completion(lengths[0])
            rejected, bad = self.completion(lengths[1], ordered=False)
            row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            rows.append({**row, "chosen_ids": ids + good, "rejected_ids": ids + bad})
        return rows

    def length(self, mean: float, least: int, most: int) -> int:
        """A response's, from a geometric distribution that is cut off on either side."""
        while True:
            drawn = 1 + int(self.draw.expovariate(-math.log1p(-1 / mean)))
            if least <= drawn <= most:
                return drawn


def made(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is made where it is not there."""
    if not folder.exists():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        make(part)
        part.rename(folder)
    return folder


def described(case: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """A case's work, with its models made and its rows drawn; ``unit`` is the rows of which the seconds are told."""
    size, hidden = case["size"], HIDDEN.get(case["size"])

    def make(folder: Path) -> None:
        model_tiny(folder, hidden) if hidden else model_135m(folder, args.models)

    model = made(args.cache / size, make)
    given = {**case, "model": str(model), "threads": args.threads, "temperature": 0.7}
    if case["work"] in ("ppo", "reward"):
        given["reward_model"] = str(made(args.cache / f"{size}-reward", lambda folder: reward_model(folder, model)))
    texts, count = Texts(model), case.get("count", 0)
    if case["work"] == "ppo":
        given |= {"rows": texts.prompts(case["batch"] * 4, *case["prompt"]), "unit": case["batch"]}
        given["updates"] = args.updates or case["updates"]
    elif case["work"] == "sample":
        rows = texts.prompts(count, *case["prompt"])
        given |= {"rows": [{**row, "length": texts.length(case["mean"], *case["lengths"])} for row in rows]}
        given["unit"] = count
    else:
        rows = {"sft": texts.demonstrations, "reward": texts.preferences}[case["work"]](
            count + case["held"], *case["tokens"]
        )
        given |= {"rows": rows[:count], "held": rows[count:], "unit": count}
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
    """Medians of what a process timed: updates of PPO, an epoch, or all answers."""
    seconds, tokens = statistics.median(figures["seconds"]), statistics.median(figures["tokens"])
    told = {
        "seconds": seconds,
        "per_second": given["unit"] / seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "peak_gb": figures["peak_bytes"] / 1e9,
    }
    phases: list[dict[str, float]] = figures.get("phases", [])
    for phase in phases[0] if phases else ():
        told[f"{phase}_s"] = statistics.median(row[phase] for row in phases)
        told[f"{phase}_tokens_per_second"] = tokens / told[f"{phase}_s"]
    return told


def held_out(given: dict[str, Any], model: str) -> float:
    """A model's mean loss on the rows that nobody trained on."""
    asked = {"work": given["work"], "threads": given["threads"], "model": model, "rows": given["held"]}
    return run(sys.executable, "heldout.py", asked)["loss"]


def side(python: str, script: str, given: dict[str, Any]) -> dict[str, float]:
    """A side's figures, with its model's held-out loss where one is trained on rows."""
    if "held" not in given:
        return summary(run(python, script, given), given)
    with tempfile.TemporaryDirectory() as folder:
        saved = str(Path(folder, "model"))
        told = summary(run(python, script, {**given, "save": saved}), given)
        return {**told, "loss": held_out(given, saved)}


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Pairs of a case: ours, the peer, ours, the peer, ..."""
    case = CASES[name]
    given = described({**case, "count": args.rows} if args.rows else case, args)
    result: dict[str, Any] = {"case": name, "pairs": []}
    if "held" in given:
        result["loss_before"] = held_out(given, given["reward_model" if given["work"] == "reward" else "model"])
        print(f"{name}: held-out loss before training {result['loss_before']:.4f}")
    peers = {who: more for who, more in PEERS[given["work"]].items() if who in args.peers and not args.alone}
    python = sys.executable if given["work"] == "sample" else args.peer_python
    for i in range(args.pairs):
        given["seed"] = i  # of the order in which rows come
        pair = {"ours": side(sys.executable, "ours.py", given)}
        pair |= {peer: side(python, "peers.py", {**given, **more}) for peer, more in peers.items()}
        result["pairs"].append(pair)
        for who, figures in pair.items():
            print(f"{name} pair {i + 1}: {who:<{max(map(len, pair))}} {shown(figures)}", flush=True)
    result["ratios"] = {peer: ratios(name, peer, result["pairs"]) for peer in peers}
    for who in result["pairs"][0] if "held" in given else ():
        losses = [pair[who]["loss"] for pair in result["pairs"]]
        print(f"{name}: {who}: held-out loss {middle(losses)}")
    return result


def ratios(name: str, peer: str, pairs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Ours over a peer's, pair by pair: median and range."""
    told = {}
    for what, figure in (RATES[CASES[name]["work"]], ("peak memory", "peak_gb")):
        each = [pair["ours"][figure] / pair[peer][figure] for pair in pairs]
        told[what] = {"median": statistics.median(each), "least": min(each), "most": max(each)}
        print(f"{name}: {what}, ours / {peer}: {middle(each)}")
    return told


def middle(values: list[float]) -> str:
    """The median of some values, and their range."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, help="of an epoch, or to be answered")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument(
        "--peers", nargs="+", default=list(TRAINED), choices=TRAINED, help="those of sft-* and reward-*"
    )
    parser.add_argument("--alone", action="store_true", help="ours only")
    args = parsed(parser)
    results = [compare(name, args) for name in args.cases]
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, with those that are everywhere the same."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--updates", type=int, help="of PPO that are timed in each process")
    parser.add_argument("--models", type=Path, help="folder of the pre-trained models")
    parser.add_argument("--cache", type=Path, default=Path("outputs/speed"), help="where the models are made")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    hush()
    args.cache.mkdir(parents=True, exist_ok=True)
    args.cache = args.cache.resolve()
    return args


if __name__ == "__main__":
    main()
