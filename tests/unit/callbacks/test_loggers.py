"""The Weights & Biases logger: online exactly where there is a key, silent, and the key never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlhf_lightning.callbacks.loggers import sweep_environment, wandb_key, wandb_logger

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a key; the file where one may be written."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_SWEEP_ID", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_no_key_is_offline() -> None:
    assert wandb_key() is None
    assert wandb_logger("p").mode == "offline"
    assert wandb_logger("p", offline=True).mode == "offline"


def test_a_key_in_the_environment_is_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert wandb_logger("p").mode == "online"
    assert wandb_logger("p", offline=True).mode == "offline"


@pytest.mark.parametrize(
    ("host", "base", "found"),
    [
        ("api.wandb.ai", None, True),
        ("wandb.my.org", None, False),
        ("wandb.my.org", "https://wandb.my.org:8080", True),
    ],
)
def test_a_key_of_wandb_login(host: str, base: str | None, found: bool, no_key: Path, monkeypatch) -> None:
    no_key.write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    no_key.chmod(0o600)
    if base:
        monkeypatch.setenv("WANDB_BASE_URL", base)
    assert wandb_key() == (KEY if found else None)


def test_a_damaged_netrc_is_no_key(no_key: Path) -> None:
    no_key.write_text("machine\nnonsense {")
    assert wandb_key() is None


@pytest.mark.parametrize(
    ("mode", "taken"),
    [("disabled", "disabled"), ("offline", "offline"), ("dryrun", "offline"), ("online", "online"), ("", "offline")],
)
@pytest.mark.parametrize("offline", [None, True, False])
def test_the_environment_decides_the_mode(mode: str, taken: str, offline: bool | None, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    expected = "online" if mode == "" and offline is False else taken
    assert wandb_logger("p", offline=offline).mode == expected


def test_the_sweeps_own_project_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "sweeps")
    assert wandb_logger("p")._wandb_init["project"] == "p"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert wandb_logger("p")._wandb_init["project"] == "sweeps"


def test_only_the_run_that_joins_sees_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "r1", "WANDB_SWEEP_PARAM_PATH": "p.yaml"}
    for name, value in agents.items():
        monkeypatch.setenv(name, value)
    with sweep_environment(joins=False):
        assert not set(agents) & set(os.environ)
    assert agents.items() <= os.environ.items()
    with sweep_environment(joins=True):
        assert agents.items() <= os.environ.items()


def test_what_reaches_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    logger = wandb_logger("p", entity="team", group="g", job_type="ppo", tags=["qa"], config={"lr": 1.0})
    sent = logger._wandb_init
    assert {k: sent[k] for k in ("project", "entity", "group", "job_type", "tags", "config")} == {
        "project": "p",
        "entity": "team",
        "group": "g",
        "job_type": "ppo",
        "tags": ["qa"],
        "config": {"lr": 1.0},
    }
    assert sent["settings"].silent
    assert "anonymous" not in sent  # W&B warns of it
    assert KEY not in str(sent)
