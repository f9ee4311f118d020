"""One result, however it is run: each way against one process with whole batches, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ways import STAGES, made, trained, ways


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_way_comes_to_the_same(stage: str, kind: str, model_dir, tmp_path: Path) -> None:
    """Split into micro-batches, on two ranks, and both: weights to 1e-5, all that is logged to 1e-3 of the value."""
    folder, ppo = str(model_dir(kind)), stage.startswith("ppo")
    others = ways(stage)
    expected, report = trained(tmp_path / "whole", stage, folder, *others.pop("one process"))
    start = made(stage, folder, 4)[0].state_dict()
    moved = max((expected[name] - start[name]).abs().max() for name in expected)
    assert moved > 1e-2, "the test needs weights that move"
    for name, how in others.items():
        weights, other = trained(tmp_path / name, stage, folder, *how)
        assert weights.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(weights[key], value, atol=1e-5, rtol=1e-4, msg=lambda m: f"{name}, {key}: {m}")  # noqa: B023
        assert other["global_step"] == report["global_step"]
        compare(other, report, name, accumulated=name not in ("two ranks", "sharded") and not ppo)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "sft lora", "reward", "ppo"])
def test_a_checkpoint_is_gone_on_with_on_another_number_of_devices(stage: str, model_dir, tmp_path: Path) -> None:
    """Saved by two ranks that share the weights and taken up by one, and the reverse: as if it had been one."""
    folder = str(model_dir("llama"))
    one, two = (ways(stage)[name] for name in ("one process", "sharded"))
    expected, report = trained(tmp_path / "one", stage, folder, *one)
    trained(tmp_path / "two", stage, folder, *two)
    for name, saved, how in (("two to one", "two", one), ("one to two", "one", two)):
        checkpoints = sorted((tmp_path / saved / "checkpoints").iterdir())
        middle = checkpoints[len(checkpoints) // 2] / "state.ckpt"
        assert 0 < torch.load(middle, weights_only=False)["global_step"] < report["global_step"]
        weights, other = trained(tmp_path / name, stage, folder, *how, middle)
        for key, value in expected.items():
            torch.testing.assert_close(weights[key], value, atol=1e-5, rtol=1e-4, msg=lambda m: f"{name}, {key}: {m}")  # noqa: B023
        assert other["global_step"] == report["global_step"]
        compare(other, report, name, accumulated=True)


def compare(one: dict[str, Any], other: dict[str, Any], way: str, accumulated: bool) -> None:
    """All that is logged; what a single accumulated batch logs is that batch's own."""
    pairs = [(one["last"], other["last"])]
    if not accumulated:
        assert len(one["steps"]) == len(other["steps"])
        pairs += list(zip(one["steps"], other["steps"], strict=True))
    for a, b in pairs:
        for name, value in b.items():
            if accumulated and "/val/" not in name:
                continue
            assert a[name] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), (way, name)
