"""Accuracy and macro F1 of labels that a model writes out as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from rlhf_lightning.metrics._shared import check_rows, ratio, scalar

_QUOTES = "\"'`“”‘’„«»「」『』"
_BEFORE = re.compile(rf"^[\s{_QUOTES}]+")
_AFTER = re.compile(rf"[\s{_QUOTES}.,;:!?…。，；：！？、]+$")


def _bare(text: str) -> str:
    """A text without case, surrounding white space and quotes, and final punctuation."""
    return _AFTER.sub("", _BEFORE.sub("", text)).casefold()


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that a text is, or None.

    The text has to be the label and nothing else, but for case, surrounding white space and quotes, and punctuation at
    its end. An answer that lists several labels or explains itself is none: a looser rule would reward a policy that
    names every label.

    >>> labels = ["positive", "negative"]
    >>> parse_label(' "Positive". ', labels)
    'positive'
    >>> print(parse_label("positive or negative", labels))
    None
    """
    bare = _bare(text)
    found = [label for label in labels if _bare(label) == bare]
    return found[0] if len(found) == 1 else None


def _check_labels(labels: Sequence[str]) -> list[str]:
    """The labels as a list, if they are texts that :func:`parse_label` tells apart."""
    if isinstance(labels, str) or not labels:
        raise ValueError(f"labels has to be a list of at least one label, got {labels!r}")
    seen: dict[str, str] = {}
    for label in labels:
        bare = _bare(label)
        if not bare:
            raise ValueError(f"label {label!r} has no text beside quotes and punctuation")
        if bare in seen:
            raise ValueError(f"labels {seen[bare]!r} and {label!r} differ only by case, quotes or punctuation")
        seen[bare] = label
    return list(labels)


def _gold_label(references: Sequence[str], labels: Sequence[str], index: int) -> str:
    """The one label that a row's references name."""
    golds = {parse_label(reference, labels) for reference in references}
    gold = golds.pop() if len(golds) == 1 else None
    if gold is None:
        raise ValueError(
            f"references[{index}] = {list(references)!r:.120} does not name exactly one of the labels {list(labels)}"
        )
    return gold


def label_match(completion: str, references: Sequence[str], labels: Sequence[str]) -> float:
    """1 if the completion is the label that the references name, else 0; see :func:`parse_label`.

    Raises:
        ValueError: The references name no label, or several.

    >>> label_match("Negative.", ["negative"], labels=["positive", "negative"])
    1.0
    """
    check_rows([completion], [references])
    return float(parse_label(completion, labels) == _gold_label(references, labels, index=0))


def _parse_rows(
    completions: Sequence[str], references: Sequence[Sequence[str]], labels: Sequence[str]
) -> list[tuple[str | None, str]]:
    """Rows as (predicted label or None, true label)."""
    check_rows(completions, references)
    golds = [_gold_label(row, labels, index) for index, row in enumerate(references)]
    return [(parse_label(text, labels), gold) for text, gold in zip(completions, golds, strict=True)]


class LabelAccuracy(Metric):
    """The share of completions that are the right label, ``accuracy``, and that are no label, ``unparsed``; 0 to 1.

    Unparsed completions count as wrong. See :func:`parse_label`.

    Args:
        labels: The texts of the labels.

    Raises:
        ValueError: There is no label, or two differ only by case, quotes or punctuation.

    >>> metric = LabelAccuracy(["positive", "negative"])
    >>> metric.update(["Positive.", "negative", "both"], [["positive"], ["positive"], ["negative"]])
    >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}
    {'accuracy': 0.33, 'unparsed': 0.33}
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True

    right: Tensor
    unparsed: Tensor
    rows: Tensor

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = _check_labels(labels)
        for state in ("right", "unparsed", "rows"):
            self.add_state(state, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, completions: list[str], references: list[list[str]]) -> None:
        """Add rows.

        Raises:
            ValueError: The lengths differ, or a row's references do not name exactly one label; the message names the
                row's index.
        """
        pairs = _parse_rows(completions, references, self.labels)
        self.right += sum(predicted == gold for predicted, gold in pairs)
        self.unparsed += sum(predicted is None for predicted, _ in pairs)
        self.rows += len(pairs)

    def compute(self) -> dict[str, Tensor]:
        """The shares over all rows on all ranks; NaN when there is none."""
        rows = int(self.rows)
        return {
            "accuracy": scalar(ratio(int(self.right), rows), self.device),
            "unparsed": scalar(ratio(int(self.unparsed), rows), self.device),
        }


class LabelF1(Metric):
    """Macro ``precision``, ``recall`` and ``f1`` over the labels, and the share ``unparsed``; 0 to 1.

    Equal to scikit-learn's ``precision_recall_fscore_support(labels=labels, average="macro", zero_division=0)`` where
    an unparsed completion is a prediction outside of the labels: it costs recall, and no label's precision.

    Args:
        labels: The texts of the labels; each weighs the same, also one that no row has.

    Raises:
        ValueError: There is no label, or two differ only by case, quotes or punctuation.

    >>> metric = LabelF1(["positive", "negative"])
    >>> metric.update(["Positive.", "positive", "both"], [["positive"], ["negative"], ["negative"]])
    >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}
    {'precision': 0.25, 'recall': 0.5, 'f1': 0.33, 'unparsed': 0.33}
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True

    right: Tensor
    predicted: Tensor
    actual: Tensor
    unparsed: Tensor
    rows: Tensor

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = _check_labels(labels)
        for state in ("right", "predicted", "actual"):
            self.add_state(state, torch.zeros(len(self.labels), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unparsed", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, completions: list[str], references: list[list[str]]) -> None:
        """Add rows.

        Raises:
            ValueError: The lengths differ, or a row's references do not name exactly one label; the message names the
                row's index.
        """
        pairs = _parse_rows(completions, references, self.labels)

        def count(texts: list[str | None]) -> Tensor:
            return torch.tensor([texts.count(label) for label in self.labels], device=self.right.device)

        self.right += count([predicted for predicted, gold in pairs if predicted == gold])
        self.predicted += count([predicted for predicted, _ in pairs])
        self.actual += count([gold for _, gold in pairs])
        self.unparsed += sum(predicted is None for predicted, _ in pairs)
        self.rows += len(pairs)

    def compute(self) -> dict[str, Tensor]:
        """The scores over all rows on all ranks; NaN when there is none."""
        rows = int(self.rows)
        right, predicted, actual = self.right.tolist(), self.predicted.tolist(), self.actual.tolist()

        def macro(numerators: list[int], denominators: list[int]) -> float:
            # A label without any count scores 0, scikit-learn's zero_division=0.
            shares = [n / d if d else 0.0 for n, d in zip(numerators, denominators, strict=True)]
            return ratio(sum(shares), len(shares) if rows else 0)

        values = {
            "precision": macro(right, predicted),
            "recall": macro(right, actual),
            "f1": macro([2 * n for n in right], [p + a for p, a in zip(predicted, actual, strict=True)]),
            "unparsed": ratio(int(self.unparsed), rows),
        }
        return {name: scalar(value, self.device) for name, value in values.items()}
