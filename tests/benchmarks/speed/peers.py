"""The peers' side of the comparisons; see `compare.py`. Needs the extra `bench` (SFT, reward) or `bench-ppo` (PPO)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from common import Ends, Marks, epoch, say, work


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


def train(given: dict[str, Any], make: Callable[..., Any]) -> None:
    """One epoch of a TRL 1.16 trainer with our settings; then the model is saved, after the peak memory has been told.

    What costs time on a CPU is off (bfloat16, gradient checkpointing, pinned memory). Rows come as tokens, and are
    padded by the trainer's own collator; with ``grouped`` its sampler puts rows of like length together.
    """
    import transformers

    marks, tokens = Marks(), []

    class Steps(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            marks("end")

    with tempfile.TemporaryDirectory() as folder:
        trainer = make(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=given["batch"],
            learning_rate=given["lr"],
            lr_scheduler_type="constant",
            adam_beta1=0.9,
            adam_beta2=0.95,
            adam_epsilon=1e-5,
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=given["seed"],
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            train_sampling_strategy="group_by_length" if given.get("grouped") else "random",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer.add_callback(Steps())
        collate = trainer.data_collator

        def counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
            batch = collate(rows)
            tokens.append(int(batch["attention_mask"].sum()))
            return batch

        trainer.data_collator = counted
        trainer.train()
        say(**epoch(marks.apart("end"), tokens))
        trainer.save_model(given["save"])


def sft(given: dict[str, Any]) -> None:
    """SFTTrainer on completions alone; without `packing`, which is only right with an attention that CPUs lack."""
    import transformers
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_dict(
        {
            "input_ids": [row["ids"] for row in given["rows"]],
            "completion_mask": [[int(i >= row["start"]) for i in range(len(row["ids"]))] for row in given["rows"]],
        }
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(given["model"])
    model = transformers.AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32)

    def make(**settings: Any) -> Any:
        how = SFTConfig(completion_only_loss=True, **settings)
        return SFTTrainer(model, how, train_dataset=rows, processing_class=tokenizer)

    train(given, make)


def reward(given: dict[str, Any]) -> None:
    """RewardTrainer on the same reward model, with the same head."""
    import transformers
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = Dataset.from_dict(
        {
            "chosen_ids": [row["chosen_ids"] for row in given["rows"]],
            "rejected_ids": [row["rejected_ids"] for row in given["rows"]],
            "length": [max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in given["rows"]],
        }
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(given["reward_model"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(given["reward_model"], dtype=torch.float32)

    def make(**settings: Any) -> Any:
        how = RewardConfig(**settings)
        return RewardTrainer(model, how, train_dataset=rows, processing_class=tokenizer)

    train(given, make)


@torch.no_grad()
def sample(given: dict[str, Any]) -> None:
    """`generate` of transformers: a batch after another, each until its longest answer has ended."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(given["model"], padding_side="left")
    model = transformers.AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32)
    ids, lengths = [row["ids"] for row in given["rows"]], [row["length"] for row in given["rows"]]
    batch, end = given["batch"], tokenizer.eos_token_id

    def answer(rows: slice, lengths: list[int]) -> int:
        inputs = tokenizer.pad({"input_ids": ids[rows]}, return_tensors="pt")
        start = inputs["input_ids"].shape[1]
        out = model.generate(
            **inputs,
            do_sample=True,
            temperature=given["temperature"],
            top_k=0,
            max_new_tokens=given["lengths"][1],
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
            logits_processor=transformers.LogitsProcessorList([Ends(lengths, [end], start)]),
        )
        said = out[:, start:] == end
        return int((said.int().argmax(1) + 1).sum())

    answer(slice(0, batch), [given["lengths"][0]] * batch)
    clock, tokens = time.perf_counter(), 0
    for first in range(0, len(ids), batch):
        rows = slice(first, first + batch)
        tokens += answer(rows, lengths[rows])
    say(seconds=[time.perf_counter() - clock], tokens=[tokens])


if __name__ == "__main__":
    given = work()
    torch.manual_seed(0)
    {"ppo": ppo, "sft": sft, "reward": reward, "sample": sample}[given["work"]](given)
