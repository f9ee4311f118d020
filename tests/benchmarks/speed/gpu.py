"""What a GPU makes of sampling and PPO with a model of Qwen3-0.6B's shape and random weights.

    python tests/benchmarks/speed/gpu.py --json outputs/gpu.json

Nothing is fetched: the tokenizer knows as many invented words as the model has tokens, so that what a model of random
weights says is decoded and read again by the reward model with as many tokens.

The limits are measured first: a product of two bfloat16 matrices of 8192 x 8192, and a copy of 4 GB (bytes read and
written). Then, each in bfloat16 mixed precision (``mixed``: weights in float32) and with bfloat16 weights (``bf16``):

- sampling by ``rollout=native`` and ``rollout=generate``: answers of equal lengths, all at once; and answers of
  lengths drawn from a geometric distribution, which ``generate`` takes a batch after another, each until its longest
  answer has ended;
- rounds of PPO, with a reference and a reward model of the same size: seconds of each phase (medians), peak memory, and
  the update's share of the first limit. Operations are counted as `limits.py` does: recomputed logits are no useful
  work.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import hush
from limits import Shape
from torch import Tensor

from rlhf_lightning import PPOModule, PromptDataModule
from rlhf_lightning.data.batches import prompt_batch
from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.models import ModelSpec, Policy, RewardModel, generation
from rlhf_lightning.models import policy as policy_module
from rlhf_lightning.models.generation import Sampling
from rlhf_lightning.rewards.learned import LearnedReward
from rlhf_lightning.rollout import GenerateEngine, NativeEngine, native

SHAPES: dict[str, dict[str, Any]] = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
}
REST = {"0.6b": {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936}}
"""Qwen3-0.6B's (its config.json); tied embeddings."""


