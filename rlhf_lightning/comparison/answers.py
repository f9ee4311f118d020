"""Held-out figures as functions of the rows: what a resample of the rows would have given, without the models.

A task metric is a formula over sums of the rows' states, so the figure of a resample is the formula over a product of
two matrices: how often each row was drawn, and the rows' states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.results import Sample
from rlhf_lightning.report.runs import Run

if TYPE_CHECKING:
    from torchmetrics import Metric

TOLERANCE = 1e-4
"""How far a figure from samples.jsonl, whose scores have six decimals, may be from metrics.json, relatively."""


class Resampled(NamedTuple):
    """A figure on resampled rows.

    Attributes:
        values: (draws,).
        rows: that have the figure.
    """

    values: np.ndarray
    rows: int


def held_out_rows(run: Run) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The prompts and references that the final policy answered, in order: what two runs must share to be paired."""
    return tuple((sample.prompt, tuple(sample.references)) for sample in _answered(run))


def _answered(run: Run) -> list[Sample]:
    final = run.final
    return [sample for sample in run.samples() if final is not None and final.name in sample.completions]


class CorpusMetric:
    """A task metric as sums over rows.

    Args:
        metric: has ``update(completions, references)`` and tensors as states.

    Raises:
        ValueError: from `states`, where the score is none of sums over rows.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.metric.compute_with_cache = False
        self._known: dict[tuple[str, tuple[str, ...]], np.ndarray] = {}
        self._checked = False

    def states(self, completions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """(n, k) what each row adds to the sums."""
        rows = []
        for completion, row in zip(completions, references, strict=True):
            place = (completion, tuple(row))
            if place not in self._known:  # policies that are alike give many answers that are equal
                self._known[place] = self._sums([completion], [list(row)])
            rows.append(self._known[place])
        states = np.stack(rows)
        if not self._checked:
            self._sums(list(completions), [list(row) for row in references])
            expected = self._named(self.metric.compute())
            found = self.scores(states.sum(0, keepdims=True))
            if any(not np.isclose(found[name][0], value, equal_nan=True) for name, value in expected.items()):
                raise ValueError(f"{type(self.metric).__name__} is no formula over sums of its rows' states")
            self._checked = True
        return states

    def _sums(self, completions: list[str], references: list[list[str]]) -> np.ndarray:
        self.metric.reset()
        self.metric.update(completions, references)
        states = self.metric.metric_state.values()
        if any(isinstance(value, list) for value in states):
            raise ValueError(f"{type(self.metric).__name__} keeps its rows in lists, not sums over them")
        return np.concatenate([value.reshape(-1).double().numpy() for value in states])  # type: ignore[union-attr]

    def scores(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """The metric's values by name, (d,) each, of sums (d, k)."""
        import torch

        shapes = {name: (value.shape, value.dtype) for name, value in self.metric.metric_state.items()}  # type: ignore[union-attr]
        ends = np.cumsum([shape.numel() for shape, _ in shapes.values()])[:-1]
        parts = [torch.from_numpy(np.ascontiguousarray(part)) for part in np.split(sums, ends, axis=1)]
        columns = [
            part.to(dtype).reshape(-1, *shape) for part, (shape, dtype) in zip(parts, shapes.values(), strict=True)
        ]
        found: dict[str, list[float]] = {}
        for values in zip(*columns, strict=True):
            for name, value in zip(shapes, values, strict=True):
                setattr(self.metric, name, value)
            for name, score in self._named(self.metric.compute()).items():
                found.setdefault(name, []).append(score)
        return {name: np.array(scores) for name, scores in found.items()}

    def _named(self, value: Any) -> dict[str, float]:
        return {name: float(score) for name, score in (value if isinstance(value, dict) else {"": value}).items()}

    def resampled(self, states: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The values by name, (d,) each, where row i was drawn ``weights[d, i]`` times.

        A score that is a mean over rows, which a few resamples tell, is computed as one.
        """
        few = weights[:8]
        tried = self.scores(few @ states)
        by_row = self.scores(states)
        mean = {name: few @ by_row[name] / few.sum(1) for name in tried}
        if all(np.allclose(mean[name], tried[name], rtol=1e-9, atol=0) for name in tried):
            return {name: weights @ by_row[name] / weights.sum(1) for name in tried}
        return self.scores(weights @ states)


class Answers:
    """Figures of final policies on resampled rows; the same rows for every run.

    Args:
        draws: resamples.
        seed: of the drawing.
    """

    def __init__(self, draws: int, seed: int = 0) -> None:
        self.draws, self.seed = draws, seed
        self._metrics: dict[str, CorpusMetric] = {}
        self._weights: dict[int, np.ndarray] = {}

    def weights(self, n: int) -> np.ndarray:
        """(draws, n) how often each of n rows was drawn."""
        if n not in self._weights:
            drawn = np.random.default_rng(self.seed).multinomial(n, np.full(n, 1 / n), self.draws)
            self._weights[n] = drawn.astype(float)
        return self._weights[n]

    def figures(self, run: Run) -> tuple[dict[str, Resampled], dict[str, str]]:
        """The final policy's figures on resampled rows by name, and why others have none.

        Figures are left out, with the reason, where what follows from the answers is not what the run measured.
        """
        final = run.final
        samples = _answered(run)
        if final is None or not samples:
            return {}, {"": "it has no samples.jsonl"}
        found: dict[str, Resampled] = {}
        refused: dict[str, str] = {}
        weights = self.weights(len(samples))
        texts = [sample.completions[final.name] for sample in samples]
        whole: dict[str, float] = {}
        for values in (_by_row(samples, texts), _scores(run, samples)):
            for name, by_row in values.items():
                known = np.isfinite(by_row)
                with np.errstate(invalid="ignore"):  # a resample without a known value is NaN
                    drawn = weights @ np.where(known, by_row, 0.0) / (weights @ known)
                found[name] = Resampled(drawn, int(known.sum()))
                whole[name] = float(by_row[known].mean()) if known.any() else np.nan
        references = [sample.references for sample in samples]
        for name, given in _metric_configs(run).items():
            try:
                config = _resolved(run, name) if "${" in str(given) else given
                metric = self._metrics.setdefault(str(config), CorpusMetric(build_metric(config)))
                states = metric.states(texts, references)
                resampled = metric.resampled(states, weights)
                total = metric.scores(states.sum(0, keepdims=True))
            except (UserError, ValueError) as error:
                refused[name] = str(error)
                continue
            except Exception as error:  # of a metric of the user's own
                refused[name] = f"{type(error).__name__}: {error}"
                continue
            found |= {key or name: Resampled(values, len(samples)) for key, values in resampled.items()}
            whole |= {key or name: float(values[0]) for key, values in total.items()}
        for name, value in whole.items():
            measured = final.metrics.get(name)
            if measured is None:
                del found[name]
            elif not np.isclose(value, measured, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                del found[name]
                refused[name] = f"the answers in samples.jsonl give {value:.4g}, the run measured {measured:.4g}"
        return found, refused


def _by_row(samples: Sequence[Sample], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """(n,) guardrails that are means over rows, from the texts."""
    from rlhf_lightning.metrics import copied_share, echoes_prompt, longest_repeat, split_words

    ways: dict[str, Callable[[Sample, str], float]] = {
        "empty_rate": lambda sample, text: not text.strip(),
        "longest_repeat": lambda sample, text: longest_repeat(split_words(text, punctuation=True)),
        "copied": lambda sample, text: copied_share(split_words(text), split_words(sample.prompt)),
        "prompt_echo": lambda sample, text: echoes_prompt(text, sample.prompt),
    }
    return {
        name: np.array([way(sample, text) for sample, text in zip(samples, texts, strict=True)], dtype=float)
        for name, way in ways.items()
    }


def _scores(run: Run, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """(n,) each reward and measure of the final policy's answers; NaN where a reward failed."""
    policy = run.final.name if run.final else ""
    known = [{**sample.measures.get(policy, {}), **sample.scores.get(policy, {})} for sample in samples]
    names = dict.fromkeys(name for figures in known for name in figures)
    return {name: np.array([figures.get(name, np.nan) for figures in known]) for name in names}


def _metric_configs(run: Run) -> dict[str, Any]:
    """The task's metrics by name, as the run's config has them."""
    return (run.config.get("task") or {}).get("metrics") or {}


def _resolved(run: Run, metric: str) -> Any:
    """A metric's config with its interpolations resolved.

    Raises:
        UserError: if they can't be.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create(run.config).task.metrics[metric], resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"its config can't be resolved: {' '.join(str(error).split())}") from None


def build_metric(config: Mapping[str, Any]) -> Metric:
    """A metric from a run's config.

    Raises:
        UserError: if the config names anything but a metric: reading a run must not call what a stranger wrote there.
    """
    from hydra.utils import get_class
    from torchmetrics import Metric

    target = str(config.get("_target_"))
    options = {name: value for name, value in config.items() if name != "_target_"}
    try:
        named = get_class(target)
        if not issubclass(named, Metric):
            raise UserError(f"{target} is no metric")
        return named(**options)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"cannot use {target}: {' '.join(str(error).split())}") from error
