"""What the metrics promise about their states, and that the docstrings' examples run."""

import doctest
import importlib

import pytest
import torch
from torchmetrics import Metric

from rlhf_lightning import metrics as package

MODULES = ["_shared", "words", "translation", "rouge", "qa", "classification", "guardrails", "detectors"]

METRICS = [
    package.BLEU(),
    package.ChrF(),
    package.TER(),
    package.ROUGE(),
    package.ExactMatch(),
    package.TokenF1(),
    package.LabelAccuracy(["a", "b"]),
    package.LabelF1(["a", "b"]),
    package.Guardrails(),
]


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module):
    failed, _ = doctest.testmod(importlib.import_module(f"rlhf_lightning.metrics.{module}"))
    assert failed == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_states_are_whole_numbers_that_reduce(metric):
    """No list state (its gather deadlocks on unequal updates) and no float (which float16 or MPS would spoil)."""
    reductions = {torch.sum: "sum"}
    for name, default in metric._defaults.items():
        assert isinstance(default, torch.Tensor), name
        assert not default.is_floating_point(), name
        function = metric._reductions[name]
        assert function in reductions or function.__name__ in ("dim_zero_sum", "dim_zero_max", "dim_zero_min"), name


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_nothing_goes_into_checkpoints(metric):
    assert metric.state_dict() == {}


def test_every_metric_is_tested_here():
    exported = {value for value in vars(package).values() if isinstance(value, type) and issubclass(value, Metric)}
    assert exported == {type(metric) for metric in METRICS}


def test_all_names_exist():
    assert all(hasattr(package, name) for name in package.__all__)


def test_fixed_point_sums_are_exact_enough():
    from rlhf_lightning.metrics._shared import from_fixed, to_fixed

    assert from_fixed(sum(to_fixed(1 / 3) for _ in range(1000))) / 1000 == pytest.approx(1 / 3, abs=1.2e-10)
