"""What both tables, on the screen and in the page, say: columns, number formats, the best values, the headline."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_lightning.report.results import COLUMN_GROUPS, RunResults

GROUP_TITLES = {"task": "Task", "reward": "Reward", "guardrails": "Guardrails"}

PLAIN_WORDS = {
    "loss": "Loss",
    "score": "Score of the rollouts",
    "reward": "Reward",
    "total_reward": "Reward less KL penalty",
    "non_score_reward": "KL penalty",
    "kl": "KL from the reference policy",
    "kl_coef": "KL coefficient",
    "kl_k3": "KL from the reference policy, k3 estimate",
    "logprob_gap": "Largest change of a log-probability before the first update",
    "score_penalised": "Score less the penalty for a missing end",
    "values": "Mean of the critic's values",
    "entropy": "Entropy of the policy",
    "length": "Response length in tokens",
    "eos_rate": "Share of responses that end",
    "accuracy": "Accuracy",
    "accuracy_chosen_longer": "Accuracy where the chosen one is longer",
    "accuracy_chosen_shorter": "Accuracy where the chosen one is shorter",
    "calibration_error": "Calibration error",
    "token_accuracy": "Accuracy of the next token",
    "gap": "Score of the chosen less that of the rejected",
    "margin": "Margin between chosen and rejected",
    "longer_wins": "Accuracy of “the longer one wins”",
    "perplexity": "Perplexity",
    "policy_loss": "Policy loss",
    "value_loss": "Value loss",
    "approx_kl": "KL of one update",
    "clip_fraction": "Share of clipped policy ratios",
    "value_clip_fraction": "Share of clipped values",
    "ratio": "Mean policy ratio",
    "ratio_var": "Variance of the policy ratio",
    "explained_variance": "Variance explained by the critic",
    "grad_norm": "Gradient norm",
    "lr": "Learning rate",
    "tokens_per_second": "Tokens a second",
    "padding": "Share of padding",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "f1": "F1",
    "exact_match": "Exact match",
    "token_f1": "F1 over tokens",
    "precision": "Precision",
    "recall": "Recall",
    "unparsed": "Share of answers that are no label",
    "prompt_truncated": "Share of prompts that were shortened",
    "copied": "Share of words in runs of three or more from the prompt",
    "prompt_echo": "Share that echo the prompt",
    "empty_rate": "Share of empty completions",
    "longest_repeat": "Longest repetition in words",
    "distinct_1": "Distinct words",
    "distinct_2": "Distinct word pairs",
    "duplicates": "Share of duplicate completions",
}
"""Names of logged values as a reader would say them."""


def plain_words(name: str) -> str:
    """A metric's name in plain words: ``reward/learned`` is "Reward: learned", an unknown name stays, spaced out."""
    if name in PLAIN_WORDS:
        return PLAIN_WORDS[name]
    if name.startswith("lr-"):  # Lightning's LearningRateMonitor names the optimizer
        return PLAIN_WORDS["lr"]
    head, _, rest = name.partition("/")
    if rest:
        return f"{plain_words(head)}: {rest.replace('_', ' ')}"
    return name.replace("_", " ")


def stage_title(name: str) -> str:
    """``sft`` and ``ppo`` as the abbreviations they are; ``base`` and longer names as they stand."""
    return name.upper() if len(name) <= 4 and name != "base" else name


def clean(text: object) -> str:
    """Text from data or a model without what could steer a terminal or break a page: control characters, surrogates."""
    kept = "".join(
        c if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160) else "\N{REPLACEMENT CHARACTER}"
        for c in str(text)
    )
    return kept.encode("utf-8", "replace").decode("utf-8")


TINY = 5
"""Decimals beyond which one counts zeros, and reads better a number as a computer writes it."""


def decimals(values: Sequence[float]) -> int:
    """How many decimals suit a column: three for shares, fewer for larger numbers, more for tiny ones."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0 or 0.01 <= largest <= 1:
        return 3
    if largest < 0.01:
        return min(8, 2 - math.floor(math.log10(largest)))
    return 2 if largest < 10 else 1 if largest < 1000 else 0


def number(value: float | None, places: int, *, sign: bool = False) -> str:
    """A number at fixed decimals, of three digits from a million on and in tiny columns; ``-`` where there is none.

    With ``sign``: ``+0.12``, and 0 without one.
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    form = ".3g" if abs(value) >= 1e6 or places > TINY else f".{places}f"
    text = format(value, f"+{form}" if sign else form)
    return text.lstrip("+-") if float(text) == 0 else text


_DRAWN = re.compile(r"(?<![\w.])\d+\.\d{8,}(e-?\d+)?(?![\w.])")


def brief(setting: str) -> str:
    """A setting's text, in which numbers that were drawn have four digits, and not all that a computer's have.

    >>> brief("0.00034512345678901234"), brief("0.02"), brief("[12345.12345678901234,v1.123456789012]")
    ('0.0003451', '0.02', '[12345,v1.123456789012]')
    """
    return _DRAWN.sub(lambda drawn: format(number := float(drawn[0]), ".4g" if number < 1e4 else ".0f"), setting)


