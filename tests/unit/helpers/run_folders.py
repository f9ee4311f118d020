"""Run folders as rlhf-train leaves them, made without training: what they answer is known."""

from __future__ import annotations

import random
from pathlib import Path

import sacrebleu
import torch
from torchmetrics import Metric

from rlhf_lightning.report import PolicyResult, RunResults, Sample, write_samples

VOCABULARY = ["red", "green", "blue", "small", "large", "old", "cat", "dog", "house", "tree", "river", "sings", "waits"]
HELD_OUT = 60


class KeepsRows(Metric):
    """A user's metric whose state is a list of all that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("lengths", [], dist_reduce_fx="cat")

    def update(self, completions: list[str], references: list[list[str]]) -> None:
        """Keep the lengths."""
        self.lengths += [torch.tensor(float(len(text))) for text in completions]

    def compute(self) -> torch.Tensor:
        """The middle one."""
        return torch.stack(self.lengths).median()


def question(row: int) -> tuple[str, str]:
    """A held-out prompt and its reference."""
    rng = random.Random(row)
    return f"Say number {row}.", " ".join(rng.choices(VOCABULARY, k=6))


def answers(quality: float, seed: int, empty: int = 0) -> list[str]:
    """An answer a row: each word is right with the probability ``quality``, the first ``empty`` rows have none."""
    rng = random.Random(f"{quality} {seed}")
    texts = []
    for row in range(HELD_OUT):
        words = [word if rng.random() < quality else "wrong" for word in question(row)[1].split()]
        texts.append("" if row < empty else " ".join(words))
    return texts


def gold(text: str, reference: str) -> float:
    """The share of words that are right."""
    pairs = zip(text.split(), reference.split(), strict=False)
    return sum(a == b for a, b in pairs) / len(reference.split())


def write_run(
    folder: Path,
    kl_coef: str = "0.05",
    seed: int = 0,
    quality: float = 0.6,
    policies: tuple[str, ...] = ("base", "sft", "ppo"),
    texts: dict[str, list[str]] | None = None,
    empty: int = 0,
    samples: bool = True,
    **changes,
) -> Path:
    """A run whose final policy gets a share ``quality`` of the words right; ``changes`` are of its metrics.json."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(
        f"seed: {seed}\nppo:\n  kl_coef: {kl_coef}\n  lr: 1e-5\n  ref: ${{ppo.lr}}\nstages: [sft, ppo]\n"
        f"paths:\n  root: {folder}\ntrainer:\n  dirpath: {folder.name}\n  log: {folder.resolve()}/log\n"
        f"logger:\n  name: run-{folder.name}\n"
        "task:\n  order: 0\n  metrics:\n"
        "    chrf: {_target_: rlhf_lightning.metrics.ChrF, word_order: '${task.order}'}\n"
    )
    (folder / ".hydra" / "overrides.yaml").write_text(f"- ppo.kl_coef={kl_coef}\n- seed={seed}\n")
    shares = {"base": 0.0, "sft": 0.4, "ppo": quality}
    texts = texts or {name: answers(shares[name], seed, empty if name == "ppo" else 0) for name in policies}
    questions = [question(row) for row in range(HELD_OUT)]
    rows = [
        Sample(
            row,
            prompt,
            [reference],
            {name: texts[name][row] for name in policies},
            {name: {"gold": round(gold(texts[name][row], reference), 6)} for name in policies},
            {name: {"eos_rate": 1.0, "kl": float(place)} for place, name in enumerate(policies)},
        )
        for row, (prompt, reference) in enumerate(questions)
    ]
    measured = []
    for place, name in enumerate(policies):
        figures = {
            "gold": sum(row.scores[name]["gold"] for row in rows) / HELD_OUT,
            "chrf": sacrebleu.corpus_chrf(texts[name], [[reference for _, reference in questions]]).score,
            "kl": float(place),
            "empty_rate": sum(not text for text in texts[name]) / HELD_OUT,
            "eos_rate": 1.0,
        }
        measured.append(PolicyResult(name, None, figures))
    fields = {
        "task": "qa",
        "seed": seed,
        "stages": ["sft", "ppo"],
        "objective": "gold",
        "held_out": HELD_OUT,
        "policies": measured,
        "directions": {"gold": "max", "chrf": "max", "kl": None, "empty_rate": "min", "eos_rate": "max"},
        "columns": {"task": ["chrf"], "reward": ["gold"], "guardrails": ["kl", "empty_rate", "eos_rate"]},
    }
    RunResults(**{**fields, **changes}).write(folder / "metrics.json")
    if samples:
        write_samples(folder / "samples.jsonl", rows)
    (folder / "ppo").mkdir()
    (folder / "ppo" / "metrics.csv").write_text(
        f"step,ppo/score,ppo/kl,ppo/val/gold,ppo/val/kl\n0,0.5,0.0,0.3,0.1\n1,{quality},2.0,{quality},1.9\n"
    )
    return folder
