"""What the loggers are told of a run, and what is refused before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from rlhf_lightning.callbacks import StopRequest
from rlhf_lightning.callbacks.loggers import WandbRun
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import plain, register_resolvers
from rlhf_lightning.models import ModelSpec
from rlhf_lightning.pipeline import tracking
from rlhf_lightning.pipeline.artifacts import artifact_name
from rlhf_lightning.pipeline.run import Run
from rlhf_lightning.pipeline.tracking import (
    check_loggers,
    goals,
    log_model,
    logged_config,
    loggers,
    plain_settings,
    run_group,
    tags,
    wandb_id,
)
from rlhf_lightning.report import RunResults
from rlhf_lightning.state import State


def config(*overrides: str) -> dict[str, Any]:
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        return plain(compose("train", overrides=list(overrides)))


def make_run(folder: Path, *overrides: str, sweep: Path | None = None) -> Run:
    results = RunResults(task="t", versions={"torch": "2.13"}, directions={"gold": "max", "ter": "min", "kl": None})
    state = State(data={"train": [3, "abc"], "test": [0, ""]})
    return Run(config(*overrides), folder, sweep, TaskData(), results, state, StopRequest(), spec=ModelSpec("m"))


def test_what_a_run_belongs_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert run_group(make_run(tmp_path / "one")) == "one"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert run_group(make_run(tmp_path / "one")) == "s1"
    assert run_group(make_run(tmp_path / "one", sweep=tmp_path / "2026-11-26")) == "2026-11-26"


@pytest.mark.parametrize(
    ("overrides", "stage", "expected"),
    [
        ("task=qa", "sft", ["qa", "tiny-causal", "sft"]),
        ("task=qa", "evaluate", ["qa", "tiny-causal", "ppo"]),
        ("task=qa stages=[sft]", "evaluate", ["qa", "tiny-causal", "sft"]),
        ("task=qa stages=[evaluate] policy=/home/anna/mine", "evaluate", ["qa", "mine", "evaluate"]),
        ("model=t5_small", "ppo", ["summarization", "t5-small", "ppo"]),
    ],
)
def test_tags(overrides: str, stage: str, expected: list[str], tmp_path: Path) -> None:
    assert tags(make_run(tmp_path, *overrides.split()), stage) == expected


def test_the_config_as_it_is_logged(tmp_path: Path) -> None:
    """Values that W&B can sort by; no secrets, no places, nothing of the loggers."""
    run = make_run(
        tmp_path,
        "policy=/home/anna/models/mine",
        "data=files",
        "data.train=/home/anna/rows.jsonl",
        "rewards=http",
        "ppo.rewards.http.url=http://anna:pass@host/score",
        "+ppo.rewards.http.api_key=k1234",
    )
    made = logged_config(run)
    assert (made["policy"], made["data"]["train"], made["ppo"]["kl_coef"]) == ("mine", "rows.jsonl", 0.05)
    assert not {"paths", "logger"} & set(made)
    assert made["made_with"]["rows"] == {"train": {"rows": 3, "hash": "abc"}}
    assert made["made_with"]["versions"] == {"torch": "2.13"}
    assert made["made_with"]["code"]["version"]
    for secret in ("anna", "k1234", "pass@"):
        assert secret not in str(made)


def test_settings_are_named_as_mlflow_takes_them() -> None:
    assert plain_settings({"a": {"b?": 1, "c": [1]}, "d": None}) == {"a.b_": 1, "a.c": [1], "d": None}


def test_goals_follow_the_directions(tmp_path: Path) -> None:
    run = make_run(tmp_path, "rewards=[learned,chrf]", "ppo.rewards.chrf.weight=-1")
    made = goals(run, "ppo")
    assert (made["ppo/val/gold"], made["ppo/val/ter"], made["ppo/score"]) == ("max", "min", "max")
    assert (made["ppo/reward/learned"], made["ppo/reward/chrf"]) == ("max", "min")
    assert "ppo/val/kl" not in made
    assert goals(run, "reward")["reward/val/loss"] == "min"
    assert goals(run, "evaluate") == {}, "its summary holds plain values"


def test_ids_are_kept_and_the_agents_is_that_of_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    run = make_run(tmp_path)
    first = wandb_id(run, "sft")
    assert wandb_id(run, "sft") == first != wandb_id(run, "ppo")
    assert State.read(tmp_path).wandb == run.state.wandb
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "of_agent")
    assert wandb_id(run, "sft") == first
    assert wandb_id(run, "evaluate") == "of_agent"
    assert {logger.in_sweep for logger in loggers(run, "evaluate") if isinstance(logger, WandbRun)} == {True}
    assert {logger.in_sweep for logger in loggers(run, "ppo") if isinstance(logger, WandbRun)} == {False}


@pytest.mark.parametrize(
    ("overrides", "environment", "said"),
    [
        ("logger.wandb.offline=false", {}, "set WANDB_API_KEY"),
        ("", {"WANDB_MODE": "online"}, "set WANDB_API_KEY"),
        ("", {"WANDB_MODE": "sometimes"}, "WANDB_MODE=sometimes"),
        ("logger=[wandb,mlflow]", {}, "pip install 'rlhf-lightning[mlflow]'"),
        ("logger=tensorboard", {}, "pip install 'rlhf-lightning[tensorboard]'"),
    ],
)
def test_loggers_that_can_not_be_had(overrides, environment, said, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name in ("mlflow", "tensorboard") else object())
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        check_loggers(config(*overrides.split()))
    assert said in str(refused.value)


@pytest.mark.parametrize("overrides", ["", "logger=csv", "logger.wandb.offline=true"])
def test_loggers_that_can(overrides: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    check_loggers(config(*overrides.split()))


class Live:
    """What `wandb.Run` does with artifacts."""

    def __init__(self) -> None:
        self.used: list[Any] = []
        self.logged: list[tuple[Any, list[str]]] = []

    def use_artifact(self, artifact: Any) -> None:
        self.used.append(artifact)

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.logged.append((artifact, aliases))


class Logged(WandbRun):
    """A logger over that run."""

    def __init__(self, mode: str, artifacts: bool = True) -> None:
        self.live, self.artifacts, self.failed = Live(), artifacts, False
        self._wandb_init = {"mode": mode}

    @property
    def experiment(self) -> Any:
        return self.live


def folder(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(content)
    return path


def test_models_become_artifacts_linked_to_what_they_were_made_of(tmp_path: Path) -> None:
    """The model that PPO starts from is, by name and content, the version that the stage before logged."""
    run = make_run(tmp_path / "a run", "task=qa")
    for stage in ("sft", "reward", "ppo"):
        folder(run.dir / stage / "model", stage)
    sft, ppo = Logged("online"), Logged("online")
    log_model(run, "sft", [sft], {"sft/loss": 0.5}, ModelSpec("org/base", revision="v1"))
    log_model(run, "ppo", [ppo], {}, ModelSpec(str(run.dir / "sft" / "model")))
    ((made, aliases),) = sft.live.logged
    assert (made.name, made.type, aliases) == ("qa-tiny-causal-sft", "model", ["a-run"])
    assert made.metadata == {"stage": "sft", "metrics": {"sft/loss": 0.5}}
    assert [artifact.name for artifact in sft.live.used] == ["qa-data", "org-base"]
    assert [artifact.name for artifact in ppo.live.used] == ["qa-data", "qa-tiny-causal-sft", "qa-tiny-causal-reward"]
    assert ppo.live.used[1].manifest.digest() == made.manifest.digest()
    assert ppo.live.used[0].manifest.digest() == sft.live.used[0].manifest.digest()
    assert list(sft.live.used[0].manifest.entries) == ["rows.json"], "no row is in it"


@pytest.mark.parametrize(
    ("mode", "asked", "logged"), [("offline", True, 1), ("disabled", True, 0), ("online", False, 0)]
)
def test_artifacts_are_logged_where_they_are_asked_for(mode: str, asked: bool, logged: int, tmp_path: Path) -> None:
    run, logger = make_run(tmp_path), Logged(mode, asked)
    folder(run.dir / "sft" / "model", "x")
    log_model(run, "sft", [logger], {}, ModelSpec("org/base"))
    assert (len(logger.live.used), len(logger.live.logged)) == (0, logged)


def test_artifact_names() -> None:
    assert artifact_name("qa", "a b/c:d", "sft") == "qa-a-b-c-d-sft"
    assert len(artifact_name("x" * 200)) == 128
