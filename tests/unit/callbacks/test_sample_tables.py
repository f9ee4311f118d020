"""What the model answered, gathered and shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_models import batch_of, demonstrations, length_reward, rows
from lightning.pytorch.loggers import Logger

from rlhf_lightning.callbacks import CollectSamples, LogSamples
from rlhf_lightning.callbacks import samples as module_under_test
from rlhf_lightning.data.modules import PromptDataModule, SFTDataModule
from rlhf_lightning.models import Sampling
from rlhf_lightning.rewards import RewardMix
from rlhf_lightning.stages import Evaluator, PPOModule, Sample, SFTModule


class Memory(Logger):
    """Keeps what it is given."""

    name = version = "memory"

    def log_metrics(self, metrics, step=None) -> None:
        pass

    def log_hyperparams(self, *args, **kwargs) -> None:
        pass


class Shown:
    """The tables and histograms that went to the loggers."""

    def __init__(self) -> None:
        self.tables: list[tuple[str, list[str], list[list]]] = []
        self.histograms: dict[str, list[list[float]]] = {}

    def table(self, loggers, name, columns, rows, step) -> None:
        self.tables.append((name, list(columns), [list(row) for row in rows]))

    def histogram(self, loggers, name, values, step) -> None:
        self.histograms.setdefault(name, []).append(list(values))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """A logger that can show more than numbers stands behind `Memory`."""
    made = Shown()
    monkeypatch.setattr(module_under_test, "shows_more_than_numbers", bool)
    monkeypatch.setattr(module_under_test, "log_table", made.table)
    monkeypatch.setattr(module_under_test, "log_histogram", made.histogram)
    return made


def samples(*ids: int) -> list[Sample]:
    return [Sample(i, rows()[0], f"answer {i}") for i in ids]


def test_samples_come_in_the_order_of_the_data() -> None:
    collect, trainer = CollectSamples(), SimpleNamespace(world_size=1)
    for batch in (samples(2, 0), samples(1)):
        collect.on_test_batch_end(trainer, None, {"samples": batch}, None, 0)
    collect.on_test_epoch_end(trainer, None)
    assert [sample.completion for sample in collect.samples] == ["answer 0", "answer 1", "answer 2"]


def test_the_table_grows_by_the_first_answers_of_every_validation(make_policy, make_trainer, shown: Shown) -> None:
    """n rows a validation, beside what the model answered before it was trained; the sanity check's are left out."""
    policy, log = make_policy(value_head=False), LogSamples("sft", "sft/examples", n=3)
    untrained = policy.complete(batch_of(policy), Sampling(greedy=True)).texts[:3]
    data = SFTDataModule(demonstrations(), rows(), policy.codec, batch_size=2, eval_batch_size=4)
    trainer = make_trainer(max_epochs=2, num_sanity_val_steps=2, callbacks=[log], logger=Memory())
    evaluator = Evaluator(rewards=RewardMix({"letters": length_reward}))
    trainer.fit(SFTModule(policy, lr=0.1, evaluator=evaluator), datamodule=data)
    assert [name for name, _, _ in shown.tables] == ["sft/val/samples"] * 2
    _, columns, table = shown.tables[-1]
    assert columns == ["step", "examples", "prompt", "reference", "before", "now", "letters"]
    assert [len(rows) for _, _, rows in shown.tables] == [3, 6]
    assert [row[:2] for row in table] == [[2, 4]] * 3 + [[4, 8]] * 3
    assert table[0][2] == rows()[0].prompt.text
    assert [row[3] for row in table] == ["answer 0", "answer 1", "answer 2"] * 2
    assert [row[4] for row in table] == untrained * 2
    for row in table:
        assert row[6] == pytest.approx(len(row[5]) / 10)
    answers = len(rows())
    assert {name: [len(values) for values in given] for name, given in shown.histograms.items()} == {
        "sft/val/histogram/letters": [answers] * 2,
        "sft/val/histogram/length": [answers] * 2,
    }


