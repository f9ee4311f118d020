"""Learning a reward from preferences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.tiny_models import preferences, reward_model_of, with_noise_in_padding

from rlhf_lightning import optim
from rlhf_lightning.data.batches import pair_batch
from rlhf_lightning.data.modules import PreferenceDataModule
from rlhf_lightning.data.rows import PreferenceRow, Prompt
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
