"""What a run will take, in memory, time and disk: measured on its own models and rows, without a step."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf_lightning.callbacks.progress import batches_in_all
from rlhf_lightning.data.batches import PromptBatch, prompt_batch
from rlhf_lightning.data.micro_batches import micro_batches, trimmed
from rlhf_lightning.data.modules import PreferenceDataModule, SFTDataModule
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.models import Classifier, Policy, RewardModel, Sampling
from rlhf_lightning.pipeline.options import processes, strategy_name
from rlhf_lightning.pipeline.run import Run
from rlhf_lightning.pipeline.stages import reward_spec

if TYPE_CHECKING:
    pass

TRIES = 3
"""Times that a pass is measured: the first warms up, and others may come between."""


@dataclass
class Cost:
    """What a stage takes.

    Attributes:
        stage: its name.
        steps: how long it is, in words.
        parameters, trained: of the model that is trained.
        weights: bytes of all models that it holds.
        gradients, optimizer: bytes for the weights that are trained.
        activations: bytes that the largest batch seen keeps for the backward pass.
        seconds: of the whole stage, the looks at held-out rows included.
        disk: bytes of the model that it exports.
        passing: further bytes on the disk until it ends: checkpoints, and the best model so far.
    """

    stage: str
    steps: str
    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    seconds: float
    disk: int
    passing: int

    @property
    def peak(self) -> int:
        """Bytes at its peak, without what the libraries take."""
        return self.weights + self.gradients + self.optimizer + self.activations


@contextmanager
def kept(models: Sequence[nn.Module]) -> Iterator[list[int]]:
    """Bytes that what is computed within keeps for the backward pass, beside the models' own weights.

    Gives a list that holds the number; tensors that share memory count once.
    """
    known = {p.untyped_storage().data_ptr() for model in models for p in model.parameters()}
    bytes_ = [0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            bytes_[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield bytes_


def state_share(optimizer: dict[str, Any]) -> float:
    """Numbers that an optimizer keeps for each weight, as it does so for a small matrix: 2 for Adam."""
    weight = nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.zeros_like(weight)
    made = instantiate(optimizer)([weight], lr=0.0)
    made.step()
    return sum(v.numel() for v in made.state[weight].values() if isinstance(v, torch.Tensor)) / weight.numel()


def _bytes(models: Sequence[nn.Module]) -> int:
    return sum(p.numel() * p.element_size() for model in models for p in model.parameters())


def length(batches: int, limits: dict[str, Any], most: float | None) -> tuple[int, float, str]:
    """Batches of a whole training, the looks at held-out rows in it, and its optimizer steps in words.

    Args:
        batches: of an epoch.
        limits: the stage's options of the Trainer.
        most: batches of an epoch that are used, or the share of them; None is all.

    >>> length(5, dict(max_epochs=2, max_steps=-1, accumulate_grad_batches=2, check_val_every_n_epoch=1), None)
    (10, 2.0, '6 steps: 2 epochs of 5 batches, 2 a step')
    """
    accumulate = limits["accumulate_grad_batches"]
    if most is not None:
        batches = min(batches, most) if isinstance(most, int) else max(int(batches * most), 1)
    total = batches_in_all(batches, limits["max_epochs"], limits["max_steps"], None, accumulate) or batches
    whole, rest = divmod(total, batches)
    steps = whole * math.ceil(batches / accumulate) + math.ceil(rest / accumulate)  # an epoch's last may be smaller
    epochs = total / batches
    count = f"{epochs:.3g} epoch{'s' * (epochs != 1)}"
    each = f" of {batches} batches" if accumulate == 1 else f" of {batches} batches, {accumulate} a step"
    return total, epochs / (limits["check_val_every_n_epoch"] or 1), f"{steps} steps: {count}{each}"


class Measured:
    """Measures a run's models on its own rows: forward and backward passes without a step, and sampling.

    Args:
        run: a run that was prepared.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.cfg = run, run.cfg
        trainer = run.cfg["trainer"]
        gpu = trainer["accelerator"] in ("gpu", "cuda") or (trainer["accelerator"] == "auto")
        self.device = torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu")
        self.world = processes(trainer)
        self.most = trainer["limit_train_batches"]
        self.half = "bf16" in str(trainer["precision"])
        self.dealt = self.world if strategy_name(trainer).startswith("fsdp2") else 1
        self.per_prompt = 0.0
        self.scorer: RewardModel | None = run.reward_model
        self.score_token = 0.0

    def costs(self) -> list[Cost]:
        """What each stage that is trained takes."""
        made = {"sft": self.sft, "reward": self.reward, "ppo": self.ppo}
        stages = [stage for stage in self.cfg["stages"] if stage in made]
        if self.run.policy is not None:
            self.run.policy.to(self.device)
            self.per_prompt = self._sampling(self.run.policy)
        return [made[stage]() for stage in stages]

    def _timed(self, work: Callable[[], torch.Tensor], models: Sequence[nn.Module]) -> tuple[float, int]:
        """Seconds of a forward and backward pass, the shortest of `TRIES`, and bytes kept between them."""
        seconds, held = math.inf, 0
        for _ in range(TRIES):
            self._wait()
            start = time.perf_counter()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half), kept(models) as found:
                loss = work()
            loss.backward()
            self._wait()
            seconds, held = min(seconds, time.perf_counter() - start), found[0]
            for model in models:
                model.zero_grad(set_to_none=True)
        return seconds, held

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _sampling(self, policy: Policy | Classifier) -> float:
        """Seconds to answer a prompt, among as many as are answered at once."""
        rows = list(enumerate(self.run.data.prompts or self.run.data.test or self.run.data.validation))
        if not rows:
            return 0.0
        size = min(len(rows), self.cfg["evaluate"]["batch_size"])
        took, asked = 0.0, min(4, size)
        while True:
            batch = prompt_batch(rows[:asked], policy.codec).to(self.device)
            start = time.perf_counter()
            self._answer(policy, batch)
            self._wait()
            took = (time.perf_counter() - start) / asked
            if asked == size or took * asked > 2:  # a slow model need not answer all of them to be known
                return took
            asked = size

    def _answer(self, policy: Policy | Classifier, batch: PromptBatch) -> Any:
        sampling = Sampling(temperature=self.cfg["ppo"]["temperature"], seed=self.cfg["seed"])
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            if isinstance(policy, Classifier):
                return policy.complete(batch, sampling)
            return self.run.engine(policy, batch, sampling)

    def _cost(self, stage: str, steps: str, model: nn.Module, others: Sequence[nn.Module], held: int, seconds: float,
              copies: int = 0) -> Cost:  # fmt: skip
        """Put together what was measured; ``copies`` of the model's weights are held beside it."""
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        optimizer = int(gradients * state_share(self.cfg[stage]["optimizer"]))
        own = _bytes([model])
        lora = (reward_spec(self.run) if stage == "reward" else self.run.spec).lora
        adapter = lora.r > 0 and not lora.merge
        exported = gradients if adapter else own
        checkpoints = (gradients + optimizer) * (self.cfg["checkpoint"]["keep"] + 1)
        return Cost(
            stage,
            steps,
            sum(p.numel() for p in model.parameters()),
            trained,
            (own * (1 + copies)) // self.dealt + _bytes(others),
            gradients // self.dealt,
            optimizer // self.dealt,
            held,
            seconds + self._measuring() * (stage != "reward"),
            exported,
            checkpoints + exported * (stage == "ppo"),
        )

    def _measuring(self) -> float:
        return self.per_prompt * len(self.run.data.test) / self.world

    def sft(self) -> Cost:
        """SFT on its own first batches: the time of all tokens, the memory of the largest batch."""
        policy, cfg = self.run.policy, self.cfg["sft"]
        assert policy is not None
        policy.train()
        data = SFTDataModule(self.run.data.train, [], policy.codec, **cfg["loader"], seed=self.cfg["seed"])
        loader = data.train_dataloader()
        batches = [batch for batch, _ in zip(loader, range(20), strict=False)]
        tokens = [int(b.prompt_mask.sum() + b.response_mask.sum()) for b in batches]
        largest = batches[tokens.index(max(tokens))].to(self.device)
        took, held = self._timed(lambda: policy.sft_loss(largest)[0], [policy])
        total, looks, words = length(-(-len(loader) // self.world), cfg["trainer"], self.most)
        looking = looks * len(self.run.data.validation) * self.per_prompt / self.world
        seconds = took / max(tokens) * statistics.mean(tokens) * total + looking
        return self._cost("sft", words, policy, [], held, seconds)

    def reward(self) -> Cost:
        """The reward model likewise."""
        cfg = self.cfg["reward"]
        model = RewardModel.load(reward_spec(self.run), **self.run.limits, fresh_head=True).to(self.device)
        model.train()
        how = {**cfg["loader"], "seed": self.cfg["seed"], "ranking": cfg["ranking"]}
        data = PreferenceDataModule(*self.run.data.judged, model.codec, **how)
        loader = data.train_dataloader()
        batches = [batch for batch, _ in zip(loader, range(20), strict=False)]
        tokens = [int(batch.mask.sum()) for batch in batches]
        largest = batches[tokens.index(max(tokens))].to(self.device)
        took, held = self._timed(lambda: model(largest.input_ids, largest.mask, largest.type_ids).sum(), [model])
        total, looks, words = length(-(-len(loader) // self.world), cfg["trainer"], self.most)
        self.scorer, self.score_token = model, took / max(tokens) / 3  # the backward pass takes two forward ones
        looking = self.score_token * statistics.mean(tokens) / cfg["loader"]["batch_size"]
        looking *= len(data.validation) * looks
        return self._cost(
            "reward", words, model, [], held, took / max(tokens) * statistics.mean(tokens) * total + looking
        )

    def ppo(self) -> Cost:
        """A round of PPO: sampling, the reference's forward pass, the reward model's, and the update's passes."""
        cfg, run = self.cfg["ppo"], self.run
        policy = Policy.load(run.spec, **run.limits, value_head=True).to(self.device)
        policy.train()
        asked = list(enumerate(run.data.prompts[: cfg["loader"]["batch_size"]]))
        batch = prompt_batch(asked[: max(4, min(len(asked), int(8 / max(self.per_prompt, 1e-6))))], policy.codec)
        batch = batch.to(self.device)
        answers = self._answer(policy, batch)
        lengths = batch.prompt_mask.sum(1) + answers.mask.sum(1)
        tokens = float(lengths.float().mean()) * cfg["loader"]["batch_size"] * cfg["responses_per_prompt"]
        rows = micro_batches(lengths, cfg["micro_batch_tokens"])[0]
        inputs = trimmed(batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask, rows, policy.kind == "causal")

        def loss() -> torch.Tensor:
            output = policy.token_outputs(*inputs, cfg["temperature"], with_values=True)
            assert output.values is not None
            return output.logprobs.sum() + output.values.sum()

        took, held = self._timed(loss, [policy])
        token = took / float(lengths[rows].sum())
        learned = any(reward["_target_"].endswith("LearnedReward") for reward in cfg["rewards"].values())
        others = [self.scorer] if learned and self.scorer is not None else []
        prompts = cfg["loader"]["batch_size"] * cfg["responses_per_prompt"]
        passes = cfg["epochs"] + bool(cfg["kl_coef"]) / 3 + bool(others) * self.score_token / max(token, 1e-12)
        each = self.per_prompt * prompts + passes * token * tokens
        looks = cfg["updates"] / (cfg["trainer"].get("val_check_interval") or cfg["updates"])
        looking = looks * len(run.data.validation) * self.per_prompt / self.world
        steps = cfg["updates"] * cfg["epochs"] * cfg["minibatches"]
        words = f"{steps} steps: {cfg['updates']} rounds of {prompts} responses"
        copies = bool(cfg["kl_coef"] and run.spec.lora.r == 0) + (cfg["critic"] != "shared")
        return self._cost("ppo", words, policy, others, held, each * cfg["updates"] + looking, copies)


def libraries(run: Run) -> int:
    """Bytes of this process that are no model's weights; 0 where the system doesn't tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    models = [model for model in (run.policy, run.reward_model) if model is not None]
    return max(pages * os.sysconf("SC_PAGE_SIZE") - _bytes(models), 0)
