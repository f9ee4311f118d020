"""Responses for which a reward failed: the run stops, or they are left out of everything that is learnt."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_models import KINDS, length_reward, rows

from rlhf_lightning import optim
from rlhf_lightning.algorithms import gae, policy_loss, token_logprobs, token_rewards, value_loss, whiten
from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.errors import UserError
from rlhf_lightning.stages import PPOModule

pytestmark = pytest.mark.filterwarnings("ignore:the reward 'length' ")


def failing_for(*positions: int) -> Callable[..., torch.Tensor]:
    """A reward without a number for the samples in these places of a batch."""

    def reward(*args: Any) -> torch.Tensor:
        values = length_reward(*args)
        values[list(positions)] = math.nan
        return values

    return reward


class Down:
    """A reward that raises on some of its calls."""

    def __init__(self, *calls: int) -> None:
        self.calls, self.n = calls, 0

    def __call__(self, *args: Any) -> torch.Tensor:
        self.n += 1
        if self.n - 1 in self.calls:
            raise ConnectionError("the judge is down")
        return length_reward(*args)


class Recorder(L.Callback):
    """What every round logged, and the weights after it."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        self.rounds.append({k: float(v) for k, v in trainer.callback_metrics.items()})
        self.weights.append(weights(module))


def sgd(groups: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr)


