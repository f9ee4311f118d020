"""The sweep file of Weights & Biases, through W&B's own code as far as that goes without a server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from console import BIN, SMALL, environment, metrics, ok
from rlhf_lightning.conf import __file__ as conf

FILE = Path(conf).parent / "wandb_sweep.yaml"


def command(options: dict[str, float]) -> list[str]:
    """The command that W&B's agent starts for these options of the sweep, as `wandb_agent.py` puts it together."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    parts = create_sweep_command_args({"args": {name: {"value": value} for name, value in options.items()}})
    known = {**parts, "program": [sweep["program"]], "env": ["/usr/bin/env"], "interpreter": ["python"]}
    words = [str(word) for word in create_sweep_command(sweep["command"])]
    return [part for word in words for part in (known[word[2:-1]] if word.startswith("${") else [word])]


def test_the_file_is_one_of_wandbs() -> None:
    sweeps = pytest.importorskip("sweeps", reason="needs W&B's package sweeps")
    from wandb.sdk.launch.sweeps.utils import load_sweep_config

    loaded = load_sweep_config(str(FILE))
    assert loaded is not None
    assert sweeps.schema_violations_from_proposed_config(loaded) == []
    assert loaded["metric"] == {"name": "test/gold", "goal": "maximize"}


def test_its_command() -> None:
    made = command({"ppo.kl_coef": 0.05, "ppo.lr": 1e-4})
    assert made == ["/usr/bin/env", "rlhf-train", "logger=wandb", "ppo.kl_coef=0.05", "ppo.lr=0.0001"]


@pytest.mark.slow
def test_the_command_runs_as_the_agent_starts_it(tmp_path: Path) -> None:
    small = [option for option in SMALL if not option.startswith("logger=")]
    start = [*command({"ppo.kl_coef": 0.07, "ppo.lr": 1.5e-4}), *small]
    agent = {"WANDB_SWEEP_ID": "abcd1234", "WANDB_RUN_ID": "run00001", "WANDB_MODE": "offline"}
    path = f"{BIN}:{environment()['PATH']}"
    ok(
        subprocess.run(
            start, cwd=tmp_path, env=environment(**agent, PATH=path), capture_output=True, text=True, timeout=600
        )
    )
    assert metrics(tmp_path / "run")["status"] == "finished"
    config = yaml.safe_load((tmp_path / "run" / ".hydra" / "config.yaml").read_text())
    assert (config["ppo"]["kl_coef"], config["ppo"]["lr"]) == (0.07, 1.5e-4)
    assert list(tmp_path.glob("run/wandb/offline-run-*")), "W&B logged nothing"
