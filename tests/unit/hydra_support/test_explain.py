"""Hydra's complaints, through the console script's own entry."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf.errors import ConfigKeyError

from rlhf_lightning import train
from rlhf_lightning.hydra_support import explain


@pytest.fixture
def message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Callable]:
    """What `rlhf-train` says to overrides that can't be composed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["rlhf-train"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")

    def run(*overrides: str) -> str:
        GlobalHydra.instance().clear()
        assert train.main(overrides) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert not list(tmp_path.iterdir())
        return said.err

    yield run
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["ppo.kl_coeff=0.1"], "rlhf-train: there is no option 'ppo.kl_coeff'. Did you mean 'ppo.kl_coef'?\n"),
        (["sft.trainer.max_epoch=1"], "Did you mean 'sft.trainer.max_epochs'?"),
        (["sft.epochs=3"], "Did you mean 'sft.trainer.max_epochs'?"),
        (["polcy=x"], "Did you mean 'policy'?"),
        (["rewards=chrf", "ppo.rewards.chfr.weight=2"], "Did you mean 'ppo.rewards.chrf.weight'?"),
        (["zzzzzz=x"], "`rlhf-train --tree` shows all options"),
        (["task=translatoin"], "rlhf-train: there is no task 'translatoin'. Did you mean task=translation?"),
        (["task=zzz"], "There are: classification, continuation, dialogue, qa, summarization, translation."),
        (["logger=[wandb,tensorbord]"], "there is no logger 'tensorbord'"),
        (["optimizer@sft.optimizer=adamx"], "Did you mean optimizer=adam"),
        (["ppo.epochs=[1"], "rlhf-train: 'ppo.epochs=[1' can't be read as an option"),
        (["seed=1,2"], "Several values make a sweep: give -m before all options"),
        (["task=null"], "a group can't be null"),
    ],
)
def test_a_hint_at_what_was_meant(message, overrides: list[str], said: str) -> None:
    got = message(*overrides)
    assert said in got
    assert got.count("\n") == 1


def test_other_errors_keep_their_first_line_and_their_cause() -> None:
    error = ConfigKeyError("some trouble\n    full_key: a.b")
    assert explain(error) == "some trouble"
    error.__cause__ = ValueError("the reason\nmore")
    assert explain(error) == "some trouble: the reason"
