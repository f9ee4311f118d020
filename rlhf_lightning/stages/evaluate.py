"""Answers to held-out prompts, measured."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from rlhf_lightning.algorithms import full_kl
from rlhf_lightning.data.batches import PromptBatch
from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.data.rows import PromptRow
from rlhf_lightning.metrics import Guardrails
from rlhf_lightning.models.classifier import Classifier
from rlhf_lightning.models.generation import Completions, Sampling
from rlhf_lightning.models.policy import Policy
from rlhf_lightning.models.reference import Reference
from rlhf_lightning.rewards.mix import RewardMix
from rlhf_lightning.rollout import Engine, NativeEngine
from rlhf_lightning.stages.sharding import shard_parts


class Sample:
    """A held-out prompt and what the model answered; ``id`` is the row's position in its data set.

    ``measures`` is what was measured of the answer beside its text: ``length`` in tokens, ``eos_rate``, which is 1 if
    it ended by itself, and ``kl`` (`sequence_kl`). ``scores`` holds its rewards by name (NaN where one failed), where
    the evaluator has rewards.

    Neither a tuple nor a dataclass: Lightning would take those apart to move what is in them to a device.
    """

    __slots__ = ("completion", "id", "measures", "row", "scores")

    def __init__(
        self,
        id: int,
        row: PromptRow,
        completion: str,
        measures: Mapping[str, float] | None = None,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        self.id, self.row, self.completion = id, row, completion
        self.measures, self.scores = dict(measures or {}), dict(scores or {})


class Evaluator(nn.Module):
    """Measures the answers of a policy or classifier: task metrics, rewards, guardrails, KL.

    Args:
        metrics: task metrics by name; each has ``update(completions, references)``.
        rewards: whose means are reported under their names; as ``reward/<name>`` where a measure has that name. Where
            failures are masked, a mean is over the answers that have the reward, and ``unscored`` is the share of
            answers that lack one or more.
        sampling: how answers are drawn; greedy unless told otherwise.
        engine: what draws a policy's answers; None is `NativeEngine`.
        reference: with it ``kl`` is reported: KL(policy || reference) of the whole next-token distributions, summed
            over each answer (nats), averaged over answers.
    """

    def __init__(
        self,
        metrics: Mapping[str, Metric] | None = None,
        rewards: RewardMix | None = None,
        sampling: Sampling | None = None,
        reference: Reference | None = None,
        engine: Engine | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine or NativeEngine()
        self.metrics = nn.ModuleDict(metrics or {})
        self.guardrails = Guardrails()
        self.rewards, self.reference = rewards, reference
        self.sampling = sampling or Sampling(greedy=True)
        self.means = nn.ModuleDict({name: MeanMetric() for name in (rewards.rewards if rewards else {})})
        self.unscored = MeanMetric()
        self.kl = MeanMetric()
        self.source: dict[str, Metric] = {}
        """Which metric gave each of the measures that `compute` named."""

    @torch.no_grad()
    def answer(self, policy: Policy | Classifier, batch: PromptBatch) -> Completions:
        """Answers to a batch."""
        if isinstance(policy, Classifier):
            return policy.complete(batch, self.sampling)
        return self.engine(policy, batch, self.sampling)

    @torch.no_grad()
    def step(self, policy: Policy | Classifier, batch: PromptBatch) -> list[Sample]:
        """Answer a batch, add the answers to the metrics, and return them."""
        answers = self.answer(policy, batch)
        keep = [i for i, id in enumerate(batch.ids.tolist()) if id >= 0]
        rows, texts = [batch.rows[i] for i in keep], [answers.texts[i] for i in keep]
        lengths, ended = answers.lengths[keep].tolist(), answers.ended[keep].tolist()
        for metric in self.metrics.values():
            metric.update(texts, [row.references for row in rows])  # type: ignore[operator]
        self.guardrails.update(texts, [transcript(row.prompt.text) for row in rows], lengths, ended)
        scores: dict[str, Tensor] = {}
        if self.rewards is not None:
            scores = self.rewards.each(rows, texts, batch.prompt_ids.device)
        if self.rewards is not None and rows:
            for name, values in scores.items():
                self.means[name].update(values[~values.isnan()])  # type: ignore[operator]
            self.unscored.update(self.rewards.total(scores).isnan().float())
        measures = [{"length": float(n), "eos_rate": float(end)} for n, end in zip(lengths, ended, strict=True)]
        if self.reference is not None and isinstance(policy, Policy):
            kl = sequence_kl(policy, self.reference, batch, answers)[keep]
            self.kl.update(kl)
            measures = [{**known, "kl": value} for known, value in zip(measures, kl.tolist(), strict=True)]
        numbers = {name: values.tolist() for name, values in scores.items()}
        return [
            Sample(int(batch.ids[i]), rows[k], texts[k], measures[k], {name: own[k] for name, own in numbers.items()})
            for k, i in enumerate(keep)
        ]

    def compute(self) -> dict[str, float]:
        """All measures by name, over all ranks, and start anew."""
        results: dict[str, float] = {}
        for name, metric in self.metrics.items():
            value = metric.compute()  # type: ignore[operator]
            named = value if isinstance(value, dict) else {name: value}
            self.source |= dict.fromkeys(named, metric)  # type: ignore[arg-type]
            results |= {key: float(v) for key, v in named.items()}
            metric.reset()  # type: ignore[operator]
        results |= {key: float(v) for key, v in self.guardrails.compute().items()}
        self.guardrails.reset()
        if self.reference is not None:
            results["kl"] = float(self.kl.compute())
        self.kl.reset()
        for name, mean in self.means.items():
            key = name if name not in results else f"reward/{name}"
            results[key] = float(mean.compute())  # type: ignore[operator]
            mean.reset()  # type: ignore[operator]
        if self.rewards is not None and self.rewards.on_failure == "mask":
            results["unscored"] = float(self.unscored.compute())
        self.unscored.reset()
        return results


KL_ROWS = 8
"""Answers compared at once: the whole distributions of two models, over large vocabularies, fill a GPU quickly."""


def sequence_kl(policy: Policy, reference: Reference, batch: PromptBatch, answers: Completions) -> Tensor:
    """(b,) KL(policy || reference) in nats of the next-token distributions along each answer, summed."""
    inputs = (batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask)
    parts = []
    for part in zip(*(x.split(KL_ROWS) for x in inputs), strict=True):
        kl = full_kl(policy(*part).logits, reference.logits(*part))
        parts.append(kl.masked_fill(~part[-1], 0.0).sum(1))
    return torch.cat(parts)


class EvaluateModule(L.LightningModule):
    """Answers the test prompts and logs every measure as ``test/<name>``.

    Args:
        policy: what answers.
        evaluator: what measures.
    """

    def __init__(self, policy: Policy | Classifier, evaluator: Evaluator) -> None:
        super().__init__()
        self.policy, self.evaluator = policy, evaluator

    def configure_model(self) -> None:
        """Deal the models out where the strategy is FSDP2."""
        shard_parts(self, self.policy, self.evaluator.reference)

    def on_test_epoch_start(self) -> None:
        """Inference mode of every layer."""
        self.policy.eval()

    def test_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, list[Sample]]:
        """Answer a batch; the samples go to the callbacks."""
        return {"samples": self.evaluator.step(self.policy, batch)}

    def on_test_epoch_end(self) -> None:
        """Log the measures of all batches."""
        self.log_dict({f"test/{name}": value for name, value in self.evaluator.compute().items()})

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Sample]:
        """Answer a batch, measuring nothing."""
        answers = self.evaluator.answer(self.policy, batch)
        answered = zip(batch.ids.tolist(), batch.rows, answers.texts, strict=True)
        return [Sample(i, row, text) for i, row, text in answered if i >= 0]
