"""How fast the stages say they are, and how much padding."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_models import KINDS, demonstrations, length_reward, preferences, reward_model_of, rows
from lightning.pytorch.loggers import CSVLogger

from rlhf_lightning.callbacks import Checkpoints
from rlhf_lightning.data.batches import SFTBatch, pair_batch
from rlhf_lightning.data.micro_batches import TOKENS
from rlhf_lightning.data.modules import PreferenceDataModule, PromptDataModule, SFTDataModule
from rlhf_lightning.data.order import Portion
from rlhf_lightning.report.curves import Curve, read_curves
from rlhf_lightning.stages import Evaluator, PPOModule, RewardModule, SFTModule
from rlhf_lightning.stages.sft import sft_amounts
from rlhf_lightning.stages.timing import amounts, speed


def mask(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def sft_batch_of(prompts: list[int], responses: list[int], real: int) -> SFTBatch:
    p, r = mask(prompts, max(prompts)), mask(responses, max(responses))
    return SFTBatch(p.long(), p, r.long(), r, r.float(), Portion(list(range(len(p))), real))


@pytest.mark.parametrize(
    ("kind", "joined", "expected"),
    [
        # Rows of 5 and 6 tokens, put together: the longest is fed without its last one, so both have 5 positions.
        ("causal", True, (11, 10, 0)),
        # 4 + 3 columns, of which the last is not fed: nor then the first row's last token.
        ("causal", False, (11, 12, 2)),
        ("seq2seq", False, (11, 14, 3)),
        ("encoder", False, (6, 8, 2)),
    ],
)
def test_amounts_of_demonstrations_by_hand(kind: Any, joined: bool, expected: tuple[int, int, int]) -> None:
    rows = torch.tensor([2, 4]), torch.tensor([3, 2]), torch.tensor([True, True])
    assert sft_amounts(*rows, kind, joined).tolist() == list(expected)


def test_rows_put_together_have_the_padding_of_their_lengths() -> None:
    """7, 3 and 4 tokens: 6 positions each, of which 3 and 2 are padding; a row that fills up is no token read."""
    rows = torch.tensor([4, 1, 2]), torch.tensor([3, 2, 2])
    assert sft_amounts(*rows, torch.tensor([True, True, True]), "causal", True).tolist() == [14, 18, 5]
    assert sft_amounts(*rows, torch.tensor([True, True, False]), "causal", True).tolist() == [10, 18, 5]


def test_amounts_of_demonstrations_in_groups_by_hand(make_policy, monkeypatch) -> None:
    """8 tokens at once: the row of 7 has 6 positions, those of 4 and 3 have 3 each and no padding.

    Then the last row fills up: of its 3 tokens none counts, and its places are no padding.
    """
    monkeypatch.setitem(TOKENS, "cpu", 8)
    batch = sft_batch_of([4, 2, 1], [3, 2, 2], real=3)
    policy = make_policy("llama", value_head=False)
    assert SFTModule(policy).read(batch).tolist() == [14, 12, 0]
    fills_up = replace(batch, portion=Portion([0, 1, 2], 2))
    assert SFTModule(policy).read(fills_up).tolist() == [11, 12, 0]


def test_amounts_of_pairs_by_hand(model_dir, monkeypatch) -> None:
    model = reward_model_of(model_dir("llama"))
    batch = pair_batch(preferences()[:2], model.codec)
    batch = replace(batch, input_ids=torch.zeros(4, 6).long(), mask=mask([6, 2, 3, 5], 6))
    assert RewardModule(model).read(batch).tolist() == [16, 24, 8]
    fills_up = replace(batch, uses=torch.tensor([1, 1, 0, 0]))
    assert RewardModule(model).read(fills_up).tolist() == [8, 24, 8]
    twice = replace(batch, uses=torch.tensor([2, 1, 1, 1]))
    assert RewardModule(model).read(twice).tolist() == [22, 24, 8], "a text of two pairs goes through the model once"
    monkeypatch.setitem(TOKENS, "cpu", 12)  # 6 and 5 tokens, then 3 and 2: 12 positions with 1 of padding, and 6 with 1
    assert RewardModule(model).read(batch).tolist() == [16, 18, 2]


@pytest.mark.parametrize("tokens_at_once", [1, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_through_the_model_is_what_is_counted(
    kind: str, tokens_at_once: int, make_policy, monkeypatch
) -> None:
    """The positions are those of the tensors that the model is given, whichever way rows are put together."""
    policy = make_policy(kind, value_head=False)
    seen: list[int] = []

    def look(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        ids = [*args[:1], *(kwargs.get(name) for name in ("input_ids", "decoder_input_ids"))]  # GPT-2's by position
        seen.append(sum(x.numel() for x in ids if x is not None))

    (policy.inner if kind == "t5" else policy.inner.base_model).register_forward_pre_hook(look, with_kwargs=True)
    monkeypatch.setitem(TOKENS, "cpu", tokens_at_once)
    data = SFTDataModule(demonstrations(), [], policy.codec, 4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    for plain in (policy.has_plain_head, False):
        policy._plain = plain
        seen.clear()
        policy.sft_loss(batch)
        tokens, positions, _ = SFTModule(policy).read(batch).tolist()
        assert tokens == batch.prompt_mask.sum() + batch.response_mask.sum()
        assert positions == sum(seen)
        assert len(seen) == (4 if tokens_at_once == 1 else 1)


def test_a_step_by_hand() -> None:
    read = amounts(torch.tensor([3, 5]), torch.tensor([True, True]), torch.tensor([3, 5]), 5).tolist()
    assert speed(1.0, 3.0, read) == {
        "seconds/step": 3.0,
        "seconds/data": 1.0,
        "padding": pytest.approx(0.2),
        "tokens_per_second": 2.0,
    }
    first = speed(math.nan, 3.0, read)
    assert first == {"seconds/step": 3.0, "padding": pytest.approx(0.2)}, "nothing came before the first step"


class Clock(L.Callback):
    """A clock that moves when it is told to: batches take 0.5 s to come, validations 100 s."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += 0.5

    def on_validation_start(self, *_: Any) -> None:
        self.now += 100


