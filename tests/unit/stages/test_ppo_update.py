"""PPO's update inside Lightning: steps, ratios, micro-batches, clipping, whitening, logging, resume."""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_models import KINDS, length_reward, rows, with_noise_in_padding

from rlhf_lightning import optim
from rlhf_lightning.algorithms import gae, policy_loss, token_logprobs, value_loss
from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import Classifier, LoraSpec, Policy
from rlhf_lightning.rewards import ConstantReward
from rlhf_lightning.rollout import GenerateEngine, NativeEngine
from rlhf_lightning.stages import PPOModule

LOGGED = [
    "kl",
    "kl_k3",
    "kl_coef",
    "entropy",
    "score",
    "score_penalised",
    "reward/length",
    "non_score_reward",
    "total_reward",
    "approx_kl",
    "clip_fraction",
    "value_clip_fraction",
    "ratio",
    "ratio_var",
    "explained_variance",
    "eos_rate",
    "length",
    "lr",
    "tokens_per_second",
    "seconds/sample",
    "seconds/score",
    "seconds/forward",
    "seconds/update",
    *(f"tokens_per_second/{phase}" for phase in ("sample", "score", "forward", "update")),
    "padding",
    "importance",
    "values",
    "logprob_gap",
    "prompt_truncated",
    "loss",
    "policy_loss",
    "value_loss",
]


SEED = 2
"""With these draws some responses end, and some don't."""