def weights(module: PPOModule) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def train(make_trainer, policy, reward, rounds: int = 1, cls: type = PPOModule, trainer: dict | None = None, **options):
    """Some rounds of four prompts each; the module, the Trainer and the recorder."""
    settings = {"epochs": 1, "lr": 0.05, "optimizer": sgd, "schedule": optim.constant, "on_reward_failure": "mask"}
    module = cls(policy, {"length": reward}, **{**settings, **options})
    recorder = Recorder()
    made = make_trainer(**{"max_epochs": rounds, "callbacks": [recorder], **(trainer or {})})
    torch.manual_seed(11)
    made.fit(module, datamodule=PromptDataModule(rows(), [], policy.codec, 4))
    return module, made, recorder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("each", "failed", "kept"),
    [
        (1, [2], [0, 1, 3]),
        # Of the second prompt's three responses one has a score: nothing to compare it with.
        (3, [1, 3, 5], [0, 2, 6, 7, 8, 9, 10, 11]),
    ],
)
def test_masking_is_leaving_out(kind: str, each: int, failed: list, kept: list, make_policy, make_trainer) -> None:
    """Two steps equal those of a copy that is shown the other responses alone, worked out by hand."""
    seen: dict[str, Any] = {}

    class Spy(PPOModule):
        def update(self, rollout, advantages, returns):
            mask = rollout.response_mask[kept]
            scores = length_reward([], rollout.texts, [], [])
            gains = scores.clone()
            if each > 1:
                for i in kept:
                    others = [j for j in kept if j // each == i // each and j != i]
                    gains[i] = scores[i] - scores[others].mean()
            kl = (rollout.logprobs - rollout.ref_logprobs)[kept]
            rewards = whiten(token_rewards(gains[kept], kl, mask, 0.05), mask, shift_mean=False)
            expected, targets = gae(rewards, rollout.values[kept], mask, 1.0, 0.95)
            expected = whiten(expected, mask)
            torch.testing.assert_close(advantages[kept], expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(returns[kept], targets, atol=1e-5, rtol=1e-4)
            inputs = [rollout.prompt_ids[kept], rollout.prompt_mask[kept], rollout.response_ids[kept], mask]
            model = copy.deepcopy(self.policy)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            for _ in range(2):
                output = model(*inputs, with_values=True)
                logprobs = token_logprobs(output.logits, inputs[2], 0.7)
                loss = policy_loss(logprobs, rollout.logprobs[kept], expected, mask, 0.2)[0]
                loss = loss + 0.1 * value_loss(output.values, rollout.values[kept], targets, mask, 0.2)[0]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seen["expected"] = weights(model)
            seen["before"] = weights(self.policy)
            return super().update(rollout, advantages, returns)

    policy = make_policy(kind, wild_head=True)
    options = {"responses_per_prompt": each, "missing_eos_penalty": 0.0, "max_grad_norm": 0, "whiten_rewards": True}
    train(make_trainer, policy, failing_for(*failed), cls=Spy, epochs=2, micro_batch_tokens=40, **options)
    assert (seen["expected"] - seen["before"]).abs().max() > 1e-3
    torch.testing.assert_close(weights(policy), seen["expected"], atol=1e-5, rtol=1e-3)


def test_what_is_logged(make_policy, make_trainer) -> None:
    """Means are over the scored responses; how many were not is counted anew each round."""
    seen: list[Any] = []

    class Spy(PPOModule):
        def advantages(self, rollout):
            seen.append(rollout)
            return super().advantages(rollout)

    options = {"missing_eos_penalty": 0.0, "whiten_advantages": False}
    _, _, recorder = train(make_trainer, make_policy(), failing_for(0, 3), rounds=2, cls=Spy, **options)
    for rollout, logged in zip(seen, recorder.rounds, strict=True):
        assert rollout.scored.tolist() == [False, True, True, False]
        assert rollout.scores[[0, 3]].tolist() == [0, 0]
        scores = length_reward([], rollout.texts, [], [])
        assert scores.mean() != scores[1:3].mean()
        assert logged["ppo/unscored"] == 0.5
        assert logged["ppo/failures/length"] == 2
        assert logged["ppo/score"] == logged["ppo/reward/length"] == pytest.approx(float(scores[1:3].mean()))
        assert logged["ppo/length"] == pytest.approx(float(rollout.response_mask.sum(1).float().mean()))
        assert logged["ppo/ratio"] == pytest.approx(1, abs=1e-5)
        assert all(math.isfinite(value) for value in logged.values())


def test_without_failures_masking_changes_nothing(make_policy, make_trainer) -> None:
    results = []
    for way in ("stop", "mask"):
        _, _, recorder = train(make_trainer, make_policy(), length_reward, rounds=2, on_reward_failure=way)
        results.append(recorder.weights[-1])
        assert ("ppo/unscored" in recorder.rounds[0]) == (way == "mask")
    assert torch.equal(*results)
    assert recorder.rounds[0]["ppo/unscored"] == recorder.rounds[0]["ppo/failures/length"] == 0


def test_a_critic_of_zeros_starts_at_the_mean_of_the_scored(make_policy, make_trainer) -> None:
    seen = {}

    class Spy(PPOModule):
        def level_values(self, rollout):
            level = super().level_values(rollout)
            scores = length_reward([], rollout.texts, [], [])
            seen["expected"], seen["level"] = float(scores[1:].mean()), level.values[level.response_mask]
            assert float(scores.mean()) != pytest.approx(seen["expected"])
            return level

    train(make_trainer, make_policy(), failing_for(0), cls=Spy, missing_eos_penalty=0.0)
    assert seen["level"].unique().tolist() == pytest.approx([seen["expected"]])


def test_a_round_without_rewards_is_no_update(make_policy, make_trainer) -> None:
    """It moves nothing, takes no step and no rate of the schedule; another round is played in its place."""
    policy = make_policy()
    limits = {"max_steps": 6, "max_epochs": -1}
    options = {"epochs": 2, "schedule": optim.linear, "optimizer": optim.default_optimizer}
    module, trainer, recorder = train(make_trainer, policy, Down(1, 3), trainer=limits, **options)
    assert trainer.global_step == 6
    assert len(recorder.rounds) == 5
    moved = [bool((b - a).abs().max() > 0) for a, b in zip(recorder.weights, recorder.weights[1:], strict=False)]
    assert moved == [False, True, False, True]
    assert [r["ppo/unscored"] for r in recorder.rounds] == [0, 1, 0, 1, 0]
    assert [r["ppo/failures/length"] for r in recorder.rounds] == [0, 4, 0, 4, 0]
    assert [r["ppo/lr"] for r in recorder.rounds] == pytest.approx([0.05 * f / 3 for f in (3, 2, 2, 1, 1)])
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_three_rounds_without_rewards_stop(make_policy, make_trainer) -> None:
    """In a row, that is; the reason is the reward's own."""
    with pytest.raises(UserError, match=r"3 rounds in a row no response.*ConnectionError: the judge is down"):
        train(make_trainer, make_policy(), Down(1, 2, 3), rounds=9)
    _, trainer, _ = train(make_trainer, make_policy(), Down(0, 1, 3, 4, 6, 7), rounds=9)
    assert trainer.global_step == 3


def test_lone_scores_stop_too(make_policy, make_trainer) -> None:
    """With two responses to each prompt of which one is scored there is nothing to learn from, ever."""
    options = {"responses_per_prompt": 2, "rounds": 3}
    with pytest.raises(UserError, match="3 rounds in a row"):
        train(make_trainer, make_policy(), failing_for(0, 2, 4, 6), **options)


@pytest.mark.parametrize("reward", [Down(1), failing_for(2)])
def test_stop_stops(reward, make_policy, make_trainer) -> None:
    with pytest.raises(UserError, match=r"the reward 'length' (failed in|is nan)"):
        train(make_trainer, make_policy(), reward, rounds=3, on_reward_failure="stop")


def test_there_are_two_ways(make_policy) -> None:
    with pytest.raises(UserError, match=r"ppo\.on_reward_failure must be stop or mask, not 'zero'"):
        PPOModule(make_policy(), {"length": length_reward}, on_reward_failure="zero")
