"""What the model answered, gathered and shown."""

from __future__ import annotations

from types import SimpleNamespace

from helpers.tiny_models import demonstrations, rows

from rlhf_lightning.callbacks import CollectSamples, LogSamples
from rlhf_lightning.data.modules import SFTDataModule
from rlhf_lightning.stages import Evaluator, Sample, SFTModule


def samples(*ids: int) -> list[Sample]:
    return [Sample(i, rows()[0], f"answer {i}") for i in ids]


def test_samples_come_in_the_order_of_the_data() -> None:
    collect, trainer = CollectSamples(), SimpleNamespace(world_size=1)
    for batch in (samples(2, 0), samples(1)):
        collect.on_test_batch_end(trainer, None, {"samples": batch}, None, 0)
    collect.on_test_epoch_end(trainer, None)
    assert [sample.completion for sample in collect.samples] == ["answer 0", "answer 1", "answer 2"]


def test_first_answers_of_every_validation_are_kept(make_policy, make_trainer) -> None:
    """n rows a validation, with step, prompt, references and answer; the sanity check's are left out."""
    policy, log = make_policy(value_head=False), LogSamples("sft", n=3)
    data = SFTDataModule(demonstrations(), rows(), policy.codec, batch_size=2, eval_batch_size=4)
    trainer = make_trainer(max_epochs=2, num_sanity_val_steps=2, callbacks=[log])
    trainer.fit(SFTModule(policy, evaluator=Evaluator()), datamodule=data)
    assert [row[0] for row in log.rows] == [2, 2, 2, 4, 4, 4]
    assert [row[2] for row in log.rows] == ["answer 0", "answer 1", "answer 2"] * 2
    assert log.rows[0][1] == rows()[0].prompt.text


def test_without_an_evaluator_there_is_nothing_to_show(make_policy, make_trainer) -> None:
    policy, log = make_policy(value_head=False), LogSamples("sft")
    data = SFTDataModule(demonstrations(), rows(), policy.codec, batch_size=4)
    make_trainer(max_epochs=1, callbacks=[log]).fit(SFTModule(policy), datamodule=data)
    assert log.rows == []
