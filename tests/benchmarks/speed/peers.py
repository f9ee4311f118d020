"""The peers' side of the comparisons; see `compare.py`. Needs the extra `bench` (SFT, reward) or `bench-ppo` (PPO)."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import Any

import torch
from common import Marks, say, work


def ppo(given: dict[str, Any]) -> None:
    """PPO of TRL 1.12, without the gradient checkpointing and bfloat16 that it turns on (both cost time on a CPU)."""
    import transformers
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    tokenizer = transformers.AutoTokenizer.from_pretrained(given["model"], padding_side="left")
    kinds = transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification
    lora = given.get("lora", 0)
    policy = kinds[0].from_pretrained(given["model"], dtype=torch.float32)
    reference = None if lora else kinds[0].from_pretrained(given["model"], dtype=torch.float32)
    value, reward = (kinds[1].from_pretrained(given["reward_model"], dtype=torch.float32) for _ in range(2))
    adapter = None
    if lora:
        from peft import LoraConfig

        adapter = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM")
    marks, tokens = Marks(), []
    generate = ppo_trainer.batch_generation

    def timed(*args: Any, **kwargs: Any) -> Any:
        marks("sample")
        out = generate(*args, **kwargs)
        marks("sampled")
        tokens.append(int((out[0][:, args[1].shape[1] :] != tokenizer.pad_token_id).sum()))
        return out

    ppo_trainer.batch_generation = timed

    class Ends(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            marks("end")

    with tempfile.TemporaryDirectory() as folder:
        settings = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=given["batch"],
            local_rollout_forward_batch_size=given["batch"],
            num_ppo_epochs=given["epochs"],
            total_episodes=given["batch"] * (given["updates"] + 1),
            response_length=given["new"],
            temperature=given["temperature"],
            stop_token="eos",
            learning_rate=1e-6,
            num_sample_generations=0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = PPOTrainer(
            settings,
            tokenizer,
            policy,
            reference,
            reward,
            Dataset.from_dict({"input_ids": [row["ids"] for row in given["rows"]]}),
            value,
            callbacks=[Ends()],
            peft_config=adapter,
        )
        accumulate = trainer.accelerator.accumulate

        @contextmanager
        def first(*models: Any) -> Any:
            if len(marks.at.get("update", [])) < len(marks.at["sample"]):
                marks("update")
            with accumulate(*models):
                yield

        trainer.accelerator.accumulate = first
        trainer.train()
    spans = zip(
        marks.between("sample", "sampled"),
        marks.between("sampled", "update"),
        marks.between("update", "end"),
        strict=True,
    )
    phases = [dict(zip(("sample", "score", "update"), span, strict=True)) for span in spans][1:]
    say(seconds=marks.apart("end"), phases=phases, tokens=tokens[1:])


if __name__ == "__main__":
    given = work()
    torch.manual_seed(0)
    {"ppo": ppo}[given["work"]](given)
