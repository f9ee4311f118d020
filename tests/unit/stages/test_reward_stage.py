"""Learning a reward from preferences."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from helpers.tiny_models import (
    COMPLETIONS,
    PROMPTS,
    preferences,
    reward_model_of,
    spread_weights,
    with_noise_in_padding,
)

from rlhf_lightning import optim
from rlhf_lightning.algorithms import pairwise_loss
from rlhf_lightning.data.batches import PairBatch, pair_batch
from rlhf_lightning.data.modules import PreferenceDataModule
from rlhf_lightning.data.rankings import together
from rlhf_lightning.data.rows import PreferenceRow, Prompt, UnpairedRow
from rlhf_lightning.models import RewardModel
from rlhf_lightning.models.reward_model import _head
from rlhf_lightning.stages import RewardModule


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bert"])
def test_eight_pairs_are_overfitted(kind: str, model_dir, make_trainer) -> None:
    """Checklist 8: eight pairs are learnt to accuracy 1, through the Trainer, for every shape of model."""
    model = reward_model_of(model_dir(kind))
    pairs = [
        PreferenceRow(Prompt(f"question {i}"), "the cat sat", "the dog sat") if i % 2 else
        PreferenceRow(Prompt(f"question {i}"), "on the log", "a lazy fox again")
        for i in range(8)
    ]  # fmt: skip
    module = RewardModule(model, lr=1e-2, schedule=optim.constant)
    trainer = make_trainer(max_epochs=25)
    data = PreferenceDataModule(pairs, pairs, model.codec, batch_size=8)
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["reward/val/accuracy"] == 1.0
    assert trainer.callback_metrics["reward/val/loss"] < 0.3
    assert trainer.callback_metrics["reward/accuracy"] == 1.0


def test_loss_starts_near_log_two_and_ignores_padding(model_dir, make_trainer) -> None:
    """Checklist 8, 19: a zero head gives log 2; the content of the padding changes neither loss nor gradient."""
    model = reward_model_of(model_dir("llama"))
    module = RewardModule(model)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module._trainer = make_trainer()
    module.trainer.strategy._optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)]
    clean = pair_batch(preferences(), model.codec)
    noisy = replace(clean, input_ids=with_noise_in_padding(clean.input_ids, clean.mask, 250))
    results = []
    for batch in (clean, noisy):
        model.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        results.append((loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    torch.nn.init.zeros_(model.model.score.weight)
    assert module.training_step(clean, 0).item() == pytest.approx(math.log(2), rel=1e-5)


def test_validation_measures_by_hand(model_dir, make_trainer) -> None:
    """Checklist 11: accuracy overall and by length difference, longer-wins beside it, calibration; any batch size."""
    model = reward_model_of(model_dir("llama"))
    letters = ["a", "bbb", "cc", "dddd", "ee", "f"]
    scores = {"a": 0.0, "bbb": 1.0, "cc": 0.5, "dddd": -1.0, "ee": 0.5, "f": 3.0}
    pairs = [("bbb", "a"), ("a", "dddd"), ("f", "dddd"), ("cc", "ee"), ("a", "bbb")]
    rows = [PreferenceRow(Prompt("x"), c, r) for c, r in pairs]
    assert set(letters) == set(scores)

    def forward(ids, mask, types=None):
        texts = [
            model.codec.decode(row[keep].tolist()).removeprefix("x").strip()
            for row, keep in zip(ids, mask, strict=True)
        ]
        return torch.tensor([scores[text] for text in texts])

    model.forward = forward  # type: ignore[method-assign]
    logged = []
    for size in (5, 2):
        module = RewardModule(model)
        trainer = make_trainer()
        trainer.validate(module, PreferenceDataModule(rows, rows, model.codec, eval_batch_size=size), verbose=False)
        logged.append({k.removeprefix("reward/val/"): float(v) for k, v in trainer.callback_metrics.items()})
    assert logged[0] == pytest.approx(logged[1])
    gaps = [1.0, 1.0, 4.0, 0.0, -1.0]
    right = [1, 1, 1, 0.5, 0]
    expected = {
        "accuracy": sum(right) / 5,
        "longer_wins": (1 + 0 + 0 + 0.5 + 0) / 5,
        "accuracy_chosen_longer": 1.0,
        "accuracy_chosen_shorter": 2 / 3,
        "loss": sum(math.log(1 + math.exp(-g)) for g in gaps) / 5,
    }
    at_one = 1 / (1 + math.exp(-1))  # three pairs of confidence 0.73, of which two are right
    calibration = (abs(3 * at_one - 2) + abs(1 / (1 + math.exp(-4)) - 1) + 0) / 5
    assert logged[0] == pytest.approx({**expected, "calibration_error": calibration}, abs=1e-5)


def test_a_measure_without_pairs_is_left_out(model_dir, make_trainer) -> None:
    """Where the chosen completion is never the shorter one, its accuracy is not reported, rather than as 0 or NaN."""
    model = reward_model_of(model_dir("llama"))
    rows = [PreferenceRow(Prompt("x"), "much longer", "a")] * 3
    trainer = make_trainer()
    trainer.validate(RewardModule(model), PreferenceDataModule(rows, rows, model.codec), verbose=False)
    assert "reward/val/accuracy_chosen_longer" in trainer.callback_metrics
    assert "reward/val/accuracy_chosen_shorter" not in trainer.callback_metrics


def test_runs_without_validation_data(model_dir, make_trainer) -> None:
    """Checklist 27: plain Python, no held-out pairs; the learning rate follows a cosine to 0."""
    model = reward_model_of(model_dir("llama"))
    trainer = make_trainer(max_epochs=2)
    trainer.fit(RewardModule(model, lr=1e-3), datamodule=PreferenceDataModule(preferences(), [], model.codec, 4))
    assert trainer.global_step == 4
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    assert not any(name.startswith("reward/val") for name in trainer.callback_metrics)


def rankings(k: int = 4) -> list[PreferenceRow]:
    """For each prompt all pairs of the completions in their order, turned by the prompt's number."""
    rows = []
    for i, prompt in enumerate(PROMPTS):
        texts = (COMPLETIONS[i:] + COMPLETIONS[:i])[:k]
        for better, worse in itertools.combinations(texts, 2):
            rows.append(PreferenceRow(Prompt(prompt), better, worse, 2 / (k * (k - 1)), group=f"r{i}"))
    return rows


