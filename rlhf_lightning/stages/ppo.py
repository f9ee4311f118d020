"""Proximal policy optimisation against rewards, with a KL penalty to where the policy started."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from rlhf_lightning import optim
from rlhf_lightning.algorithms import (
    AdaptiveKL,
    FixedKL,
    gae,
    has_others,
    kl_estimate,
    leave_one_out,
    masked_mean,
    missing_eos_penalty,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from rlhf_lightning.algorithms.kl import KLKind
from rlhf_lightning.algorithms.rewards import MissingEOS
from rlhf_lightning.data.batches import PromptBatch
from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.data.micro_batches import micro_batches, trimmed
from rlhf_lightning.data.order import shuffled
from rlhf_lightning.early import check_ppo
from rlhf_lightning.errors import UserError
from rlhf_lightning.models.generation import Sampling
from rlhf_lightning.models.policy import Policy
from rlhf_lightning.models.reference import Reference
from rlhf_lightning.models.sharding import is_sharded, writable
from rlhf_lightning.rewards.functions import Reward
from rlhf_lightning.rewards.mix import OnFailure, RewardMix
from rlhf_lightning.rollout import Engine, NativeEngine, Rollout, collect, token_pairs
from rlhf_lightning.stages.evaluate import Evaluator, Sample
from rlhf_lightning.stages.guard import GuardedModule, clip_to, drop_gradients, gradient_norm
from rlhf_lightning.stages.sharding import shard_parts

UNSCORED_ROUNDS = 3
"""Rounds in a row without a single reward after which PPO stops."""


def watched_numbers(rollout: Rollout) -> dict[str, Tensor]:
    """What has to be finite before a round is learnt from."""
    numbers = {"logprobs": rollout.logprobs, "ref_logprobs": rollout.ref_logprobs, "values": rollout.values}
    return {**numbers, "score": rollout.scores}


def _freeze_unused(policy: Policy, critic: Policy) -> None:
    """Freeze what gets no gradient beside a critic of its own; DDP waits for every trainable weight's."""
    if policy.value_head is not None:
        policy.value_head.requires_grad_(False)
    output, embedding = critic.inner.get_output_embeddings(), critic.inner.get_input_embeddings()
    if output is not None and output.weight is not embedding.weight:
        output.requires_grad_(False)