class Recorder(L.Callback):
    """What every round logged."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.rounds.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def sgd(groups: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr)


def train(make_trainer, policy, updates: int = 1, batch_size: int = 4, trainer: dict | None = None, **options: Any):
    """A PPO run of some rounds on four prompts; gives the module, the Trainer and what was logged."""
    settings: dict[str, Any] = {"lr": 1e-2, "epochs": 1, "schedule": optim.constant, "seed": SEED, **options}
    module = PPOModule(policy, {"length": length_reward}, **settings)
    data = PromptDataModule(rows() * math.ceil(updates * batch_size / 4), [], policy.codec, batch_size)
    recorder = Recorder()
    made = make_trainer(**{"max_epochs": 1, "limit_train_batches": updates, **(trainer or {}), "callbacks": [recorder]})
    made.fit(module, datamodule=data)
    return module, made, recorder.rounds


def weights(module: PPOModule) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_first_inner_epoch_starts_at_ratio_one(kind: str, critic: str, make_policy, make_trainer) -> None:
    """Checklist 26: on the first pass the ratio is 1, approx KL and clip fraction 0, the log-probabilities agree."""
    policy = make_policy(kind, wild_head=True, value_head=critic == "shared")
    options = {} if critic == "shared" else {"critic": make_policy(kind, wild_head=True)}
    _, _, rounds = train(make_trainer, policy, updates=2, micro_batch_tokens=40, temperature=0.7, **options)
    for logged in rounds:
        assert abs(logged["ppo/ratio"] - 1) < 1e-6
        assert abs(logged["ppo/approx_kl"]) < 1e-6
        assert logged["ppo/ratio_var"] < 1e-6
        assert logged["ppo/clip_fraction"] == 0
        assert logged["ppo/logprob_gap"] < 1e-5
    assert abs(rounds[0]["ppo/kl"]) < 1e-4, "the policy starts where the reference is"
    assert abs(rounds[1]["ppo/kl"]) > 1e-3, "and moves"


def test_later_epochs_move_away_from_ratio_one(make_policy, make_trainer) -> None:
    """Checklist 26: the test above can fail: with a second pass the ratio does move."""
    _, _, rounds = train(make_trainer, make_policy(), epochs=4)
    assert rounds[0]["ppo/ratio_var"] > 1e-4
    assert rounds[0]["ppo/logprob_gap"] < 1e-5


def test_another_temperature_shows_in_the_gap(make_policy, make_trainer, monkeypatch) -> None:
    """Checklist 14: an update at another temperature than sampling is seen at once."""
    original = Policy.token_outputs

    def otherwise(self, *inputs: Any, with_values: bool = False) -> Any:
        *tensors, temperature = inputs
        return original(self, *tensors, 1.0 if torch.is_grad_enabled() else temperature, with_values=with_values)

    monkeypatch.setattr(Policy, "token_outputs", otherwise)
    _, _, rounds = train(make_trainer, make_policy())
    assert rounds[0]["ppo/logprob_gap"] > 0.01
    assert rounds[0]["ppo/ratio_var"] > 1e-4


@pytest.mark.parametrize(
    ("updates", "epochs", "minibatches", "micro"), [(2, 1, 1, None), (3, 2, 2, 1), (1, 4, 3, 2), (2, 2, 4, None)]
)
def test_number_of_optimizer_steps(updates, epochs, minibatches, micro, make_policy, make_trainer) -> None:
    """Checklist 23: exactly updates x epochs x minibatches, for every way to split a minibatch."""
    steps = []

    class Counting(torch.optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            steps.append(1)
            return super().step(*args, **kwargs)

    _, trainer, rounds = train(
        make_trainer,
        make_policy(),
        updates=updates,
        epochs=epochs,
        minibatches=minibatches,
        micro_batch_tokens=micro,
        optimizer=lambda groups, lr: Counting(groups, lr=lr),
    )
    assert len(rounds) == updates
    assert len(steps) == trainer.global_step == updates * epochs * minibatches


def test_max_steps_counts_optimizer_steps(make_policy, make_trainer) -> None:
    """Checklist 23, 27: max_steps = updates x epochs x minibatches ends after that many rounds; each logs its rate."""
    module, trainer, rounds = train(
        make_trainer,
        make_policy(),
        updates=50,
        epochs=2,
        minibatches=2,
        schedule=optim.linear,
        trainer={"max_steps": 12, "max_epochs": -1},
    )
    assert trainer.global_step == 12
    assert module.updates == len(rounds) == 3
    assert [r["ppo/lr"] for r in rounds] == pytest.approx([1e-2 * (1 - i / 3) for i in range(3)])
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("limit", [{"max_steps": 100, "max_epochs": 1}, {"max_steps": 11, "max_epochs": -1}])
def test_schedule_ends_with_the_training(limit: dict, make_policy, make_trainer) -> None:
    """Checklist 27: linear to 0, whichever limit ends the run; a last round that is begun is finished."""
    module, _, rounds = train(
        make_trainer, make_policy(), updates=3, epochs=2, minibatches=2, schedule=optim.linear, trainer=limit
    )
    assert len(rounds) == 3
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batching_changes_no_weights(kind: str, make_policy, make_trainer) -> None:
    """Checklist 24: micro-batches of one row, of 40 tokens and of all give the same weights; responses differ."""
    results, logged = [], []
    for micro in (None, 1, 40):
        policy = make_policy(kind, wild_head=True)
        module, _, rounds = train(
            make_trainer, policy, micro_batch_tokens=micro, epochs=2, minibatches=1, optimizer=sgd, lr=0.05
        )
        results.append(weights(module))
        logged.append(rounds[0])
    start = torch.cat([p.detach().flatten() for p in make_policy(kind, wild_head=True).parameters()])
    moved = (results[0] - start).abs().max()
    assert moved > 1e-3
    for other, stats in zip(results[1:], logged[1:], strict=True):
        torch.testing.assert_close(other, results[0], atol=1e-6, rtol=1e-4)
        for name in ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "kl", "length"):
            assert stats[f"ppo/{name}"] == pytest.approx(logged[0][f"ppo/{name}"], rel=1e-3, abs=1e-5), name


def test_two_steps_by_hand(make_policy, make_trainer) -> None:
    """Checklist 22, 24, 25: two SGD steps equal those of a copy, on the token mean in one piece, gradients anew each.

    The advantages have mean 0 and variance 1 over the response tokens, and are 0 in the padding.
    """
    seen = {}

    class Spy(PPOModule):
        def update(self, rollout, advantages, returns):
            mask = rollout.response_mask
            assert not mask.all(), "the test needs padding"
            assert (advantages[~mask] == 0).all()
            assert advantages[mask].mean().item() == pytest.approx(0, abs=1e-5)
            assert advantages[mask].std(unbiased=False).item() == pytest.approx(1, abs=1e-4)
            inputs = (rollout.prompt_ids, rollout.prompt_mask, rollout.response_ids, mask)
            model = copy.deepcopy(self.policy)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            for _ in range(2):
                output = model(*inputs, with_values=True)
                logprobs = token_logprobs(output.logits, rollout.response_ids, 0.7)
                loss = policy_loss(logprobs, rollout.logprobs, advantages, mask, 0.2)[0]
                loss = loss + 0.1 * value_loss(output.values, rollout.values, returns, mask, 1e-3)[0]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seen["expected"] = list(model.parameters())
            return super().update(rollout, advantages, returns)

    policy = make_policy(wild_head=True)
    options = {"epochs": 2, "micro_batch_tokens": 1, "optimizer": sgd, "schedule": optim.constant, "lr": 0.05}
    module = Spy(policy, {"length": length_reward}, **options, value_clip_range=1e-3, max_grad_norm=0, seed=SEED)
    make_trainer(max_epochs=1).fit(module, datamodule=PromptDataModule(rows(), [], policy.codec, 4))
    for parameter, expected in zip(policy.parameters(), seen["expected"], strict=True):
        torch.testing.assert_close(parameter, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_advantages_by_hand(estimator: str, whitened: bool, make_policy, make_trainer) -> None:
    """Checklist 17, 20: the chosen estimate of the KL and whitened rewards, in the stage, away from a KL of 0."""
    kls = []

    class Spy(PPOModule):
        def advantages(self, rollout):
            given = super().advantages(rollout)
            mask, log_ratio = rollout.response_mask, rollout.logprobs - rollout.ref_logprobs
            kl = {"k1": log_ratio, "k2": log_ratio**2 / 2, "k3": torch.exp(-log_ratio) - 1 + log_ratio}[estimator]
            rewards = -0.3 * kl.masked_fill(~mask, 0.0)
            rewards[torch.arange(len(rollout)), mask.sum(1) - 1] += rollout.scores
            if whitened:
                mean = rewards[mask].mean()
                rewards = (rewards - mean) / (rewards[mask].var(unbiased=False) + 1e-8).sqrt() + mean
                rewards = rewards.masked_fill(~mask, 0.0)
            _, returns = gae(rewards, rollout.values, mask, 0.9, 0.8)
            torch.testing.assert_close(given[1][mask], returns[mask], atol=1e-4, rtol=1e-3)
            kls.append(kl.abs().max())
            return given

    options = {"kl_coef": 0.3, "kl_estimator": estimator, "whiten_rewards": whitened, "missing_eos_penalty": 0.0}
    policy = make_policy(wild_head=True)
    options |= {"gamma": 0.9, "lam": 0.8, "lr": 1e-2, "epochs": 2, "schedule": optim.constant}
    module = Spy(policy, {"length": length_reward}, **options)
    make_trainer(max_epochs=3).fit(module, datamodule=PromptDataModule(rows(), [], policy.codec, 4))
    assert len(kls) == 3
    assert kls[-1] > 1e-3


def test_every_epoch_has_an_order_of_its_own(make_policy, make_trainer) -> None:
    """Checklist 23: the minibatches of a round's passes are drawn anew, and each pass holds every response once."""
    parts: list[tuple[int, ...]] = []

    class Spy(PPOModule):
        def _loss(self, rollout, advantages, returns, part):
            parts.append(tuple(part.tolist()))
            return super()._loss(rollout, advantages, returns, part)

    policy = make_policy()
    module = Spy(policy, {"length": length_reward}, epochs=6, minibatches=2)
    make_trainer(max_epochs=1).fit(module, datamodule=PromptDataModule(rows() * 2, [], policy.codec, 8))
    passes = [frozenset(map(frozenset, parts[i : i + 2])) for i in range(0, 12, 2)]
    assert all(sorted(i for part in one for i in part) == list(range(8)) for one in passes)
    assert len(set(passes)) > 1


