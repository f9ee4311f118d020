from pathlib import Path

import pytest

from rlhf_lightning.report import PolicyResult, RunResults, Sample, write_samples

EVIL = "<script>alert('x')</script> [bold]markup[/bold] \x1b[31m & 猫が好き"


def make_results(**changes) -> RunResults:
    fields = {
        "task": "summarization",
        "seed": 3,
        "stages": ["sft", "reward", "ppo"],
        "objective": "gold",
        "held_out": 40,
        "policies": [
            PolicyResult("base", "tiny", {"rougeL": 0.10, "ter": 90.0, "gold": 0.31, "kl": 0.0, "length": 30.0}),
            PolicyResult("sft", "sft/model", {"rougeL": 0.42, "ter": 60.0, "gold": 0.52, "kl": 1.5, "length": 12.1}),
            PolicyResult("ppo", "ppo/model", {"rougeL": 0.40, "ter": 55.5, "gold": 0.71, "kl": 3.08, "length": 14.0}),
        ],
        "directions": {"rougeL": "max", "ter": "min", "gold": "max", "kl": None, "length": None},
        "columns": {"task": ["rougeL", "ter"], "reward": ["gold"], "guardrails": ["kl", "length"]},
        "reward_model": {"accuracy": 0.8, "longer_wins": 0.5},
        "seconds": {"sft": 61.2, "ppo": 4.31},
        "notes": ["36 preference rows dropped: chosen equals rejected"],
        "versions": {"torch": "2.9.0"},
    }
    return RunResults(**{**fields, **changes})


@pytest.fixture
def results() -> RunResults:
    return make_results()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run with every file."""
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "overrides.yaml").write_text("- ppo.kl_coef=0.05\n- logger.wandb.api_key=abc123\n")
    (run / ".hydra" / "config.yaml").write_text("ppo:\n  kl_coef: 0.05\nhf_token: xyz789\nmax_tokens: 5\n")
    for stage, text in {
        "sft": "epoch,step,sft/loss,sft/val/loss,sft/val/rougeL\n0,9,2.5,,\n0,19,1.5,,\n0,19,,1.75,0.3\n0,29,1.0,,\n",
        "reward": "step,reward/loss,reward/accuracy\n0,0.69,0.5\n10,0.4,0.8\n",
        "ppo": "step,ppo/score,ppo/kl,ppo/reward/learned\n0,0.5,0.0,0.1\n1,0.6,1.2,0.2\n2,0.7,3.0,na",
    }.items():
        (run / stage).mkdir()
        (run / stage / "metrics.csv").write_text(text)
    make_results().write(run / "metrics.json")
    samples = [
        Sample(
            id=i,
            prompt=f"Prompt {i} {EVIL}",
            references=["the reference"],
            completions={"base": "", "sft": f"sft says {i}", "ppo": EVIL},
            scores={"sft": {"gold": 0.5}, "ppo": {"gold": 0.5 + (i - 5) / 10}},
        )
        for i in range(10)
    ]
    write_samples(run / "samples.jsonl", samples)
    return run
