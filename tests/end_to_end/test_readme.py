"""The README's plain-Python example, run as it stands with fewer batches."""

import re
from functools import partial
from pathlib import Path

import lightning as L
import pytest

README = Path(__file__).parents[2] / "README.md"


def snippet() -> str:
    section = README.read_text(encoding="utf-8").split("## In plain Python")[1]
    return re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)[1]


def test_the_example_is_short() -> None:
    assert len([line for line in snippet().splitlines() if line.strip()]) < 40


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = {"limit_train_batches": 2, "limit_val_batches": 1, "logger": False, "enable_checkpointing": False}
    trainers = []

    def trainer(**options: object) -> L.Trainer:
        if "max_steps" in options:
            options["max_steps"] = 8  # two rounds
        else:
            options["max_epochs"] = 1
        trainers.append(L.Trainer(**options, **quick, accelerator="cpu"))
        return trainers[-1]

    code = snippet().replace("L.Trainer(", "make_trainer(")
    exec(compile(code, str(README), "exec"), {"make_trainer": partial(trainer)})
    assert [t.global_step for t in trainers] == [2, 2, 8]
    for stage in ("base", "sft", "reward", "ppo"):
        assert (tmp_path / "out" / stage / "model.safetensors").exists()
