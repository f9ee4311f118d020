"""A few PPO rounds on two processes over gloo; each rank writes what it saw. Run by test_ppo_ddp.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning as L
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from helpers.tiny_models import length_reward, preferences, rows, spread_weights
from rlhf_lightning import optim
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule
from rlhf_lightning.data.rows import PreferenceRow, Prompt
from rlhf_lightning.metrics import ExactMatch
from rlhf_lightning.models import LoraSpec, ModelSpec, Policy, RewardModel
from rlhf_lightning.rewards import RewardMix
from rlhf_lightning.stages import Evaluator, PPOModule, RewardModule


class Spy(PPOModule):
    """Keeps every round's responses."""

    def advantages(self, rollout):
        self.seen = [*getattr(self, "seen", []), rollout]
        result = super().advantages(rollout)
        self.whitened = [*getattr(self, "whitened", []), result[0][rollout.learnt_mask]]
        return result


def main(model: str, out: str, what: str) -> None:
    """Train as ``what`` says: shared, separate (critic), lora, masked (no reward on rank 1), or reward."""
    L.seed_everything(3)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=out,
    )
    if what == "reward":
        scorer = RewardModel.load(model, max_prompt=32, max_completion=12, fresh_head=True)
        # The sampler gives rank 0 the rows 0, 2 and rank 1 the rows 1, 3: only rank 0 has longer chosen ones.
        held = [PreferenceRow(Prompt("x"), *(("longer one", "b") if i % 2 == 0 else ("c", "longer"))) for i in range(4)]
        data = PreferenceDataModule(preferences(), held, scorer.codec, batch_size=2)
        trainer.fit(RewardModule(scorer, lr=1e-2, schedule=optim.constant), datamodule=data)
        report = {"weights": digest(scorer), "metrics": {k: float(v) for k, v in trainer.callback_metrics.items()}}
    else:
        spec = ModelSpec(model, lora=LoraSpec(r=2 if what == "lora" else 0))
        limits = {"max_prompt": 40, "max_completion": 8}
        policy = Policy.load(spec, **limits, value_head=True)
        critic = None
        if what == "separate":
            critic = Policy.load(spec, **limits, value_head=True)
            output = critic.inner.get_output_embeddings()
            output.weight = torch.nn.Parameter(output.weight.clone())  # not tied to the embedding
        spread_weights((critic or policy).value_head, 0.5)

        def fails_on_rank_1(prompts, completions, references, meta):
            if trainer.global_rank == 1:
                raise ConnectionError("the judge is down")
            return length_reward(prompts, completions, references, meta)

        masked = what == "masked"
        module = Spy(
            policy,
            {"length": fails_on_rank_1 if masked else length_reward},
            epochs=2,
            minibatches=2,
            micro_batch_tokens=1,
            lr=1e-3,
            critic=critic,
            on_reward_failure="mask" if masked else "stop",
            evaluator=Evaluator({"exact_match": ExactMatch()}, RewardMix({"letters": length_reward})),
        )
        data = PromptDataModule([rows()[0]] * 16, [*rows(), *rows()[:1]], policy.codec, 4, 2)
        trainer.fit(module, datamodule=data)
        report = {
            "weights": digest(module),
            "steps": trainer.global_step,
            "texts": [rollout.texts for rollout in module.seen],
            "ids": [rollout.response_ids.tolist() for rollout in module.seen],
            "whitened": [w.tolist() for w in module.whitened],
            "coef": module.controller.coef,
            "metrics": {k: float(v) for k, v in trainer.callback_metrics.items()},
        }
    Path(out, f"rank{trainer.global_rank}.json").write_text(json.dumps(report))


def digest(module: torch.nn.Module) -> list[float]:
    """Every trainable weight, as numbers."""
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad]).tolist()


if __name__ == "__main__":
    main(*sys.argv[1:])