def best(values: Sequence[float | None], direction: str | None) -> set[int]:
    """The places of the best values; none where there is nothing to choose between or no better direction."""
    known = {i: value for i, value in enumerate(values) if value is not None and math.isfinite(value)}
    if direction not in ("max", "min") or len(set(known.values())) < 2:
        return set()
    winner = (max if direction == "max" else min)(known.values())
    return {i for i, value in known.items() if value == winner}


def improves(change: float, direction: str | None) -> bool | None:
    """Whether a change is for the better; None where it is neither."""
    if direction not in ("max", "min") or change == 0 or math.isnan(change):
        return None
    return (change > 0) == (direction == "max")


@dataclass(frozen=True)
class Column:
    """One metric over all policies of a run, ready to be shown."""

    name: str
    group: str
    direction: str | None
    values: list[float | None]
    places: int
    best: set[int]

    @property
    def header(self) -> str:
        """The metric's name with an arrow to the better side."""
        return clean(self.name) + {"max": " ↑", "min": " ↓"}.get(self.direction or "", "")

    def text(self, i: int) -> str:
        """The value of policy i."""
        return number(self.values[i], self.places)

    def change(self, i: int) -> float | None:
        """The change of policy i against the closest policy before it that has the metric."""
        value = self.values[i]
        earlier = [old for old in self.values[:i] if old is not None]
        return None if value is None or not earlier else value - earlier[-1]


def result_columns(results: RunResults) -> list[Column]:
    """The columns in the order shown. A metric that no policy has is left out; one in no group is a guardrail."""
    placed = {name for names in results.columns.values() for name in names}
    stray = [name for policy in results.policies for name in policy.metrics if name not in placed]
    columns = []
    for group in COLUMN_GROUPS:
        names = results.columns.get(group, []) + (stray if group == "guardrails" else [])
        for name in dict.fromkeys(names):
            values = [policy.metrics.get(name) for policy in results.policies]
            known = [value for value in values if value is not None]
            if known:
                direction = results.directions.get(name)
                columns.append(Column(name, group, direction, values, decimals(known), best(values, direction)))
    return columns


def headline_metric(results: RunResults) -> Column | None:
    """The objective, or the first metric there is where the last policy has no value for it."""
    columns = [column for column in result_columns(results) if column.values[-1] is not None]
    return next((column for column in columns if column.name == results.objective), columns[0] if columns else None)


def headline(results: RunResults) -> str:
    """The result in one sentence: "PPO raised gold from 0.520 to 0.710 (+0.190) at KL 3.1; ..."."""
    column = headline_metric(results)
    if column is None:
        return "Nothing was to be measured." if results.stages == ["predict"] else "No policy has been evaluated."
    last = len(results.policies) - 1
    policy, value, metric = stage_title(results.policies[last].name), column.text(last), clean(column.name)
    change = column.change(last)
    if change is None:
        return f"{policy} has {metric} {value}."
    earlier = [i for i in range(last) if column.values[i] is not None]
    old = column.text(earlier[-1])
    if old == value:
        sentence = f"{policy} left {metric} at {value}"
    else:
        verb = "raised" if change > 0 else "lowered" if change < 0 else "changed"
        sentence = f"{policy} {verb} {metric} from {old} to {value} ({number(change, column.places, sign=True)})"
    kl = results.policies[last].metrics.get("kl")
    if kl is not None:
        sentence += f" at KL {number(kl, 1 if abs(kl) >= 1 else 2)}"
    better = improves(change, column.direction)
    if old != value and better is not None and (not better or column.direction == "min"):
        sentence += f", which is {'better' if better else 'worse'}"
    if len(earlier) > 1:
        first = results.policies[earlier[0]].name
        sentence += f"; {'the base model' if first == 'base' else stage_title(first)} had {column.text(earlier[0])}"
    return sentence + "."


def all_notes(results: RunResults) -> list[str]:
    """The notes, after a sentence for each job of the sweep that steps were taken from."""
    steps: dict[str, list[str]] = {}
    for step, job in results.reused.items():
        steps.setdefault(job, []).append(step)
    taken = [f"{', '.join(names)}: taken from {job} of the same sweep, not done anew" for job, names in steps.items()]
    return taken + results.notes


def cautions(results: RunResults) -> list[str]:
    """Reasons to read the results with care: an unfinished run, a reward that rose while the objective fell."""
    said = []
    if results.status != "finished":
        words = {"interrupted": "was interrupted", "failed": "failed", "pruned": "was pruned by its sweep"}
        state = words.get(results.status, "has not finished")
        done = [stage_title(policy.name) for policy in results.policies if policy.name != "base"]
        said.append(
            f"The run {state}; " + (f"there are results up to {done[-1]}." if done else "no stage has results.")
        )
    objective = headline_metric(results)
    if objective is None:
        return said
    last = len(results.policies) - 1
    if improves(_seen_change(objective, last), objective.direction) is False:
        for column in result_columns(results):
            if column.group == "reward" and improves(_seen_change(column, last), column.direction):
                names = f"{clean(column.name)} rose while {clean(objective.name)} got worse"
                said.append(f"{names}: the policy may have learnt to exploit it.")
    return said


def _seen_change(column: Column, place: int) -> float:
    """How much a policy changed a figure, 0 where it is not to be seen in the table."""
    change = column.change(place) or 0.0
    return change if number(change, column.places) != number(0.0, column.places) else 0.0
