"""What is refused at once, and what a refused run leaves behind."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from rlhf_lightning import hub, train
from rlhf_lightning.early import check_early
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import leftovers, plain


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hydra_process: None
) -> Iterator:
    """Starts `rlhf-train` in an empty folder with options that are refused; gives what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "rlhf_lightning.pipeline", None)  # nothing here comes as far as that

    def run(*options: str) -> str:
        GlobalHydra.instance().clear()
        monkeypatch.setattr("sys.argv", ["rlhf-train"])
        assert train.main(options) == 2
        return capsys.readouterr().err

    yield run
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("stages=[sft,pp]", "there is no stage 'pp'"),
        ("stages=sft", "stages must be a list"),
        ("task=translation data.train={source:a.en,reference:a.zh}", "there is no file a.en"),
        ("policy=no/such/folder", "there is no such folder"),
        ("model=gpt2", "HF_HUB_OFFLINE is set"),
        ("model=hf", "model.name must be given"),
        ("model.name=gpt2", "give model=hf model.name=gpt2"),
        ("-m dry_run=true seed=1,2", "dry_run=true shows one run"),
        ("ppo.epochs=abc", "ppo.epochs must be a whole number, not 'abc'"),
    ],
)
def test_it_is_refused_before_anything_heavy_is_loaded_and_leaves_nothing(
    start, options: str, said: str, tmp_path: Path
) -> None:
    assert said in start(*options.split())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The config where nothing is said."""
    GlobalHydra.instance().clear()
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        return plain(compose("train"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stages": ["ppo"]}, "policy="),
        ({"stages": []}, "stages must be a list"),
        ({"ppo": None}, "ppo is missing"),
        ({"data.train": "no.jsonl"}, "there is no file no.jsonl"),
        ({"stages": ["sft", "predict"], "predict.input": "no.jsonl"}, "there is no file no.jsonl"),
        ({"reward_model": "./no", "stages": ["sft", "ppo"]}, "there is no such folder"),
        ({"ppo.critic": "no/such/folder"}, "there is no such folder"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"dry_run": "maybe"}, "dry_run must be true or false, not 'maybe'"),
        ({"sft.lr": "fast"}, "sft.lr must be a number, not 'fast'"),
        ({"sft.loader.batch_size": 0}, "sft.loader.batch_size must be at least 1"),
        ({"ppo.loader.batch_size": 2.5}, "ppo.loader.batch_size must be a whole number, not 2.5"),
        ({"ppo.loader": None}, "ppo.loader can't be None"),
        ({"ppo.rewards": None}, "ppo.rewards can't be None"),
        ({"ppo.rewards.learned": 1}, "ppo.rewards.learned must be a reward"),
        ({"ppo.epochs": 0}, "ppo.epochs must be at least 1, not 0"),
        ({"ppo.epochs": True}, "ppo.epochs must be a whole number, not True"),
        ({"ppo.lam": 1.5}, "ppo.lam must be at most 1"),
        ({"ppo.lam": "x"}, "ppo.lam must be a number, not 'x'"),
        ({"ppo.kl": "fixd"}, "ppo.kl must be fixed or adaptive"),
        ({"ppo.clip_range": math.nan}, "ppo.clip_range must be at least 0, not nan"),
    ],
)
def test_what_is_seen_from_the_config_alone(composed: dict[str, Any], options: dict[str, Any], said: str) -> None:
    cfg = deepcopy(composed)
    check_early(cfg)
    for path, value in options.items():
        *groups, name = path.split(".")
        reduce(lambda node, group: node[group], groups, cfg)[name] = value
    with pytest.raises(UserError) as refused:
        check_early(cfg)
    assert said in str(refused.value)


def test_of_a_stage_that_is_not_run_nothing_matters(composed: dict[str, Any]) -> None:
    cfg = deepcopy(composed) | {"stages": ["sft"]}
    cfg["ppo"]["epochs"] = "abc"
    check_early(cfg)


def test_looking_where_predictions_go_makes_no_folder(
    composed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"prompt": "a"}\n')
    cfg = deepcopy(composed) | {"stages": ["sft", "predict"]}
    cfg["predict"] |= {"input": "rows.jsonl", "output": "made/sub/o.jsonl"}
    check_early(cfg)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    Path("made").touch()
    with pytest.raises(UserError, match=r"made/sub/o\.jsonl can't be written: Not a directory"):
        check_early(cfg)


def test_a_folder_that_was_there_stays(start, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "outputs").mkdir()
    start("stages=[sft,pp]", "hydra.run.dir=mine")
    start("stages=[sft,pp]")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "outputs"]


def test_a_folder_in_which_something_was_begun_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("refused", "begun"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / "base" / "model").mkdir(parents=True)
    (tmp_path / "begun" / "state.json").touch()
    for name in ("refused", "begun"):
        monkeypatch.setattr(leftovers, "_made", [tmp_path / name])
        leftovers.take_away(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


@pytest.fixture
def no_way(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a connection to the hub."""

    def refuse(*args: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub.reachable.cache_clear()
    yield
    hub.reachable.cache_clear()


def test_a_hub_name_without_a_connection(no_way: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"no way to huggingface\.co.*hf download some/model"):
        hub.find("some/model")


def test_a_model_of_the_cache_needs_no_connection(
    no_way: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("abc")
    hub.find("some/model")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert constants.HF_HUB_OFFLINE is True


def test_a_folder_and_a_connection_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        no_proxies(monkeypatch)
        hub.reachable.cache_clear()
        hub.find("some/model")
        hub.find(str(tmp_path))
    hub.reachable.cache_clear()


def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ("", ("huggingface.co", 443)),
        ("HTTPS_PROXY=proxy.corp:3128", ("proxy.corp", 3128)),
        ("https_proxy=http://user:word@proxy.corp", ("proxy.corp", 80)),
        ("all_proxy=socks5://proxy.corp", ("proxy.corp", 1080)),
        ("ALL_PROXY=https://proxy.corp", ("proxy.corp", 443)),
        ("HTTPS_PROXY=proxy.corp:3128 NO_PROXY=localhost,huggingface.co", ("huggingface.co", 443)),
        ("https_proxy=proxy.corp:3128 HF_ENDPOINT=http://mirror:8000", ("mirror", 8000)),
        ("http_proxy=proxy.corp:3128 HF_ENDPOINT=http://mirror:8000", ("proxy.corp", 3128)),
    ],
)
def test_the_way_to_the_hub(variables: str, asked: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: tried.append(address) or socket.socket())
    no_proxies(monkeypatch)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    for variable in variables.split():
        name, _, value = variable.partition("=")
        monkeypatch.setenv(name, value)
    hub.reachable.cache_clear()
    assert hub.reachable()
    hub.reachable.cache_clear()
    assert tried == [asked]


def test_a_proxy_that_can_not_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxies(monkeypatch)
    monkeypatch.setenv("HTTPS_PROXY", "proxy:corp:x")
    hub.reachable.cache_clear()
    assert not hub.reachable()
    hub.reachable.cache_clear()
