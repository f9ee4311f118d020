"""One stage trained in one of several ways that must come to the same; rank 0 writes what it came to.

Run by test_equivalence.py, and by the table in tests/benchmarks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers.tiny_models import COMPLETIONS, PROMPTS, length_reward, preferences, rows, spread_weights
from rlhf_lightning import optim
from rlhf_lightning.callbacks import Checkpoints
from rlhf_lightning.data.micro_batches import TOKENS
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.data.rows import PreferenceRow, Prompt, SFTRow, UnpairedRow
from rlhf_lightning.metrics import ChrF
from rlhf_lightning.models import LoraSpec, ModelSpec, Policy, RewardModel
from rlhf_lightning.models.reward_model import _head
from rlhf_lightning.models.sharding import whole_state
from rlhf_lightning.stages import Evaluator, FSDP2Strategy, PPOModule, RewardModule, SFTModule

LIMITS = {"max_prompt": 40, "max_completion": 8}


STAGES = ("sft", "sft lora", "reward", "reward mixed", "ppo", "ppo several", "ppo level", "ppo lora")


def ways(stage: str) -> dict[str, tuple[Any, ...]]:
    """Strategy, ranks, rows a batch and rank, batches a step, and tokens that go through a model together.

    ``one process`` is what the others must equal: 512 tokens are all rows at once, 16 a row or two, so that ranks have
    unequally many groups. PPO accumulates no batches.
    """
    ppo = stage.startswith("ppo")
    batches = 1 if ppo else 2
    return {
        "one process": ("auto", 1, 4, 1, 512),
        "micro-batches": ("auto", 1, 4 // batches, batches, 16),
        "two ranks": ("ddp", 2, 2, 1, 512 if ppo else 16),
        "sharded": ("fsdp2", 2, 2, 1, 16),
        "both": ("ddp", 2, 2 // batches, batches, 16),
    }


def trained(out: Path, *how: object) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and report of a training in processes of its own."""
    out.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), str(out), *map(str, how)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out / "weights.pt", weights_only=True), json.loads((out / "report.json").read_text())


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """Plain steps along the gradient: Adam would make a rounding error of a small gradient a whole step."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.5)


def figures(trainer: L.Trainer) -> dict[str, float]:
    """What was logged last, but for times, and for the padding: small batches have less of it."""
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value for name, value in logged.items() if "second" not in name and not name.endswith("/padding")}


class Recorder(L.Callback):
    """What is logged after each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.steps.append(figures(trainer))


def judgements() -> list[PreferenceRow | UnpairedRow]:
    """Rankings of three and of two, one with a tie, pairs that raters disagree about, and thumbs; eleven elements."""
    made: list[PreferenceRow | UnpairedRow] = []
    for i, prompt in enumerate(PROMPTS[:3]):
        best, middle, worst = (COMPLETIONS[i:] + COMPLETIONS[:i])[:3]
        ranked = [(best, middle), (best, worst), (middle, worst)][: (3, 2, 1)[i]]
        made += [PreferenceRow(Prompt(prompt), *pair, weight=1 / len(ranked), group=f"r{i}") for pair in ranked]
    made += [replace(row, probability=0.5 + i / 6, weight=1 + i) for i, row in enumerate(preferences()[:4])]
    made += [UnpairedRow(Prompt(p), c, i != 1, 0.5 + i) for i, (p, c) in enumerate(zip(PROMPTS, COMPLETIONS))]  # noqa: B905
    return made


def made(stage: str, folder: str, batch: int) -> tuple[Any, Any, dict[str, Any]]:
    """Module, data and options of the Trainer."""
    name, _, extra = stage.partition(" ")
    spec = ModelSpec(folder, lora=LoraSpec(r=2 if extra == "lora" else 0))
    torch.manual_seed(1)
    how: dict[str, Any] = {"optimizer": sgd, "schedule": optim.linear}
    if name == "sft":
        policy = Policy.load(spec, **LIMITS)
        # Seven rows a pass: the last batch is short, and on two ranks one of them has a row less.
        train = [SFTRow(Prompt(PROMPTS[i % 4]), COMPLETIONS[i % 4] * (1 + i % 3)) for i in range(7)]
        module = SFTModule(policy, lr=0.3, evaluator=Evaluator({"chrf": ChrF()}), **how)
        return module, SFTDataModule(train, [*rows(), *rows()[:1]], policy.codec, batch, 2), {"max_epochs": 3}
    if name == "reward":
        scorer = RewardModel.load(spec, max_prompt=32, max_completion=12, fresh_head=True)
        spread_weights(_head(scorer.model), 0.3)
        if extra == "mixed":
            judged = judgements()
            data = PreferenceDataModule(judged, judged[::-1], scorer.codec, batch, 2, ranking="plackett_luce")
        else:
            pairs = [*preferences(), *preferences()[:3]]
            data = PreferenceDataModule(pairs, preferences()[:5], scorer.codec, batch, 2)
        return RewardModule(scorer, lr=0.3, **how), data, {"max_epochs": 3}
    policy = Policy.load(spec, **LIMITS, value_head=True)
    if extra != "level":  # a value head of zeros is levelled
        spread_weights(policy.value_head, 0.5)
    module = PPOModule(
        policy,
        {"length": length_reward},
        kl="adaptive",
        kl_target=0.05,
        kl_horizon=40,
        epochs=2,
        responses_per_prompt=2 if extra == "several" else 1,
        lr=0.1,
        seed=2,
        evaluator=Evaluator({"chrf": ChrF()}),
        **how,
    )
    data = PromptDataModule(rows() * 4, [*rows(), *rows()[:1]], policy.codec, batch, 2)
    return module, data, {"max_epochs": 1}


def main(
    out: str,
    stage: str,
    folder: str,
    strategy: str,
    ranks: str,
    batch: str,
    accumulate: str,
    tokens: str,
    start: str | None = None,
) -> None:
    """Train in one of the `ways`, from a checkpoint if one is given."""
    warnings.filterwarnings("ignore")
    L.seed_everything(3)
    TOKENS["cpu"] = int(tokens)
    module, data, options = made(stage, folder, int(batch))
    if not stage.startswith("ppo"):
        options |= {"accumulate_grad_batches": int(accumulate), "gradient_clip_val": 0.5}
    recorder = Recorder()
    keeper = Checkpoints(Path(out, "checkpoints"), Path(out, "metrics.csv"), seconds=0, keep=100)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=int(ranks),
        strategy=strategy_of(strategy),
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=out,
        callbacks=[recorder, keeper],
        **options,
    )
    trainer.fit(module, datamodule=data, ckpt_path=start)
    weights = whole_state(module) if int(ranks) > 1 else module.state_dict()
    if trainer.is_global_zero:
        torch.save(weights, Path(out, "weights.pt"))
        report = {"steps": recorder.steps, "last": figures(trainer), "global_step": trainer.global_step}
        Path(out, "report.json").write_text(json.dumps(report))


def strategy_of(name: str) -> Any:
    """The strategy of a name."""
    return FSDP2Strategy() if name == "fsdp2" else name


if __name__ == "__main__":
    main(*sys.argv[1:])