def curves_of(name: str, module: L.LightningModule, data: Any, make_trainer, tmp_path, **options: Any):
    logger = CSVLogger(tmp_path, name=name, version="")
    trainer = make_trainer(logger=logger, log_every_n_steps=1, enable_checkpointing=True, **options)
    trainer.fit(module, datamodule=data)
    curves = read_curves(tmp_path, [name])[name]
    return {key.removeprefix(f"{name}/"): curve for key, curve in curves.items()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sft_logs_every_step(accumulate: int, make_policy, make_trainer, tmp_path, monkeypatch) -> None:
    """The first step's wait is not known; in the others' there is no validation, and no checkpoint."""
    clock, read = Clock(), []
    monkeypatch.setattr("rlhf_lightning.stages.timing.time", clock)

    class Spy(SFTModule):
        def training_step(self, batch: SFTBatch, batch_idx: int) -> torch.Tensor:
            clock.now += 2
            return super().training_step(batch, batch_idx)

        def read(self, batch: SFTBatch) -> torch.Tensor:
            read.append(super().read(batch))
            return read[-1]

    class SlowCheckpoints(Checkpoints):
        def save(self, trainer: L.Trainer) -> None:
            clock.now += 1000

    policy = make_policy(value_head=False)
    data = SFTDataModule(demonstrations() * 2, rows(), policy.codec, 2)
    keeper = SlowCheckpoints(tmp_path / "checkpoints", tmp_path / "none", 0, 1)
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate, "callbacks": [clock, keeper]}
    curves = curves_of("sft", Spy(policy, evaluator=Evaluator({})), data, make_trainer, tmp_path, **options)
    assert clock.now > 2000, "the test needs validations and checkpoints"
    steps = 8 // accumulate
    assert curves["seconds/step"] == Curve([*range(steps)], [2.0 * accumulate] * steps)
    assert curves["seconds/data"] == Curve([*range(1, steps)], [0.5 * accumulate] * (steps - 1))
    together = torch.stack(read).view(steps, accumulate, 3).sum(1)
    assert curves["padding"].steps == list(range(steps))
    assert curves["padding"].values == pytest.approx((together[:, 2] / together[:, 1]).tolist())
    assert curves["tokens_per_second"].steps == list(range(1, steps))
    assert curves["tokens_per_second"].values == pytest.approx((together[1:, 0] / (2.5 * accumulate)).tolist())


def test_the_reward_model_and_ppo_log_theirs(model_dir, make_policy, make_trainer, tmp_path) -> None:
    """PPO's speed is its own; the base adds the time of the whole round."""
    model = reward_model_of(model_dir("llama"))
    data = PreferenceDataModule(preferences(), [], model.codec, 2)
    curves = curves_of("reward", RewardModule(model), data, make_trainer, tmp_path, max_epochs=1)
    assert len(curves["padding"].values) == len(curves["tokens_per_second"].values) + 1 == 4
    assert all(0 <= share < 1 for share in curves["padding"].values)
    policy = make_policy()
    module = PPOModule(policy, {"length": length_reward}, epochs=2)
    prompts = PromptDataModule(rows() * 3, [], policy.codec, 4)
    ppo = curves_of("ppo", module, prompts, make_trainer, tmp_path, max_epochs=1)
    assert ppo["seconds/step"].steps == [0, 1, 2]
    phases = [ppo[f"seconds/{name}"] for name in ("sample", "score", "forward", "update")]
    for i, whole in enumerate(ppo["seconds/step"].values):
        assert 0 < sum(phase.values[i] for phase in phases) <= whole
    assert isinstance(ppo["tokens_per_second"], Curve)
