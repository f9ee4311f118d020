"""Two processes over gloo, in Lightning's DDP strategy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "helpers" / "ddp_ppo.py"


def two_ranks(folder: Path, out: Path, what: str) -> list[dict]:
    """Run the script; what either rank wrote."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "PL_DISABLE_FORK": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(out), what],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["shared", "separate", "lora"])
def test_ppo_on_two_ranks(what: str, model_dir, tmp_path) -> None:
    """Checklist 5, 22, 23: equal weights, other responses to the same prompt, whitening over both, steps as on one."""
    first, second = two_ranks(model_dir("llama"), tmp_path, what)
    assert first["weights"] == second["weights"]
    assert first["steps"] == second["steps"] == 2 * 2 * 2
    for a, b in zip(first["texts"], second["texts"], strict=True):
        assert a != b
        assert len(set(a) & set(b)) < 4, "the prompts are all equal, the responses are not"
    for a, b in zip(first["whitened"], second["whitened"], strict=True):
        together = torch.tensor(a + b)
        assert together.mean().item() == pytest.approx(0, abs=1e-5)
        assert together.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)
        assert abs(torch.tensor(a).mean().item()) > 1e-4, "either share alone is not centred"
    assert first["coef"] == second["coef"]
    assert first["metrics"]["ppo/episodes"] == second["metrics"]["ppo/episodes"] == 2 * 4 * 2
    assert first["metrics"]["ppo/logprob_gap"] < 1e-4
    for name in ("ppo/kl", "ppo/score", "ppo/val/letters", "ppo/val/exact_match"):
        assert first["metrics"][name] == pytest.approx(second["metrics"][name])


@pytest.mark.slow
def test_a_rank_without_rewards_takes_part_in_everything(model_dir, tmp_path) -> None:
    """It learns what the other one does; means and whitening are over the scored responses, all on that one."""
    first, second = two_ranks(model_dir("llama"), tmp_path, "masked")
    assert first["weights"] == second["weights"]
    assert first["steps"] == second["steps"] == 2 * 2 * 2
    assert second["whitened"] == [[], []]
    for alone in map(torch.tensor, first["whitened"]):
        assert alone.mean().item() == pytest.approx(0, abs=1e-5)
        assert alone.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    for report in (first, second):
        logged = report["metrics"]
        assert logged["ppo/unscored"] == 0.5
        assert logged["ppo/failures/length"] == 4
        expected = sum(len(text) / 10 for text in first["texts"][-1]) / 4
        assert logged["ppo/score"] == logged["ppo/reward/length"] == pytest.approx(expected)
        assert logged["ppo/logprob_gap"] < 1e-4
        assert logged["ppo/ratio"] == pytest.approx(1, abs=0.2)  # half of it if the other rank's nothing were averaged


@pytest.mark.slow
def test_reward_model_on_two_ranks(model_dir, tmp_path) -> None:
    """Checklist 11: equal weights and measures, also where one rank saw no pair of a kind (that hung once)."""
    first, second = two_ranks(model_dir("llama"), tmp_path, "reward")
    assert first["weights"] == second["weights"]
    for name, value in first["metrics"].items():
        if "val" in name:
            assert second["metrics"][name] == pytest.approx(value)
    assert first["metrics"]["reward/val/longer_wins"] == 0.5
    assert {"reward/val/accuracy_chosen_longer", "reward/val/accuracy_chosen_shorter"} <= set(first["metrics"])
