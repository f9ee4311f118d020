"""Every preset composes, is taken by what it configures, and says in its first line whether it needs the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_conf import CONF, compose_with

from rlhf_lightning.early import check_stages
from rlhf_lightning.hydra_support import plain
from rlhf_lightning.pipeline.options import check_options

EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))


def compose_experiment(path: Path, *overrides: str) -> dict[str, Any]:
    return plain(compose_with(f"experiment={path.stem}", *overrides))


def hub_names(config: dict[str, Any]) -> list[str]:
    """What a run with this config would fetch from the hub."""
    data = [text for text in config["data"].values() if isinstance(text, str) and text.startswith("hub:")]
    models = [config["model"]["name"], config["policy"], config["reward_model"]]
    models += [(config["reward"].get("model") or {}).get("name")]
    models += [reward.get("model") for reward in config["ppo"]["rewards"].values()]
    return data + [name for name in models if name]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_preset_composes_and_is_taken(path: Path) -> None:
    config = compose_experiment(path)
    check_options(config)
    check_stages(config)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_preset_says_what_it_is_and_whether_it_needs_the_hub(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[0] == "# @package _global_"
    assert re.fullmatch(r"# .*[.?]", lines[1])
    assert lines[1].endswith("Needs the hub.") == bool(hub_names(compose_experiment(path)))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_preset_chooses_from_groups_that_exist(path: Path) -> None:
    """Each group is chosen by `override`, and what it chooses exists."""
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in given.pop("defaults", []):
        ((key, names),) = entry.items()
        group = key.removeprefix("override /").partition("@")[0]
        assert key.startswith("override /")
        for name in names if isinstance(names, list) else [names]:
            assert (CONF / group / f"{name}.yaml").is_file()
    assert set(given) <= set(compose_experiment(path)), "no new key at the top"


@pytest.mark.parametrize("trainer", ["cpu", "ddp", "fsdp2", "gpu"])
def test_the_smoke_test_stays_small_on_any_trainer(trainer: str) -> None:
    config = compose_experiment(CONF / "experiment" / "smoke.yaml", f"trainer={trainer}")
    limits = [config["trainer"][f"limit_{part}_batches"] for part in ("train", "val", "test")]
    assert limits == [4, 1, 1]
    assert config["trainer"]["devices"] == plain(compose_with(f"trainer={trainer}"))["trainer"]["devices"]
    assert config["ppo"]["updates"] == 3


def test_what_is_given_beside_a_preset_counts() -> None:
    config = compose_experiment(CONF / "experiment" / "hh.yaml", "model=smollm2_135m", "ppo.lr=1e-6", "data=files")
    assert config["model"]["name"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (config["ppo"]["lr"], config["data"]["train"]) == (1e-6, None)
    assert config["ppo"]["minibatches"] == 4
