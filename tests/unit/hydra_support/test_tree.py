"""The composed config as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from rich.console import Console

from rlhf_lightning import train
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import register_resolvers
from rlhf_lightning.hydra_support.tree import Composed, composed, tree


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register_resolvers()
    yield
    GlobalHydra.instance().clear()


def shown(*arguments: str, part: str = "") -> list[str]:
    """Its lines, without the branches."""
    console = Console(file=StringIO(), width=1000)
    console.print(tree(composed(list(arguments)), part))
    return [line.lstrip("│├└─ \xa0").rstrip() for line in console.file.getvalue().splitlines()]


def test_a_value_has_its_meaning_and_what_it_is_made_of() -> None:
    told = shown(part="ppo")
    assert told[0].startswith("ppo  # Proximal policy optimisation")
    assert told[0].endswith("[stage/ppo.yaml]")
    assert "lr: 0.0002  (= ${model.recommended.ppo.lr})  # peak learning rate of the policy" in told
    assert "stop_on: []  # those of the alarms that end PPO, such as [kl_limit,reward_up_metric_down]" in told


def test_where_values_come_from() -> None:
    told = shown("model=hf", "ppo.kl_coef=0.3", "rewards=[chrf,constant]", "optimizer@sft.optimizer=sgd")
    assert "kl_coef: 0.3  # weight of the KL penalty, per token; 0 keeps no reference model  [command line]" in told
    assert any(line.startswith("name: must be given") for line in told)
    assert not any("command line" in line and "kl_coef" not in line for line in told)
    assert any(line.startswith("optimizer  # Stochastic gradient descent with momentum.  [optimizer/sgd.yaml]")
               for line in told)  # fmt: skip
    assert any(line.startswith("chrf  # Sentence") for line in told)
    assert any(line.startswith("constant  # The control") for line in told)


def test_a_users_own_config_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n# Mine.\nseed: 7  # my number\n")
    told = shown("--config-dir", str(tmp_path), "experiment=mine")
    assert "seed: 7  # my number  [experiment/mine.yaml]" in told


def test_one_value_and_a_null() -> None:
    assert shown(part="policy")[0].startswith("policy: null  # folder or hub name")
    assert shown(part="ppo.alarms.kl_limit") == ["ppo.alarms.kl_limit: 20.0  # nats from where it started  "
                                                 "[stage/ppo.yaml]"]  # fmt: skip


def test_a_part_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"--tree pppo: there is no such part. Did you mean ppo\?"):
        shown(part="pppo")


def test_a_sweep_is_no_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rlhf-train"])
    assert train.main(["-m", "seed=1,2", "--tree"]) == 2
    assert "one run, not a sweep" in capsys.readouterr().err


def unexplained(made: Composed, node: DictConfig, prefix: str, flow: bool) -> list[str]:
    """Options without a meaning of their own or of the one line that they stand in."""
    found = []
    for key in node:
        name, raw = f"{prefix}{key}", node._get_node(key)
        if key in ("_target_", "_partial_"):
            continue
        told = name in made.meanings or flow
        if isinstance(raw, DictConfig) and not raw._is_none() and not raw._is_interpolation():
            found += unexplained(made, raw, f"{name}.", told and (name.startswith(FLOW) or key == "options"))
        elif not told:
            found.append(name)
    return found


FLOW = ("model.recommended.", "reward.model.recommended.", "task.metrics")
"""Parts that are written in one line, with one comment."""


@pytest.mark.parametrize(
    "options",
    [
        "task=summarization",
        "task=translation rewards=[chrf,bleu,constant]",
        "task=classification model=tiny_seq2seq rewards=[label_accuracy,http,function] rollout=vllm",
        "task=qa model=hf model@reward.model=minilm rewards=[rouge_l,token_f1] rollout=generate",
        "optimizer@sft.optimizer=sgd optimizer@ppo.optimizer=adafactor optimizer@reward.optimizer=adam trainer=fsdp2",
    ],
)
def test_every_option_is_explained_by_its_config(options: str) -> None:
    made = composed(options.split())
    assert [name for name in unexplained(made, made.config, "", False) if not name.startswith("logger.")] == []