def test_gradient_clipping_clips(make_policy, make_trainer) -> None:
    """Checklist 28: under SGD a step's length is lr times the bound, and without a bound longer."""
    moves = {}
    for bound in (1e-3, 1e-2, 0.0):
        policy = make_policy(wild_head=True)
        before = torch.cat([p.detach().flatten() for p in policy.parameters()])
        module, _, _ = train(make_trainer, policy, optimizer=sgd, lr=1.0, max_grad_norm=bound)
        moves[bound] = (weights(module) - before).norm().item()
    assert moves[1e-3] == pytest.approx(1e-3, rel=0.02)
    assert moves[1e-2] == pytest.approx(1e-2, rel=0.02)
    assert moves[0.0] > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_noise_in_padding_changes_no_update(kind: str, make_policy, make_trainer) -> None:
    """Checklist 19: with random ids in all padding a round ends in the same weights, statistics and values."""
    results, logged = [], []
    for noisy in (False, True):
        policy = make_policy(kind, wild_head=True)
        if noisy:
            original = policy.complete

            def complete(*args, original=original):
                answers = original(*args)
                return answers._replace(ids=with_noise_in_padding(answers.ids, answers.mask, 250))

            policy.complete = complete

            class Noisy(PPOModule):
                def training_step(self, batch, batch_idx):
                    from dataclasses import replace

                    ids = with_noise_in_padding(batch.prompt_ids, batch.prompt_mask, 250)
                    super().training_step(replace(batch, prompt_ids=ids), batch_idx)

        cls = Noisy if noisy else PPOModule
        module = cls(
            policy,
            {"length": length_reward},
            epochs=2,
            optimizer=sgd,
            lr=0.05,
            schedule=optim.constant,
            temperature=0.7,
            seed=SEED,
            engine=GenerateEngine(),
        )
        recorder = Recorder()
        trainer = make_trainer(max_epochs=1, callbacks=[recorder])
        trainer.fit(module, datamodule=PromptDataModule(rows(), [], policy.codec, 4))
        results.append(weights(module))
        logged.append(recorder.rounds[0])
    assert logged[0]["ppo/length"] < 8, "the test needs padding"
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-4)
    for name, value in logged[0].items():
        if "second" not in name:
            assert logged[1][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_everything_is_logged(make_policy, make_trainer) -> None:
    """Checklist 29, 16, 5: each of the list's statistics has a name and a finite number."""
    _, _, rounds = train(make_trainer, make_policy(), updates=2, epochs=2)
    for logged in rounds:
        for name in LOGGED:
            assert math.isfinite(logged[f"ppo/{name}"]), name
        parts = logged["ppo/score_penalised"] + logged["ppo/non_score_reward"]
        assert logged["ppo/total_reward"] == pytest.approx(parts, abs=1e-5)
        expected = -0.05 * logged["ppo/kl"]
        assert logged["ppo/non_score_reward"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_several_responses_to_a_prompt(kind: str, make_policy, make_trainer) -> None:
    """Each prompt is answered so often, its answers side by side; what is optimised is the gain over the others."""
    policy = make_policy(kind)
    seen: list[Any] = []

    class Watched(NativeEngine):
        def __call__(self, policy, batch, *args):
            answers = super().__call__(policy, batch, *args)
            seen.append((batch, answers))
            return answers

    options = {"responses_per_prompt": 3, "minibatches": 2, "kl_coef": 0.0}
    _, trainer, rounds = train(make_trainer, policy, engine=Watched(), **options)
    (batch, answers), *_ = seen
    assert len(batch.rows) == len(answers.texts) == 12
    for first in range(0, 12, 3):
        assert batch.rows[first] is batch.rows[first + 1] is batch.rows[first + 2]
        assert (batch.prompt_ids[first : first + 3] == batch.prompt_ids[first]).all()
    assert len({tuple(row) for row in answers.ids.tolist()}) > 4  # drawn one by one, not copied
    assert trainer.global_step == 2
    assert math.isfinite(rounds[0]["ppo/loss"])
    assert rounds[0]["ppo/total_reward"] == pytest.approx(rounds[0]["ppo/score_penalised"])
    assert rounds[0]["ppo/values"] == pytest.approx(0, abs=1e-6)  # gains are 0 on average, and the critic knows it


@pytest.mark.parametrize(("mode", "expected"), [("replace", -2.0), ("subtract", -1.9)])
def test_missing_end_is_punished_in_the_stage(mode: str, expected: float, make_policy, make_trainer) -> None:
    """Checklist 16: responses of one token that never end score -penalty, or 0.1 - penalty."""
    policy = make_policy(max_completion=1)
    original = policy.complete

    def unended(*args):
        answers = original(*args)
        ids = torch.full_like(answers.ids, 70)
        return answers._replace(ids=ids, ended=torch.zeros(len(ids), dtype=torch.bool), texts=["a"] * len(ids))

    policy.complete = unended
    _, _, rounds = train(make_trainer, policy, engine=GenerateEngine(), missing_eos=mode, missing_eos_penalty=2.0)
    assert rounds[0]["ppo/score"] == pytest.approx(0.1)
    assert rounds[0]["ppo/score_penalised"] == pytest.approx(expected)
    assert rounds[0]["ppo/eos_rate"] == 0


@pytest.mark.parametrize("each", [1, 3])
def test_adaptive_coefficient_follows_the_kl(each: int, make_policy, make_trainer) -> None:
    """Checklist 18: the controller is driven by the sequence-summed KL of each round and the number of responses."""
    adaptive = {"kl": "adaptive", "kl_target": 0.1, "kl_horizon": 100, "responses_per_prompt": each}
    module, _, rounds = train(make_trainer, make_policy(), updates=3, **adaptive)
    coef = 0.05
    for logged in rounds:
        assert logged["ppo/kl_coef"] == pytest.approx(coef)
        coef *= 1 + min(max((logged["ppo/kl"] - 0.1) / 0.1, -0.2), 0.2) * 4 * each / 100
    assert module.controller.coef == pytest.approx(coef)


def test_optimizer_groups(make_policy, make_trainer) -> None:
    """Checklist 27: AdamW, eps 1e-5, no decay; one group the trunk, one the value head with its own rate."""
    policy = make_policy()
    _, trainer, _ = train(make_trainer, policy, lr=1e-3, value_lr=5e-3)
    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, torch.optim.AdamW)
    trunk, head = optimizer.param_groups
    assert trunk["eps"] == head["eps"] == 1e-5
    assert trunk["weight_decay"] == 0
    assert (trunk["lr"], head["lr"]) == (1e-3, 5e-3)
    assert {id(p) for p in head["params"]} == {id(p) for p in policy.value_head.parameters()}
    assert {id(p) for p in trunk["params"]} == {id(p) for p in policy.model.parameters()}
    frozen = train(make_trainer, make_policy(), lr=1e-3, value_lr=0.0)[1].optimizers[0]
    assert frozen.param_groups[1]["lr"] == 0


def test_separate_critic_learns_and_its_output_layer_is_left_out(make_policy, make_trainer) -> None:
    """Checklist 17, 27: the second group is the critic; what gets no gradient in it (or in the policy) is frozen."""
    policy, critic = make_policy("llama", value_head=True), make_policy("llama")
    critic.inner.lm_head.weight = torch.nn.Parameter(critic.inner.lm_head.weight.clone())  # not tied
    before = torch.cat([p.detach().flatten() for p in critic.parameters()])
    _, trainer, _ = train(make_trainer, policy, critic=critic, updates=2)
    assert not critic.inner.lm_head.weight.requires_grad
    assert not policy.value_head.weight.requires_grad
    assert (torch.cat([p.detach().flatten() for p in critic.parameters()]) - before).abs().max() > 1e-4
    assert critic.value_head.weight.abs().max() > 0
    for group in trainer.optimizers[0].param_groups:
        assert all(p.requires_grad and p in trainer.optimizers[0].state for p in group["params"])


@pytest.mark.parametrize("lora", [None, LoraSpec(r=2)])
def test_reference_is_outside_the_checkpoint_and_never_moves(lora, make_policy, make_trainer, tmp_path) -> None:
    """The reference's logits are the same after training, and the checkpoint holds the policy once, as plain data."""
    policy = make_policy(**({"lora": lora} if lora else {}))
    ids = torch.randint(2, 250, (2, 5))
    inputs = (ids, ids > 0, ids, ids > 0)
    module = PPOModule(policy, {"length": length_reward}, epochs=2, lr=1e-2, schedule=optim.constant, kl="adaptive")
    before, policy_before = module.reference.logits(*inputs), policy(*inputs).logits.detach()
    torch.testing.assert_close(before, policy_before)
    data = PromptDataModule(rows(), [], policy.codec, 4)
    trainer = make_trainer(max_epochs=2)
    trainer.fit(module, datamodule=data)
    torch.testing.assert_close(module.reference.logits(*inputs), before, atol=1e-6, rtol=1e-6)
    assert (policy(*inputs).logits - policy_before).abs().max() > 1e-3
    assert all(name.startswith("policy.") for name in module.state_dict())
    assert len(module.state_dict()) == len(policy.state_dict())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    state = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert set(state["state_dict"]) == set(module.state_dict())
    assert state["kl_controller"] == {"coef": module.controller.coef}


def test_resume_goes_on_as_if_never_stopped(make_policy, make_trainer, tmp_path) -> None:
    """Two epochs in one run equal one epoch, a checkpoint, and another with everything made anew."""

    def made():
        policy = make_policy()
        module = PPOModule(policy, {"length": length_reward}, epochs=2, lr=1e-2, kl="adaptive", kl_target=0.1)
        return module, PromptDataModule(rows()[:2], [], policy.codec, 2)

    module, data = made()
    make_trainer(max_epochs=2).fit(module, datamodule=data)
    half, data = made()
    stopped = make_trainer(max_epochs=2, callbacks=[StopAfterFirstEpoch(tmp_path / "half.ckpt")])
    stopped.fit(half, datamodule=data)
    rest, data = made()
    make_trainer(max_epochs=2).fit(rest, datamodule=data, ckpt_path=str(tmp_path / "half.ckpt"), weights_only=True)
    ids = torch.randint(2, 250, (2, 5))
    assert rest.controller.coef == pytest.approx(module.controller.coef)
    a, b = (m.policy(ids, ids > 0, ids, ids > 0).logits for m in (module, rest))
    assert torch.equal(a, b)


class StopAfterFirstEpoch(L.Callback):
    def __init__(self, path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path)
        trainer.should_stop = True


def test_without_kl_there_is_no_reference(make_policy, make_trainer) -> None:
    """kl_coef=0 keeps no copy of the model; no KL is logged: a 0 would say that the policy stays where it was."""
    module, _, rounds = train(make_trainer, make_policy(), updates=2, kl_coef=0.0)
    assert module.reference is None
    assert not any("kl" in name and name != "ppo/approx_kl" for name in rounds[1])
    assert rounds[1]["ppo/non_score_reward"] == 0
    assert not any(name.endswith("/forward") for name in rounds[1]), "what was sampled needs no pass of its own"


def test_options_that_do_not_fit_are_refused(make_policy, model_dir) -> None:
    """Each error says what to do."""
    policy = make_policy()
    for options, message in [
        ({"kl": "sometimes"}, "fixed or adaptive"),
        ({"kl": "adaptive", "kl_coef": 0.0}, "adaptive KL"),
        ({"temperature": 0.0}, "temperature"),
        ({"epochs": 0}, "at least 1"),
        ({"micro_batch_tokens": 0}, "at least 1"),
        ({"missing_eos": "drop"}, "replace or subtract"),
        ({"reward_weights": {"other": 1.0}}, "other"),
    ]:
        with pytest.raises(UserError, match=message):
            PPOModule(policy, {"c": ConstantReward()}, **options)
    with pytest.raises(UserError, match="value_head"):
        PPOModule(make_policy(value_head=False), {"c": ConstantReward()})
    with pytest.raises(UserError, match="no reward"):
        PPOModule(policy, {})
    classifier = Classifier.load(str(model_dir("bert")), labels=["a", "b"], max_prompt=40, fresh_head=True)
    with pytest.raises(UserError, match="Classifier"):
        PPOModule(classifier, {"c": ConstantReward()})  # type: ignore[arg-type]


def test_more_minibatches_than_responses_are_refused(make_policy, make_trainer) -> None:
    with pytest.raises(UserError, match="minibatches=5"):
        train(make_trainer, make_policy(), minibatches=5)