def test_ppos_table_has_the_kl_and_its_rounds_have_histograms(make_policy, make_trainer, shown: Shown) -> None:
    policy, log = make_policy(), LogSamples("ppo", "ppo/episodes", n=2)
    module = PPOModule(policy, {"length": length_reward}, epochs=1, lr=1e-2, evaluator=Evaluator())
    options = {"max_epochs": -1, "max_steps": 2, "val_check_interval": 1, "check_val_every_n_epoch": None}
    trainer = make_trainer(**options, callbacks=[log], logger=Memory())
    trainer.fit(module, datamodule=PromptDataModule(rows(), rows(), policy.codec, 2))
    _, columns, table = shown.tables[-1]
    assert columns == ["step", "episodes", "prompt", "reference", "before", "now", "kl"]
    assert [row[1] for row in table] == [2, 2, 4, 4]
    assert all(row[6] > 0 for row in table), "a policy that was trained is somewhere else"
    assert [len(values) for values in shown.histograms["ppo/histogram/score"]] == [2, 2]
    assert [len(values) for values in shown.histograms["ppo/histogram/length"]] == [2, 2]


def test_a_training_has_the_same_random_numbers_whether_it_is_shown_or_not(make_policy, make_trainer, shown) -> None:
    """Also where answers are drawn by the process's own generator."""

    class Noisy(Evaluator):
        def answer(self, policy, batch):
            torch.rand(1)
            return super().answer(policy, batch)

    def drawn_afterwards(log: list[LogSamples]) -> float:
        torch.manual_seed(5)
        policy = make_policy(value_head=False)
        data = SFTDataModule(demonstrations(), rows(), policy.codec, batch_size=2)
        trainer = make_trainer(max_epochs=1, callbacks=log, logger=Memory())
        trainer.fit(SFTModule(policy, evaluator=Noisy()), datamodule=data)
        return float(torch.rand(1))

    assert drawn_afterwards([]) == drawn_afterwards([LogSamples("sft")])
    assert shown.tables


def test_a_resumed_table_has_its_earlier_rows(make_policy, make_trainer, shown: Shown, tmp_path: Path) -> None:
    policy = make_policy(value_head=False)

    def fit(epochs: int, start: str | None) -> None:
        data = SFTDataModule(demonstrations(), rows(), policy.codec, batch_size=2)
        trainer = make_trainer(max_epochs=epochs, callbacks=[LogSamples("sft", n=2)], logger=Memory())
        trainer.fit(SFTModule(policy, lr=0.1, evaluator=Evaluator()), datamodule=data, ckpt_path=start)
        trainer.save_checkpoint(tmp_path / "state.ckpt")

    fit(1, None)
    (_, columns, before) = shown.tables[-1]
    fit(2, str(tmp_path / "state.ckpt"))
    (_, _, after) = shown.tables[-1]
    assert after[:2] == before
    assert len(after) == 4
    first = [row[columns.index("before")] for row in before]
    assert [row[columns.index("before")] for row in after] == first * 2, "of where the stage began, not the resumption"


def test_a_long_table_is_written_ever_more_seldom_and_at_last_whole(shown: Shown) -> None:
    """After each tenth more; so what is written in all grows with the table, not with its square."""
    log = LogSamples("sft", n=1)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(ready=1))))
    trainer = SimpleNamespace(
        sanity_checking=False,
        loggers=[Memory()],
        world_size=1,
        global_step=1,
        fit_loop=loop,
        state=SimpleNamespace(fn="fit"),
        lightning_module=SimpleNamespace(automatic_optimization=True),
    )
    for _ in range(200):
        log.on_validation_batch_end(trainer, SimpleNamespace(), {"samples": samples(0)}, None, 0)
        log.on_validation_end(trainer, SimpleNamespace())
    log.on_train_end(trainer, SimpleNamespace())
    lengths = [len(table) for _, _, table in shown.tables]
    assert lengths[:10] == list(range(1, 11))
    assert lengths[-1] == 200
    assert len(lengths) < 50
    assert sum(lengths) < 12 * 200


def test_without_an_evaluator_there_is_nothing_to_show(make_policy, make_trainer, shown: Shown) -> None:
    policy, log = make_policy(value_head=False), LogSamples("sft")
    data = SFTDataModule(demonstrations(), rows(), policy.codec, batch_size=4)
    make_trainer(max_epochs=1, callbacks=[log], logger=Memory()).fit(SFTModule(policy), datamodule=data)
    assert shown.tables == []


def test_a_logger_of_numbers_alone_costs_nothing(make_policy, make_trainer) -> None:
    policy, log = make_policy(value_head=False), LogSamples("sft")
    data = SFTDataModule(demonstrations(), rows(), policy.codec, batch_size=4)
    module = SFTModule(policy, evaluator=Evaluator())
    make_trainer(max_epochs=1, callbacks=[log], logger=Memory()).fit(module, datamodule=data)
    assert json.loads(json.dumps(log.state_dict())) == {"rows": [], "before": {}, "looks": 0}