class PPOModule(GuardedModule):
    """PPO (arXiv:1707.06347) as used in RLHF (arXiv:1909.08593; details in arXiv:2403.17031).

    One ``training_step`` takes a batch of prompts through a whole round: sample responses, score them, estimate
    advantages, and take ``epochs x minibatches`` optimizer steps. Optimisation is manual, so gradient clipping and
    accumulation are set here and not in the Trainer; ``Trainer(max_steps=...)`` counts optimizer steps.

    Args:
        policy: the model to train; without ``critic`` it must have been made with ``value_head=True``.
        rewards: named rewards, each a callable ``(prompts, completions, references, meta) -> (b,)``.
        reward_weights: by name; 1 where a name is missing.
        kl_coef: weight of the per-token KL penalty; 0 keeps no reference at all.
        kl: ``fixed``, or ``adaptive`` to steer the coefficient towards ``kl_target``.
        kl_target: sequence KL in nats that the adaptive controller aims at.
        kl_horizon: episodes over which it moves.
        kl_estimator: k1, k2 or k3 (`kl_estimate`).
        responses_per_prompt: to each prompt of a batch. With several, the mean score of the others is taken off each
            response's score (`leave_one_out`), so that a prompt's difficulty, which a critic can only guess, is no
            noise any more: it helps where scores differ more between prompts than within.
        epochs: passes over each round of responses.
        minibatches: optimizer steps a pass.
        micro_batch_tokens: tokens, padding included, of an update in memory at once; changes speed and memory, never
            the result. None is `rlhf_lightning.data.micro_batches.TOKENS`.
        clip_range: of the probability ratio.
        value_clip_range: of the value's move.
        vf_coef: weight of the value loss.
        gamma: discount.
        lam: of the advantage estimation.
        whiten_advantages: over the whole round, all ranks.
        whiten_rewards: scale token rewards to unit variance, keeping their mean.
        missing_eos: what happens to the score of a response that did not end: ``replace`` or ``subtract``.
        missing_eos_penalty: by how much; 0 is off.
        temperature: of sampling, and so of every log-probability here.
        lr: peak learning rate.
        value_lr: of the value head or critic; None is ``lr``.
        max_grad_norm: bound of the gradient's norm; 0 is none.
        optimizer: made of parameter groups and ``lr``.
        schedule: made of the optimizer and the number of updates (rounds), stepped once a round.
        critic: a model of its own for the values, made with ``value_head=True``.
        engine: what draws the responses; None is `NativeEngine`.
        seed: of sampling and of the order in which responses are learnt from.
        max_bad_steps: steps that can't be taken, for a number that is not finite, at which the training stops.
        evaluator: measures the answers to validation prompts; without one validation is skipped.
        on_reward_failure: ``stop``, or ``mask`` to leave responses for which a reward failed out of everything that is
            learnt (their KL, length and end are still part of those statistics). With several responses to a prompt,
            one that alone has a score is left out too: nobody knows its gain. A round without any score is no update
            and counts as none; three in a row stop the run.

    Raises:
        UserError: for options that can't be combined.
    """

    def __init__(
        self,
        policy: Policy,
        rewards: Mapping[str, Reward],
        reward_weights: Mapping[str, float] | None = None,
        kl_coef: float = 0.05,
        kl: Literal["fixed", "adaptive"] = "fixed",
        kl_target: float = 6.0,
        kl_horizon: int = 10_000,
        kl_estimator: KLKind = "k1",
        responses_per_prompt: int = 1,
        epochs: int = 4,
        minibatches: int = 1,
        micro_batch_tokens: int | None = None,
        clip_range: float = 0.2,
        value_clip_range: float = 0.2,
        vf_coef: float = 0.1,
        gamma: float = 1.0,
        lam: float = 0.95,
        whiten_advantages: bool = True,
        whiten_rewards: bool = False,
        missing_eos: MissingEOS = "replace",
        missing_eos_penalty: float = 1.0,
        temperature: float = 0.7,
        lr: float = 1e-5,
        value_lr: float | None = None,
        max_grad_norm: float = 1.0,
        optimizer: optim.OptimizerFactory = optim.default_optimizer,
        schedule: optim.Schedule = optim.linear,
        critic: Policy | None = None,
        engine: Engine | None = None,
        seed: int = 0,
        max_bad_steps: int = 3,
        evaluator: Evaluator | None = None,
        on_reward_failure: OnFailure = "stop",
    ) -> None:
        check_ppo(locals())
        super().__init__("ppo", max_bad_steps)
        if not isinstance(policy, Policy):
            raise UserError(f"PPO needs a policy that generates text, not a {type(policy).__name__}")
        if (critic or policy).value_head is None:
            raise UserError("PPO needs values: make the policy (or the critic) with value_head=True")
        if critic is not None:
            _freeze_unused(policy, critic)
        self.automatic_optimization = False
        self.policy, self.critic, self.evaluator = policy, critic, evaluator
        self.engine = engine or NativeEngine()
        self.rewards = RewardMix(rewards, reward_weights, on_reward_failure)
        self.unscored_rounds = 0
        self.reference = Reference(policy) if kl_coef else None
        if evaluator is not None and self.reference is not None:
            evaluator.reference = self.reference
        self.controller = AdaptiveKL(kl_coef, kl_target, kl_horizon) if kl == "adaptive" else FixedKL(kl_coef)
        self.kl_estimator, self.responses_per_prompt = kl_estimator, responses_per_prompt
        self.epochs, self.minibatches, self.micro_batch_tokens = epochs, minibatches, micro_batch_tokens
        self.clip_range, self.value_clip_range, self.vf_coef = clip_range, value_clip_range, vf_coef
        self.gamma, self.lam = gamma, lam
        self.whiten_advantages, self.whiten_rewards = whiten_advantages, whiten_rewards
        self.missing_eos, self.missing_eos_penalty = missing_eos, missing_eos_penalty
        self.sampling, self.seed = Sampling(temperature=temperature, seed=seed), seed
        self.rounds = 0
        """Rounds that have been had; each has random numbers of its own."""
        self.lr, self.value_lr, self.max_grad_norm = lr, value_lr, max_grad_norm
        self.optimizer, self.schedule = optimizer, schedule

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps of a round, that is of a batch of prompts."""
        return self.epochs * self.minibatches

    def configure_model(self) -> None:
        """Deal all models out where the strategy is FSDP2."""
        shard_parts(self, self.policy, self.critic, self.reference)

    # --- one round ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Tensor] | None:
        """Sample, score, estimate, update; this rank's ``scores`` and ``lengths`` go to the callbacks."""
        clock = time.perf_counter()
        batch = batch.repeated(self.responses_per_prompt)
        self.rewards.forget_failures()
        rollout = collect(
            batch,
            self.policy,
            self.engine,
            self.rewards,
            self.sampling,
            self.reference,
            self._critic_values if self.critic is not None else None,
            self.micro_batch_tokens,
            self.rounds,
        )
        rollout = replace(rollout, scored=has_others(rollout.scored, self.responses_per_prompt))
        self.count(episodes=len(rollout), tokens=float(rollout.response_mask.sum()))
        self.watch(lambda: self._texts(batch, rollout), **watched_numbers(rollout))
        if not self.sound():
            self._pass_over()
            return None
        stats = self.statistics(rollout)
        seconds = dict(rollout.seconds)
        if updates := self.any_scored(rollout):
            rollout = self.level_values(rollout)
            advantages, returns, more = self.advantages(rollout)
            updating = time.perf_counter()
            stats |= more | self.update(rollout, advantages * rollout.importance, returns)
            seconds["update"] = time.perf_counter() - updating
        stats |= self.speed(rollout, seconds, time.perf_counter() - clock)
        stats["prompt_truncated"] = float(batch.truncated.float().mean())

        if self.reference is not None:
            kl = torch.as_tensor(stats["kl"], device=self.device)
            kl = self.trainer.strategy.reduce(kl, reduce_op="mean")  # type: ignore[assignment]
            self.controller.update(float(kl), len(rollout) * self.trainer.world_size)
        self._log(stats, len(rollout))
        self.rounds += 1
        if updates:
            self.lr_schedulers().step()  # type: ignore[union-attr]
        return {"scores": rollout.scores[rollout.scored], "lengths": rollout.response_mask.sum(1)}

    def _pass_over(self) -> None:
        """Leave out a round; its steps count, so that the training is no longer for it."""
        optimizer = self.optimizers()
        for _ in range(self.steps_per_batch):
            optimizer.zero_grad()  # type: ignore[union-attr]
            optimizer.step()  # type: ignore[union-attr]
        self.log("ppo/bad_steps", float(self.bad_steps))
        self.rounds += 1
        self.lr_schedulers().step()  # type: ignore[union-attr]

    def _texts(self, batch: PromptBatch, rollout: Rollout) -> list[str]:
        prompts = [transcript(row.prompt.text) for row in batch.rows]
        return [f"{prompt} {text}" for prompt, text in zip(prompts, rollout.texts, strict=True)]

    def _critic_values(
        self, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor
    ) -> Tensor:
        assert self.critic is not None
        values = self.critic(prompt_ids, prompt_mask, response_ids, response_mask, with_values=True).values
        assert values is not None
        return values

    def any_scored(self, rollout: Rollout) -> bool:
        """Whether any rank has a response to learn from.

        Raises:
            UserError: if none had one for `UNSCORED_ROUNDS` rounds in a row.
        """
        if self._sum_over_ranks(rollout.scored.sum().float()) > 0:
            self.unscored_rounds = 0
            return True
        self.unscored_rounds += 1
        if self.unscored_rounds == UNSCORED_ROUNDS:
            reasons = "; ".join(self.rewards.reasons.values()) or "the rewards of other processes failed"
            raise UserError(
                f"in {UNSCORED_ROUNDS} rounds in a row no response could be learnt from, for want of rewards: {reasons}"
            )
        return False

    @torch.no_grad()
    def level_values(self, rollout: Rollout) -> Rollout:
        """Let a critic that still says 0 everywhere say the round's mean gain instead; its bias is set to that.

        With lambda below 1, GAE discounts what the values don't foretell. Values of 0 under rewards whose mean is above
        0 would therefore favour short responses until the critic has learnt that mean.
        """
        if rollout.values.any():
            return rollout
        mean = float(self._mean_over_ranks(self.gains(rollout), rollout.scored))
        writable((self.critic or self.policy).value_head).bias.add_(mean)  # type: ignore[arg-type,operator,union-attr]
        return replace(rollout, values=rollout.values.masked_fill(rollout.response_mask, mean))

    def penalised(self, rollout: Rollout) -> Tensor:
        """(b,) scores after the penalty for responses that did not end."""
        return missing_eos_penalty(rollout.scores, rollout.ended, self.missing_eos_penalty, self.missing_eos)

    def gains(self, rollout: Rollout) -> Tensor:
        """(b,) what is optimised: the penalised scores, less what the other responses to the prompt got."""
        return leave_one_out(self.penalised(rollout), self.responses_per_prompt, rollout.scored)

    def statistics(self, rollout: Rollout) -> dict[str, Any]:
        """What there is to say of a round's responses, scored or not."""
        mask = rollout.response_mask
        stats: dict[str, Any] = {
            "importance": masked_mean(rollout.importance, mask),
            "eos_rate": rollout.ended.float().mean(),
            "length": mask.sum(1).float().mean(),
            "distinct_2": self._distinct_pairs(rollout),
        }
        if self.reference is not None:
            estimates = {"kl": "k1", "kl_k3": "k3"}
            for name, kind in estimates.items():
                per_token = kl_estimate(rollout.logprobs, rollout.ref_logprobs, kind)  # type: ignore[arg-type]
                stats[name] = per_token.masked_fill(~mask, 0.0).sum(1).mean()
            stats["kl_coef"] = self.controller.coef
        if self.rewards.on_failure == "mask":
            stats["unscored"] = 1 - rollout.scored.float().mean()
            for name, failures in self.rewards.failures.items():
                stats[f"failures/{name}"] = self._sum_over_ranks(torch.tensor(float(failures), device=self.device))
        return stats

    def speed(self, rollout: Rollout, seconds: Mapping[str, float], total: float) -> dict[str, float]:
        """Seconds and tokens a second of each phase that there was: the responses' tokens for sampling and in all, else
        all tokens, as often as they are read."""
        drawn, read = float(rollout.response_mask.sum()), float(rollout.lengths.sum())
        tokens = {"sample": drawn, "score": read, "forward": read, "update": read * self.epochs}
        stats = {f"seconds/{phase}": value for phase, value in seconds.items()}
        stats |= {f"tokens_per_second/{phase}": tokens[phase] / max(took, 1e-9) for phase, took in seconds.items()}
        return {**stats, "tokens_per_second": drawn / total}

    def _distinct_pairs(self, rollout: Rollout) -> float:
        """How many of the pairs of tokens that follow each other in a round's responses are different, over all ranks.

        NaN where no response has two tokens.
        """
        pairs = token_pairs(rollout.response_ids, rollout.response_mask)
        parts = [pairs]
        if self.trainer.world_size > 1:
            parts = [pairs] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, pairs)
        found = [pair for part in parts for pair in part]
        return len(set(found)) / len(found) if found else float("nan")

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Token rewards and what they are worth.

        Returns:
            ``advantages (b, r)``, ``returns (b, r)``, and the statistics of the scored responses, over all ranks.
        """
        mask, learnt, scored = rollout.response_mask, rollout.learnt_mask, rollout.scored
        scores, gains = self.penalised(rollout), self.gains(rollout)
        kl = kl_estimate(rollout.logprobs, rollout.ref_logprobs, self.kl_estimator) if self.reference else None
        rewards = token_rewards(gains, kl, mask, self.controller.coef)
        penalty = rewards.sum(1) - gains
        if self.whiten_rewards:
            rewards = whiten(rewards, learnt, shift_mean=False, all_reduce=self._sum_over_ranks)
        advantages, returns = gae(rewards, rollout.values, learnt, self.gamma, self.lam)
        error = self._mean_over_ranks((returns - rollout.values).square(), learnt)
        spread = self._mean_over_ranks((returns - self._mean_over_ranks(returns, learnt)).square(), learnt)
        stats: dict[str, Any] = {
            "score": self._mean_over_ranks(rollout.scores, scored),
            "score_penalised": self._mean_over_ranks(scores, scored),
            "total_reward": self._mean_over_ranks(scores + penalty, scored),
            "non_score_reward": self._mean_over_ranks(penalty, scored),
            "explained_variance": 1 - error / spread.clamp(min=1e-8),
            "values": self._mean_over_ranks(rollout.values, learnt),
        }
        stats |= {f"reward/{name}": self._mean_over_ranks(v, scored) for name, v in rollout.rewards.items()}
        if self.whiten_advantages:
            advantages = whiten(advantages, learnt, all_reduce=self._sum_over_ranks)
        return advantages, returns, stats

    def update(self, rollout: Rollout, advantages: Tensor, returns: Tensor) -> dict[str, Any]:
        """Take ``epochs x minibatches`` optimizer steps on a round of experience.

        The losses are means over all tokens of a minibatch, over all ranks: each micro-batch is weighted by its share
        of them, so that the gradient doesn't depend on how a minibatch is split. Responses without a score count 0
        tokens, but go through the model: every rank takes part in each exchange of gradients, whatever it can score.

        Returns:
            Statistics: token-weighted means over all steps that were taken; and ``logprob_gap``, the largest
            difference between the log-probabilities at sampling and at the first step (0 but for rounding); and
            ``padding``, its share in what went through the policy.

        Raises:
            UserError: if there are fewer responses than minibatches.
        """
        if len(rollout) < self.minibatches:
            raise UserError(
                f"ppo.minibatches={self.minibatches} needs at least as many responses; there are {len(rollout)}"
            )
        optimizer = self.optimizers()
        world = self.trainer.world_size
        lengths, places = rollout.lengths, 0
        sums: dict[str, Tensor | float] = defaultdict(float)
        taken = 0
        gap = torch.zeros((), device=self.device)
        for epoch in range(self.epochs):
            order = torch.tensor(
                shuffled(len(rollout), self.seed, self.rounds * self.epochs + epoch), device=self.device
            )
            for step, rows in enumerate(order.tensor_split(self.minibatches)):
                global_tokens = self._sum_over_ranks(rollout.learnt_mask[rows].sum().float()).clamp(min=1)
                # Micro-batches of like lengths hold the least padding; their order within a step changes nothing.
                groups = micro_batches(lengths[rows], self.micro_batch_tokens, is_sharded(self.policy.model))
                parts = [rows[group] for group in groups]
                means: dict[str, Tensor | float] = defaultdict(float)
                for i, part in enumerate(parts):
                    places += len(part) * self._places(rollout, part)
                    texts = [rollout.texts[k] for k in part.tolist()]
                    mask = rollout.response_mask[part]
                    # The strategy averages gradients over ranks; `world` turns that into the sum we weight ourselves.
                    share = rollout.learnt_mask[part].sum() * world / global_tokens
                    loss, stats, logprobs = self._loss(rollout, advantages, returns, part)
                    self.watch(lambda texts=texts: texts, logprobs=logprobs, loss=loss.expand(len(part)))  # type: ignore[misc]
                    with self._no_sync() if i + 1 < len(parts) else nullcontext():
                        self.manual_backward(loss * share)
                    if epoch == 0 and step == 0:
                        change = (logprobs - rollout.logprobs[part]).masked_fill(~mask, 0.0)
                        gap = torch.maximum(gap, change.abs().max())
                    for name, value in stats.items():
                        means[name] = means[name] + value * share
                norm: Tensor = gradient_norm(self.parameters())
                if self.sound(norm):
                    taken += 1
                    for name, mean in self._over_ranks(means, norm).items():
                        sums[name] = sums[name] + mean
                    if self.max_grad_norm:
                        clip_to(self.parameters(), self.max_grad_norm, norm)
                else:
                    drop_gradients(self.parameters())
                optimizer.step()  # type: ignore[union-attr]
                optimizer.zero_grad()  # type: ignore[union-attr]
        if world > 1:
            gap = self.trainer.strategy.reduce(gap, reduce_op="max")  # type: ignore[assignment]
        padding = 1 - float(lengths.sum()) * self.epochs / places
        return {name: value / taken for name, value in sums.items()} | {"logprob_gap": gap, "padding": padding}

    def _places(self, rollout: Rollout, rows: Tensor) -> int:
        """Places of a row, tokens or padding, when these go through the policy together."""
        if self.policy.has_plain_head:
            return int(rollout.lengths[rows].max())
        return int(rollout.prompt_mask[rows].sum(1).max() + rollout.response_mask[rows].sum(1).max())

    def _over_ranks(self, means: Mapping[str, Tensor | float], norm: Tensor) -> dict[str, Tensor]:
        """A step's statistics over all ranks. The ratio's variance is made of two means, so that it is the whole's."""
        together = torch.stack([torch.as_tensor(value, device=self.device) for value in means.values()])
        whole = dict(zip(means, self._sum_over_ranks(together) / self.trainer.world_size, strict=True))
        whole["ratio_var"] = whole.pop("ratio_square") - (whole["ratio"] - 1).square()
        return {**whole, "grad_norm": norm}

    def _loss(
        self, rollout: Rollout, advantages: Tensor, returns: Tensor, rows: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss of some responses (mean over their tokens), its statistics, and the log-probabilities (k, r)."""
        inputs = trimmed(
            rollout.prompt_ids,
            rollout.prompt_mask,
            rollout.response_ids,
            rollout.response_mask,
            rows,
            left=self.policy.kind == "causal",
        )
        width = inputs[2].shape[1]
        mask = rollout.learnt_mask[rows, :width]
        output = self.policy.token_outputs(*inputs, self.sampling.temperature, with_values=self.critic is None)
        values = self._critic_values(*inputs) if self.critic is not None else output.values
        assert values is not None
        logprobs = output.logprobs
        policy_part, policy_stats = policy_loss(
            logprobs, rollout.logprobs[rows, :width], advantages[rows, :width], mask, self.clip_range
        )
        value_part, value_stats = value_loss(
            values, rollout.values[rows, :width], returns[rows, :width], mask, self.value_clip_range
        )
        loss = policy_part + self.vf_coef * value_part
        stats = {
            "loss": loss.detach(),
            "policy_loss": policy_part.detach(),
            "value_loss": value_part.detach(),
            "entropy": masked_mean(output.entropy, mask),
            "value_clip_fraction": value_stats["clip_fraction"],
            **policy_stats,
        }
        whole = torch.zeros(len(rows), rollout.response_mask.shape[1], device=logprobs.device)
        whole[:, :width] = logprobs.detach()
        return loss, stats, whole

    def _no_sync(self) -> AbstractContextManager[None]:
        """Put off the exchange of gradients between ranks; strategies for one device have none to put off."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _sum_over_ranks(self, x: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(x, reduce_op="sum") if self.trainer.world_size > 1 else x  # type: ignore[return-value]

    def _mean_over_ranks(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mean of the values where a boolean mask is true, on whatever rank they are; 0 if it is nowhere."""
        total, count = self._sum_over_ranks(torch.stack([x.masked_fill(~mask, 0.0).sum(), mask.sum().to(x.dtype)]))
        return total / count.clamp(min=1)

    def _log(self, stats: Mapping[str, Any], size: int) -> None:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        for name, value in {**stats, "lr": rate, "bad_steps": self.bad_steps}.items():
            shown = name in ("score", "kl", "length")
            self.log(
                f"ppo/{name}", float(value), prog_bar=shown, batch_size=size, sync_dist=self.trainer.world_size > 1
            )

    # --- validation, optimizer, checkpoint ---------------------------------------------------------------------------

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, list[Sample]] | None:
        """Answer held-out prompts; the samples go to the callbacks."""
        if self.evaluator is None:
            return None
        return {"samples": self.evaluator.step(self.policy, batch)}

    def on_validation_epoch_end(self) -> None:
        """Log the measures of all batches as ``ppo/val/<measure>``."""
        if self.evaluator is not None:
            measured = {f"ppo/val/{name}": value for name, value in self.evaluator.compute().items()}
            self.log_dict({**measured, **self.total_figures()})

    @property
    def updates(self) -> int:
        """Rounds of the whole training, from the Trainer's limits."""
        batches = optim.training_steps(self.trainer)  # in manual mode Lightning counts a step for each batch
        if self.trainer.max_steps > 0:
            # A round is never cut short: the last one may take more steps than were left.
            batches = min(batches, -(-self.trainer.max_steps // self.steps_per_batch))
        return batches

    def configure_optimizers(self) -> Any:
        """One optimizer with two groups: the policy's trunk, and whatever gives the values."""
        head = list((self.critic or self.policy.value_head).parameters())  # type: ignore[union-attr]
        heads = {id(p) for p in head}
        trunk = [p for p in self.policy.parameters() if p.requires_grad and id(p) not in heads]
        groups = [
            {"params": trunk, "lr": self.lr},
            {"params": [p for p in head if p.requires_grad], "lr": self.lr if self.value_lr is None else self.value_lr},
        ]
        optimizer = optim.fused(self.optimizer(groups, lr=self.lr), self.trainer)
        return {"optimizer": optimizer, "lr_scheduler": self.schedule(optimizer, self.updates)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The KL coefficient and the number of rounds belong to the state of the run."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["kl_controller"], checkpoint["rounds"] = self.controller.state_dict(), self.rounds
        checkpoint["unscored_rounds"] = self.unscored_rounds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        super().on_load_checkpoint(checkpoint)
        self.controller.load_state_dict(checkpoint["kl_controller"])
        self.rounds, self.unscored_rounds = checkpoint["rounds"], checkpoint["unscored_rounds"]
