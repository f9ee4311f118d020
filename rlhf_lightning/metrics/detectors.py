"""Small tests for the ways in which a policy games its reward or a run goes wrong."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch

from rlhf_lightning.metrics.words import is_cjk


def length_reward_correlation(lengths: Sequence[float], rewards: Sequence[float]) -> float:
    """Pearson's correlation between the completions' lengths and their rewards, -1 to 1.

    Near 1, the reward pays for length. 0 when either is constant or there are fewer than two samples.

    Raises:
        ValueError: The two differ in length, or a number is not finite.

    >>> round(length_reward_correlation([10, 20, 30], [0.1, 0.2, 0.4]), 3)
    0.982
    """
    if len(lengths) != len(rewards):
        raise ValueError(f"{len(lengths)} lengths but {len(rewards)} rewards")
    x, y = torch.tensor(lengths, dtype=torch.float64), torch.tensor(rewards, dtype=torch.float64)
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("a length or a reward is not finite")
    # Compared by extremes: the variance of equal numbers may round to something above 0.
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(((x / x.norm()) @ (y / y.norm())).clamp(-1, 1))


def label_collapse(predicted: Sequence[str | None]) -> float:
    """The share of the most frequent predicted label, 0 to 1; 1 when the policy gives one label for everything.

    None (no label, as :func:`~rlhf_lightning.metrics.classification.parse_label` says it) counts among all rows, never
    as the most frequent label. 0 without any row.

    >>> label_collapse(["positive", "positive", "negative", None])
    0.5
    """
    counts = Counter(label for label in predicted if label is not None)
    return max(counts.values(), default=0) / len(predicted) if predicted else 0.0


def _mention(label: str) -> str:
    """A pattern for a label as words of their own. Chinese and Japanese have no spaces to look for."""
    before = "" if is_cjk(label[0]) else r"(?<!\w)"
    after = "" if is_cjk(label[-1]) else r"(?!\w)"
    return f"{before}{re.escape(label)}{after}"


def lists_several_labels(text: str, labels: Sequence[str]) -> bool:
    """Whether a text names two or more different labels, in any case, as if to be right whatever the answer is.

    Of labels that hold one another ("positive", "very positive") the longest counts at each place.

    >>> lists_several_labels("Positive or negative.", ["positive", "negative"])
    True
    """
    folded = {label.strip().casefold() for label in labels} - {""}
    if not folded:
        return False
    longest_first = sorted(folded, key=lambda label: (-len(label), label))
    return len(set(re.findall("|".join(map(_mention, longest_first)), text.casefold()))) > 1


def relative_drift(value: float, baseline: float) -> float:
    """How far a value moved from its baseline, as a share of the baseline: 0.5 is half as much again.

    A baseline of 0 gives an infinite drift of the value's sign, or 0 if the value is 0 as well.

    >>> relative_drift(30, 20), relative_drift(10, 20)
    (0.5, -0.5)
    """
    if baseline == 0:
        return 0.0 if value == 0 else math.copysign(math.inf, value)
    return (value - baseline) / abs(baseline)


def negative_kl(kl: float, tolerance: float = 0.1) -> bool:
    """Whether an estimated KL divergence is below zero by more than sampling noise, or NaN.

    A divergence is never negative. A clearly negative estimate means that the samples do not come from the policy whose
    log-probabilities were used: another sampling temperature, a filter, dropout or wrong padding.

    Args:
        kl: The mean over a batch of the sequence-summed k1 estimate, in nats.
        tolerance: How far noise may take it below zero, in nats.

    >>> negative_kl(-0.02), negative_kl(-2.0)
    (False, True)
    """
    return not kl >= -tolerance
