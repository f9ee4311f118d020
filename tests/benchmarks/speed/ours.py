"""This project's side of the comparisons; see `compare.py`."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from common import Marks, epoch, say, work

from rlhf_lightning import (
    PPOModule,
    PreferenceDataModule,
    PromptDataModule,
    RewardModel,
    RewardModule,
    SFTDataModule,
    SFTModule,
    optim,
)
from rlhf_lightning.data.batches import Batch, prompt_batch
from rlhf_lightning.data.rows import PreferenceRow, Prompt, PromptRow, SFTRow
from rlhf_lightning.models import LoraSpec, ModelSpec, Policy
from rlhf_lightning.models.generation import Sampling
from rlhf_lightning.rewards.learned import LearnedReward
from rlhf_lightning.rollout import native


def model_spec(given: dict[str, Any]) -> ModelSpec:
    return ModelSpec(given["model"], lora=LoraSpec(r=given.get("lora", 0)))


class Clock(L.Callback):
    """Marks the end of each batch, counts its tokens, and takes down what it logged."""

    def __init__(self) -> None:
        self.marks, self.logged, self.tokens = Marks(), [], []

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.marks("end")
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})
        masks = [getattr(batch, name, None) for name in ("prompt_mask", "response_mask", "mask")]
        self.tokens.append(sum(int(mask.sum()) for mask in masks if mask is not None))


def trainer(clock: Clock, **settings: Any) -> L.Trainer:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return L.Trainer(accelerator="cpu", callbacks=[clock], **settings, **quiet)


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
    trainer(clock, max_steps=(given["updates"] + 1) * given["epochs"]).fit(module, data)
    phases = [{k.rpartition("/")[2]: v for k, v in row.items() if "/seconds/" in k} for row in clock.logged[1:]]
    tokens = [row["ppo/length"] * given["batch"] for row in clock.logged[1:]]
    say(seconds=clock.marks.apart("end"), phases=phases, tokens=tokens)


def train(given: dict[str, Any], module: L.LightningModule, data: L.LightningDataModule) -> None:
    """One epoch; then the model is saved, after the peak memory has been told."""
    clock = Clock()
    trainer(clock, max_epochs=1, gradient_clip_val=1.0).fit(module, data)
    say(**epoch(clock.marks.apart("end"), clock.tokens))


def sft(given: dict[str, Any]) -> None:
    policy = Policy.load(model_spec(given), **limits(given))
    module = SFTModule(policy, lr=given["lr"], schedule=optim.constant)
    rows = [SFTRow(Prompt(row["prompt"]), row["completion"]) for row in given["rows"]]
    data = SFTDataModule(rows, [], policy.codec, given["batch"], seed=given["seed"])
    same([row.prompt + row.response for row in data.train], [row["ids"] for row in given["rows"]])
    train(given, module, data)
    policy.save(given["save"])


def reward(given: dict[str, Any]) -> None:
    model = RewardModel.load(given["reward_model"], **limits(given))
    module = RewardModule(model, lr=given["lr"], schedule=optim.constant)
    rows = [PreferenceRow(Prompt(row["prompt"]), row["chosen"], row["rejected"]) for row in given["rows"]]
    for which in ("chosen", "rejected"):
        encoded = [model.codec.encode_pair(row.prompt, getattr(row, which)).ids for row in rows]
        same(encoded, [row[f"{which}_ids"] for row in given["rows"]])
    train(given, module, PreferenceDataModule(rows, [], model.codec, given["batch"], seed=given["seed"]))
    model.save(given["save"])


def limits(given: dict[str, Any]) -> dict[str, int]:
    """Limits that shorten no row."""
    return {"max_prompt": given["tokens"][1] * 3 // 4 + 1, "max_completion": given["tokens"][1] * 3 // 4 + 1}


def same(ours: list[list[int]], theirs: list[list[int]]) -> None:
    """Both sides have to train on the same tokens."""
    if ours != theirs:
        raise SystemExit("a row's text is encoded to other tokens than those that the peer gets")


def answer(policy: Policy, prompts: list[str], lengths: list[int], slots: int, temperature: float) -> int:
    """Answer each prompt with as many tokens as is asked for, so many at once; how many tokens came out.

    A row's random number of 1 or more, which there is none of otherwise, ends it; before, nothing does.
    """
    end, drawing, numbers = policy.eos_ids[0], native.draw, native.uniforms

    def asked(*args: Any) -> torch.Tensor:
        u = numbers(*args)
        u[torch.arange(len(u)), torch.tensor(lengths) - 1] = 1.0
        return u

    def forced(logits: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        logits[:, policy.eos_ids] = float("-inf")
        return torch.where(u < 1, drawing(logits, u), end)

    native.draw, native.uniforms = forced, asked
    try:
        rows = list(enumerate(PromptRow(Prompt(prompt)) for prompt in prompts))
        how = Sampling(temperature=temperature)
        return int(native.NativeEngine(slots)(policy, prompt_batch(rows, policy.codec), how).lengths.sum())
    finally:
        native.draw, native.uniforms = drawing, numbers


def sample(given: dict[str, Any]) -> None:
    policy = Policy.load(model_spec(given), max_prompt=given["prompt"][1], max_completion=given["lengths"][1])
    policy.eval()
    prompts, asked = [row["prompt"] for row in given["rows"]], [row["length"] for row in given["rows"]]
    batch = given["batch"]
    answer(policy, prompts[:batch], [given["lengths"][0]] * batch, batch, given["temperature"])
    clock = time.perf_counter()
    tokens = answer(policy, prompts, asked, batch, given["temperature"])
    say(seconds=[time.perf_counter() - clock], tokens=[tokens])


if __name__ == "__main__":
    given = work()
    torch.manual_seed(0)
    {"ppo": ppo, "sft": sft, "reward": reward, "sample": sample}[given["work"]](given)
