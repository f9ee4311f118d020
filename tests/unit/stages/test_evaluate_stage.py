"""The evaluator's numbers are those of the metrics themselves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_models import PROMPTS, batch_of, length_reward, rows

from rlhf_lightning.algorithms import full_kl
from rlhf_lightning.callbacks import CollectSamples
from rlhf_lightning.data.batches import prompt_batch
from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.metrics import BLEU, ROUGE, ExactMatch, Guardrails, TokenF1
from rlhf_lightning.models import Reference, Sampling
from rlhf_lightning.rewards import RewardMix
from rlhf_lightning.stages import EvaluateModule, Evaluator

MANY = [*PROMPTS, "the dog", "the log sat", "food"]


def evaluator(**options) -> Evaluator:
    metrics = {"bleu": BLEU(), "rouge": ROUGE(), "exact_match": ExactMatch(), "token_f1": TokenF1()}
    return Evaluator(metrics, RewardMix({"letters": length_reward}), **options)


def matching_rows(policy) -> list:
    """Rows whose references share words with the answers, so that no metric is 0 all over."""
    answers = policy.complete(batch_of(policy, MANY), Sampling(greedy=True)).texts
    made = rows(MANY)
    for i in (0, 2):
        made[i].references[:] = [answers[i] or "nothing"]
    return made


@pytest.mark.parametrize("batch_size", [7, 3])
def test_values_equal_the_metrics_own(batch_size: int, make_policy, make_trainer) -> None:
    """Checklist 13, 18, 29: metrics, rewards, guardrails and KL equal those computed directly from greedy answers."""
    policy = make_policy("gpt2")
    reference = Reference(make_policy("gpt2"))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    given = matching_rows(policy)
    data = PromptDataModule([], given, policy.codec, 0, batch_size)
    trainer, collected = make_trainer(), CollectSamples()
    trainer.callbacks.append(collected)
    module = EvaluateModule(policy, evaluator(reference=reference))
    trainer.test(module, data.test_dataloader(), verbose=False)
    results = {k.removeprefix("test/"): float(v) for k, v in trainer.callback_metrics.items()}

    batch = prompt_batch(list(enumerate(given)), policy.codec)
    answers = policy.complete(batch, Sampling(greedy=True))
    references = [row.references for row in given]
    assert [s.completion for s in collected.samples] == answers.texts
    assert [s.id for s in collected.samples] == list(range(7))
    for name, metric in [("bleu", BLEU()), ("exact_match", ExactMatch()), ("token_f1", TokenF1())]:
        metric.update(answers.texts, references)
        assert results[name] == pytest.approx(float(metric.compute()), abs=1e-5)
    rouge = ROUGE()
    rouge.update(answers.texts, references)
    for name, value in rouge.compute().items():
        assert results[name] == pytest.approx(float(value), abs=1e-5)
    guardrails = Guardrails()
    guardrails.update(
        answers.texts, [row.prompt.text for row in given], answers.lengths.tolist(), answers.ended.tolist()
    )
    for name, value in guardrails.compute().items():
        assert results[name] == pytest.approx(float(value), abs=1e-5)
    assert results["letters"] == pytest.approx(length_reward([], answers.texts, [], []).mean().item(), abs=1e-5)
    inputs = (batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask)
    kl = full_kl(policy(*inputs).logits, reference.logits(*inputs))
    assert results["kl"] == pytest.approx((kl * answers.mask).sum(1).mean().item(), rel=1e-4)
    assert results["kl"] > 0.01
    assert results["exact_match"] > 0


def test_every_validation_starts_anew(make_policy) -> None:
    """Two passes over the same rows give the same numbers: nothing of the first is left."""
    policy, measure = make_policy("gpt2"), evaluator()
    batch = batch_of(policy, MANY)
    results = []
    for _ in range(2):
        measure.step(policy, batch)
        results.append(measure.compute())
    assert results[0] == pytest.approx(results[1])


def test_rows_that_fill_up_are_left_out(make_policy) -> None:
    """Seven rows on two ranks: every row counts once, in every batch size."""
    policy = make_policy("gpt2")
    given = rows(MANY)
    for size in (1, 2, 4):
        seen = []
        for rank in range(2):
            data = PromptDataModule([], given, policy.codec, 0, size)
            data.trainer = SimpleNamespace(world_size=2, global_rank=rank)
            batches = list(data.val_dataloader())
            assert len(batches) == -(-7 // (2 * size)), "as many on each rank"
            measure = evaluator()
            seen += [sample.id for batch in batches for sample in measure.step(policy, batch)]
        assert sorted(seen) == list(range(7))


def test_any_order_counts_on_one_rank(make_policy) -> None:
    """A user's own loader may shuffle, or give rows ids of its own: nothing is taken for a repeat."""
    policy, measure = make_policy("gpt2"), evaluator()
    batch = prompt_batch([(i * 10, row) for i, row in reversed(list(enumerate(rows())))], policy.codec)
    assert [s.id for s in measure.step(policy, batch)] == [30, 20, 10, 0]


def test_a_reward_named_like_a_measure_is_kept_apart(make_policy) -> None:
    """The reward chrf (0 to 1) beside the metric chrf (0 to 100): neither takes the other's place."""
    policy = make_policy("gpt2")
    measure = Evaluator({"exact_match": ExactMatch()}, RewardMix({"exact_match": length_reward}))
    given = rows(MANY)
    samples = measure.step(policy, batch_of(policy, MANY))
    results = measure.compute()
    assert results["exact_match"] == 0
    expected = length_reward([], [s.completion for s in samples], [], []).mean().item()
    assert results["reward/exact_match"] == pytest.approx(expected)
    assert len(samples) == len(given)
    reference = Reference(make_policy("gpt2"))
    results = {}
    for name in ("kl", "letters"):
        measure = Evaluator({}, RewardMix({name: length_reward}), reference=reference)
        measure.step(policy, batch_of(policy, MANY))
        results[name] = measure.compute()
    assert results["kl"]["kl"] == results["letters"]["kl"]
    assert results["kl"]["reward/kl"] == results["letters"]["letters"] == pytest.approx(expected)


def test_predict_gives_every_answer(make_policy, make_trainer) -> None:
    policy = make_policy("t5")
    data = PromptDataModule([], rows(), policy.codec, 0, 3)
    module = EvaluateModule(policy, Evaluator())
    batches = make_trainer().predict(module, data.val_dataloader())
    expected = policy.complete(batch_of(policy), Sampling(greedy=True)).texts
    assert [s.completion for batch in batches for s in batch] == expected