def mixed() -> list[PreferenceRow | UnpairedRow]:
    """Rankings, pairs that raters disagree about or tied, and thumbs, of unequal weights."""
    rows: list[PreferenceRow | UnpairedRow] = [*rankings(3)]
    rows += [replace(row, probability=0.5 + i / 14, weight=1 + i / 4) for i, row in enumerate(preferences())]
    rows += [UnpairedRow(Prompt(p), c, i % 3 == 0, 0.5 + i) for i, (p, c) in enumerate(zip(PROMPTS, COMPLETIONS))]  # noqa: B905
    return rows


def spread_head(model_dir) -> RewardModel:
    """A reward model whose scores are apart, and the same each time."""
    model = reward_model_of(model_dir("llama"))
    spread_weights(_head(model.model), 0.5)
    return model


def alone(model: RewardModel, make_trainer) -> RewardModule:
    """A module whose steps can be taken by hand."""
    module = RewardModule(model)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module._trainer = make_trainer()
    module.trainer.strategy._optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)]
    return module


def step(module: RewardModule, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient of a batch."""
    module.zero_grad()
    loss = module.training_step(batch, 0)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bert"])
def test_a_text_is_scored_once_and_all_is_as_if_it_were_not(kind: str, model_dir, make_trainer) -> None:
    """Rankings of four: four texts and not twelve go through the model; loss and gradient are those of the twelve."""
    model = reward_model_of(model_dir(kind))
    model.model.double()
    rows = rankings()
    widths: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda _, __, kw: widths.append(len(kw["input_ids"])), with_kwargs=True
    )
    loss, gradient = step(alone(model, make_trainer), pair_batch(together(rows), model.codec))
    assert sum(widths) == 4 * 4
    hook.remove()
    model.zero_grad()
    forward = [model(b.input_ids, b.mask, b.type_ids) for row in rows for b in [pair_batch([row], model.codec)]]
    chosen, rejected = torch.stack(forward).double().T
    expected, _ = pairwise_loss(chosen, rejected, weight=torch.tensor([row.weight for row in rows]))
    expected.backward()
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-6, atol=0)
    by_hand = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert by_hand.abs().max() > 1e-2
    torch.testing.assert_close(gradient, by_hand, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("way", ["pairs", "plackett_luce"])
def test_the_loss_of_a_mixed_batch_is_the_weighted_mean_of_all(way: str, model_dir, make_trainer) -> None:
    model = reward_model_of(model_dir("llama"))
    rows = mixed()
    loss, _ = step(
        alone(model, make_trainer), pair_batch(together(rows), model.codec, plackett_luce=way == "plackett_luce")
    )
    total = weight = 0.0

    def score(prompt: Prompt, text: str) -> float:
        return model.score([prompt], [text]).item()

    for row in rows:
        if isinstance(row, UnpairedRow):
            s = score(row.prompt, row.completion)
            total += row.weight * math.log(1 + math.exp(-s if row.label else s))
        elif way == "pairs" or row.group is None:
            gap = score(row.prompt, row.chosen) - score(row.prompt, row.rejected)
            up, down = math.log(1 + math.exp(-gap)), math.log(1 + math.exp(gap))
            total += row.weight * (row.probability * up + (1 - row.probability) * down)
        weight += row.weight
    if way == "plackett_luce":
        for i, prompt in enumerate(PROMPTS):
            scores = [score(Prompt(prompt), text) for text in (COMPLETIONS[i:] + COMPLETIONS[:i])[:3]]
            total += sum(math.log(sum(map(math.exp, scores[j:]))) - scores[j] for j in range(3))
    assert loss.item() == pytest.approx(total / weight, rel=1e-5)


@pytest.mark.parametrize("way", ["pairs", "plackett_luce"])
def test_rankings_are_learnt(way: str, model_dir, make_trainer) -> None:
    """The scores come into the order that was given, in both ways."""
    model = spread_head(model_dir)
    trainer = make_trainer(max_epochs=40, check_val_every_n_epoch=40)
    data = PreferenceDataModule(rankings(), rankings(), model.codec, batch_size=4, ranking=way)
    trainer.fit(RewardModule(model, lr=1e-2, schedule=optim.constant), datamodule=data)
    assert trainer.global_step == 40, "all four rankings are one batch"
    assert trainer.callback_metrics["reward/val/accuracy"] == 1.0
    assert trainer.callback_metrics["reward/pairs"] == 40 * 4 * 6
    assert ("reward/ranking_loss" in trainer.callback_metrics) == (way == "plackett_luce")
    for i, prompt in enumerate(PROMPTS):
        texts = COMPLETIONS[i:] + COMPLETIONS[:i]
        assert model.score([Prompt(prompt)] * 4, texts).diff().max() < 0


def test_thumbs_alone_are_learnt_also_where_all_are_down(model_dir, make_trainer) -> None:
    model = spread_head(model_dir)
    rows = [UnpairedRow(Prompt(p), c, False) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    trainer = make_trainer(max_epochs=30, check_val_every_n_epoch=30)
    data = PreferenceDataModule(rows, rows, model.codec, batch_size=3)
    trainer.fit(RewardModule(model, lr=1e-2, schedule=optim.constant), datamodule=data)
    assert (model.score([row.prompt for row in rows], [row.completion for row in rows]) < -1).all()
    told = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert told["reward/val/unpaired_accuracy"] == told["reward/unpaired_accuracy"] == 1.0
    assert told["reward/val/unpaired_loss"] < math.log(1 + math.exp(-1))
    assert told["reward/unpaired"] == 30 * 4
    assert told["reward/loss"] == pytest.approx(told["reward/unpaired_loss"])
    of_pairs = {"accuracy", "gap", "pairs", "pair_loss", "val/accuracy", "val/loss", "val/calibration_error"}
    assert not {f"reward/{name}" for name in of_pairs} & told.keys(), "what there is none of is not told"


def test_each_kind_is_logged_by_itself(model_dir, make_trainer) -> None:
    model = spread_head(model_dir)
    rows = mixed()
    logged = []
    for kinds in (rows, [row for row in rows if isinstance(row, PreferenceRow)], rows[-4:]):
        trainer = make_trainer(max_epochs=1)
        data = PreferenceDataModule(kinds, [], model.codec, batch_size=64, ranking="pairs")
        trainer.fit(RewardModule(model, lr=0.0), datamodule=data)
        logged.append({k.removeprefix("reward/"): float(v) for k, v in trainer.callback_metrics.items()})
    both, pairs, thumbs = logged
    assert both["pair_loss"] == pytest.approx(pairs["loss"])
    assert both["unpaired_loss"] == pytest.approx(thumbs["loss"])
    assert (both["accuracy"], both["gap"]) == pytest.approx((pairs["accuracy"], pairs["gap"]))
    assert both["unpaired_accuracy"] == pytest.approx(thumbs["unpaired_accuracy"])
    weights = [sum(row.weight for row in rows if isinstance(row, kind)) for kind in (PreferenceRow, UnpairedRow)]
    expected = (weights[0] * pairs["loss"] + weights[1] * thumbs["loss"]) / sum(weights)
    assert both["loss"] == pytest.approx(expected)
    assert "pair_loss" not in pairs, "where it is the loss itself"


def test_ties_pull_scores_together(model_dir, make_trainer) -> None:
    """Of probability one half: what was apart comes together, where the sure pair is driven apart."""
    model = spread_head(model_dir)
    tie = PreferenceRow(Prompt("where does the sun rise"), "a", "the lazy dog", probability=0.5)
    before = model.score([tie.prompt] * 2, [tie.chosen, tie.rejected]).diff().abs().item()
    assert before > 0.1
    trainer = make_trainer(max_epochs=40, check_val_every_n_epoch=40)
    module = RewardModule(model, lr=3e-3, schedule=optim.constant)
    trainer.fit(module, datamodule=PreferenceDataModule([tie], [tie], model.codec, 1))
    assert model.score([tie.prompt] * 2, [tie.chosen, tie.rejected]).diff().abs().item() < before / 4
    assert trainer.callback_metrics["reward/val/accuracy"] == 0.5, "no model can agree with more than half of them"


def test_bad_scores_of_thumbs_are_told(model_dir, make_trainer, tmp_path) -> None:
    from rlhf_lightning.errors import UserError

    model = spread_head(model_dir)
    with torch.no_grad():
        model.model.score.weight.fill_(math.nan)  # type: ignore[union-attr, operator]
    rows = [UnpairedRow(Prompt("the cat"), "on the mat", True), UnpairedRow(Prompt("the cat"), "a", False)]
    with pytest.raises(UserError, match=r"score of '.*on the mat.*\[thumb up\]"):
        make_trainer(max_epochs=1).fit(
            RewardModule(model, max_bad_steps=1), datamodule=PreferenceDataModule(rows, [], model.codec, 2)
        )