def make_model(shape: str, folder: Path) -> Path:
    """A Qwen3 of random weights, with a tokenizer of one word for each token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    rest = {"num_key_value_heads": 2, "head_dim": 32, "vocab_size": 2000} | REST.get(shape, {})
    words = {"<pad>": 0, "<eos>": 1} | {f"w{i}": i for i in range(2, rest["vocab_size"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    config = Qwen3Config(
        **SHAPES[shape],
        **rest,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sync() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], times: int) -> float:
    """Median seconds of some repetitions after two warm-ups."""
    seconds = []
    for i in range(times + 2):
        sync()
        start = time.perf_counter()
        work()
        sync()
        if i > 1:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def ceilings(device: torch.device, side: int = 8192) -> dict[str, float]:
    """FLOP/s of a bfloat16 product of random matrices, and bytes a second of a copy."""
    side = side if device.type == "cuda" else 256
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = timed(lambda: left @ right, 10)
    source = torch.empty(side * side * 16, device=device)
    target = torch.empty_like(source)
    copy = timed(lambda: target.copy_(source), 10)
    return {"flops": 2 * side**3 / product, "bytes": 2 * source.nbytes / copy}


class Lengths:
    """Within it each row's answer has a given length: a random number of 1 or more, which there is none of otherwise,
    ends it, and before nothing does."""

    def __init__(self, policy: Policy, lengths: list[int]) -> None:
        self.policy, self.lengths, self.ends = policy, lengths, policy.eos_ids

    def __enter__(self) -> None:
        draw, uniforms = generation.draw, generation.uniforms
        ends = torch.tensor(self.ends, device=self.policy.device)

        def asked(*args: Any) -> Tensor:
            u = uniforms(*args)
            u[torch.arange(len(u)), torch.tensor(self.lengths) - 1] = 1.0
            return u

        def forced(logits: Tensor, u: Tensor) -> Tensor:
            logits.index_fill_(1, ends, float("-inf"))  # nothing here may wait for the GPU: the step is recorded
            return draw(logits, u).masked_fill(u >= 1, self.ends[0])

        self.before = draw, uniforms
        native.draw = generation.draw = forced
        native.uniforms = policy_module.uniforms = asked

    def __exit__(self, *_: Any) -> None:
        native.draw, native.uniforms = self.before
        generation.draw, policy_module.uniforms = self.before


def sampling(
    policy: Policy, rows: list[PromptRow], lengths: list[int], engine: Any, at_once: int, times: int = 3
) -> dict[str, float]:
    """Tokens a second and peak memory of answering all rows, so many of them in a call, after one warm-up."""
    how = Sampling(temperature=0.7)
    parts = [(rows[i : i + at_once], lengths[i : i + at_once]) for i in range(0, len(rows), at_once)]
    batches = [(prompt_batch(list(enumerate(part)), policy.codec).to(policy.device), asked) for part, asked in parts]
    tokens = 0

    def work() -> None:
        nonlocal tokens
        tokens = 0
        for batch, asked in batches:
            with Lengths(policy, asked):
                tokens += int(engine(policy, batch, how).lengths.sum())

    with Lengths(policy, parts[0][1]):
        engine(policy, batches[0][0], how)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(times):
        sync()
        start = time.perf_counter()
        work()
        sync()
        seconds.append(time.perf_counter() - start)
    took = statistics.median(seconds)
    assert tokens == sum(lengths)
    return {"seconds": took, "tokens": tokens, "tokens_per_second": tokens / took, "peak_gb": peak()}


def peak() -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0


class Clock(L.Callback):
    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        self.logged.append({k.removeprefix("ppo/"): float(v) for k, v in trainer.callback_metrics.items()})


def ppo(folder: Path, rows: list[PromptRow], options: dict[str, Any]) -> dict[str, float]:
    """Medians of some rounds after the first, with the update's operations a second."""
    args = options["args"]
    policy = Policy.load(
        ModelSpec(str(folder), dtype=options["dtype"]), max_prompt=args.prompt, max_completion=args.new, value_head=True
    )
    scorer = RewardModel.load(
        ModelSpec(str(folder), dtype=options["dtype"]), max_prompt=args.prompt, max_completion=args.new, fresh_head=True
    )
    torch.manual_seed(0)
    module = PPOModule(
        policy,
        {"learned": LearnedReward(scorer)},
        kl_coef=0.05,
        epochs=args.epochs,
        lr=1e-6,
        engine=NativeEngine(options["slots"]),
        micro_batch_tokens=options.get("micro_batch_tokens"),
    )
    clock = Clock()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    callbacks: list[L.Callback] = [clock]
    if options.get("profile"):
        from rlhf_lightning.callbacks.profile import Profile

        callbacks.append(Profile(options["profile"], active=1))
    data = PromptDataModule(rows, [], policy.codec, args.batch)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    L.Trainer(
        accelerator="auto",
        devices=1,
        precision=options["precision"],
        max_epochs=-1,
        max_steps=(args.rounds + 1) * args.epochs,
        callbacks=callbacks,
        **quiet,
    ).fit(module, data)
    kept = clock.logged[1:]
    told = {name: statistics.median(row[name] for row in kept) for name in kept[0]}
    figures = {name: told[name] for name in told if name.startswith(("seconds/", "tokens_per_second"))}
    figures |= {"peak_gb": peak(), "logprob_gap": max(row["logprob_gap"] for row in kept)}
    figures |= {"ratio_gap_first": clock.logged[0]["logprob_gap"], "length": told["length"]}
    shape = Shape.of(str(folder))
    counted = shape.phases([args.prompt], told["length"], args.epochs)
    figures["update_flops"] = counted["update"] * args.batch / told["seconds/update"]
    figures["again_share"] = counted["again"] / counted["update"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--batch", type=int, default=64, help="prompts of a round, and answered at once")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer, at most")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=["sample", "ppo"], help="sample, ppo, micro, profile")
    parser.add_argument("--engines", nargs="+", default=["native", "generate"])
    parser.add_argument("--precisions", nargs="+", default=["mixed", "bf16"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    hush()
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    told: dict[str, Any] = {"card": card, "torch": torch.__version__}
    draw = random.Random(0)
    words = REST.get(args.shape, {"vocab_size": 2000})["vocab_size"]

    def prompt() -> PromptRow:
        return PromptRow(Prompt(" ".join(f"w{draw.randrange(2, words)}" for _ in range(args.prompt))))

    rows = [prompt() for _ in range(4 * args.batch)]
    mean = args.new * 3 / 8
    lengths = [min(args.new, 1 + int(draw.expovariate(-math.log1p(-1 / mean)))) for _ in rows]
    told["limits"] = ceilings(device)
    limit = told["limits"]["flops"]
    print(f"{card}, torch {torch.__version__}: {limit / 1e12:.0f} TFLOP/s, {told['limits']['bytes'] / 1e12:.2f} TB/s")
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(args.shape, Path(temporary, "model"))
        kinds = {"mixed": ("bf16-mixed", "float32"), "bf16": ("32-true", "bfloat16"), "float32": ("32-true", "float32")}
        for name in args.precisions:
            precision, dtype = kinds[name]

            def show(what: str, figures: dict[str, float], name: str = name) -> None:
                told[f"{name}, {what}"] = figures
                print(f"{name}, {what}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)

            if "sample" in args.parts:
                policy = Policy.load(
                    ModelSpec(str(folder), dtype=dtype),
                    max_prompt=args.prompt,
                    max_completion=args.new,
                    value_head=True,
                ).to(device)
                mixed = torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
                equal, some = [args.new] * args.batch, rows[: args.batch]
                with mixed if name == "mixed" else nullcontext():
                    for who in args.engines:
                        engine = NativeEngine(args.batch) if who == "native" else GenerateEngine()
                        show(f"{who}, equal lengths", sampling(policy, some, equal, engine, args.batch))
                        at_once = len(rows) if who == "native" else args.batch
                        show(f"{who}, unlike lengths", sampling(policy, rows, lengths, engine, at_once, 1))
                    if "native" in args.engines:
                        wide = NativeEngine(4 * args.batch)
                        show("native, unlike lengths, all at once", sampling(policy, rows, lengths, wide, len(rows), 1))
                del policy
            asked: dict[str, Any] = {"args": args, "precision": precision, "dtype": dtype, "slots": args.batch}
            if "ppo" in args.parts:
                figures = ppo(folder, rows, asked)
                show("ppo", {**figures, "update_share": figures["update_flops"] / limit})
            if "micro" in args.parts:
                for tokens in (4096, 16384, 32768):
                    figures = ppo(folder, rows, {**asked, "micro_batch_tokens": tokens})
                    figures["update_share"] = figures["update_flops"] / limit
                    show(f"ppo, micro-batches of {tokens}", figures)
            if "profile" in args.parts:
                where = (args.json or Path("outputs/gpu.json")).parent / f"profile-{name}"
                ppo(folder, rows, {**asked, "profile": where})
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
