"""This project's side of the comparisons; see `compare.py`."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from common import Marks, say, work

from rlhf_lightning import PPOModule, PromptDataModule
from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.models import LoraSpec, ModelSpec, Policy
from rlhf_lightning.rewards.learned import LearnedReward


def model_spec(given: dict[str, Any]) -> ModelSpec:
    return ModelSpec(given["model"], lora=LoraSpec(r=given.get("lora", 0)))


class Clock(L.Callback):
    """Marks the end of each round, and takes the phases down as they are logged."""

    def __init__(self) -> None:
        self.marks, self.logged = Marks(), []

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.marks("end")
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def trainer(steps: int, clock: Clock) -> L.Trainer:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return L.Trainer(accelerator="cpu", max_steps=steps, callbacks=[clock], **quiet)


def ppo(given: dict[str, Any]) -> None:
    policy = Policy.load(model_spec(given), max_prompt=64, max_completion=given["new"], value_head=True)
    reward = LearnedReward(given["reward_model"], max_prompt=64, max_completion=given["new"])
    module = PPOModule(
        policy,
        {"learned": reward},
        kl_coef=0.05,
        epochs=given["epochs"],
        temperature=given["temperature"],
        lr=1e-6,
        **given.get("options", {}),
    )
    rows = [PromptRow(Prompt(row["prompt"])) for row in given["rows"]]
    clock = Clock()
    data = PromptDataModule(rows, [], policy.codec, given["batch"])
    trainer((given["updates"] + 1) * given["epochs"], clock).fit(module, data)
    phases = [{k.rpartition("/")[2]: v for k, v in row.items() if "/seconds/" in k} for row in clock.logged[1:]]
    tokens = [row["ppo/length"] * given["batch"] for row in clock.logged[1:]]
    say(seconds=clock.marks.apart("end"), phases=phases, tokens=tokens)


if __name__ == "__main__":
    given = work()
    torch.manual_seed(0)
    {"ppo": ppo}[given["work"]](given)
