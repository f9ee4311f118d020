"""What there is to choose from, and what the configs say of themselves."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from rlhf_lightning import train
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support.asked import split
from rlhf_lightning.hydra_support.comments import config_folders, explained
from rlhf_lightning.hydra_support.listing import config_groups, help_text, listing

CONF = Path(__file__).parents[3] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_config_begins_with_what_it_is(path: Path) -> None:
    assert explained(path.read_text(encoding="utf-8")).title


def test_every_config_is_listed_with_its_first_line() -> None:
    told = listing(None, [])
    for path in FILES:
        group = path.parent.relative_to(CONF).as_posix()
        if group in (".", "paths") or group.startswith("hydra/"):
            continue
        title = explained(path.read_text(encoding="utf-8")).title
        assert any(line.split()[:1] == [path.stem] and title in line for line in told.split("\n")), path


def test_every_group_is_explained() -> None:
    for group in config_groups([CONF]):
        assert group.meaning, f"conf/train.yaml: the line of {group.name} in the defaults list has no comment"


def test_the_defaults_are_marked() -> None:
    marked = {g.name: [c.name for c in g.choices if c.default] for g in config_groups([CONF])}
    assert marked["task"] == ["summarization"]
    assert marked["model"] == ["tiny"]
    assert marked["optimizer"] == []


def test_a_users_own_configs_are_listed_before_ours(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("# Letters to the editor.\nname: mine\n")
    (tmp_path / "task" / "qa.yaml").write_text("# Mine, too.\nname: qa\n")
    told = listing("tasks", ["--config-dir", str(tmp_path)])
    assert "mine Letters to the editor." in " ".join(told.split())
    assert "Mine, too." in told
    assert "A passage and a question" not in told
    assert "mine" in help_text([f"--config-dir={tmp_path}"])


def test_a_folder_of_configs_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no such folder"):
        config_folders(["--config-dir", "nowhere"])


def test_a_folder_of_configs_that_is_not_named() -> None:
    with pytest.raises(UserError, match="--config-dir needs a folder"):
        listing(None, ["--config-dir"])


@pytest.mark.parametrize("command", ["--list", "--tree task=bad", "task=bad"])
def test_a_config_that_is_no_yaml(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hydra_process: None,
) -> None:
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "bad.yaml").write_text("# What it is.\nname:\tbad\n\tmore: 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["rlhf-train"])
    assert train.main([*command.split(), "--config-dir", "mine"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("rlhf-train: ")
    assert "bad.yaml" in said
    assert "line 2" in said


def test_metrics_are_listed_by_the_names_that_they_have() -> None:
    metrics = importlib.import_module("rlhf_lightning.metrics")
    named = [line.split()[0] for line in listing("metrics", []).split("\n")[1:]]
    from torchmetrics import Metric

    public = {n for n in metrics.__all__ if isinstance(c := getattr(metrics, n), type) and issubclass(c, Metric)}
    assert set(named) == public
    detectors = [line.split()[0] for line in listing("detectors", []).split("\n")[1:]]
    source = ast.parse(Path(metrics.__file__).with_name("detectors.py").read_text(encoding="utf-8"))
    there = {node.name for node in source.body if isinstance(node, ast.FunctionDef)}
    assert set(detectors) == there & set(metrics.__all__)


def test_an_unknown_kind() -> None:
    with pytest.raises(UserError, match=r"--list modles: there is no such kind. Did you mean model\?"):
        listing("modles", [])


def test_comments_are_told_from_values() -> None:
    text = '# What it is.\nname: "a # b"   # its name\nnested:   # a block\n  list: [1, 2]  # two\nplain: 1\n'
    told = explained(text)
    assert told.meanings == {"name": "its name", "nested": "a block", "nested.list": "two"}
    assert told.names == ["name", "nested", "nested.list", "plain"]
    assert told.title == "What it is."


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--list"], ("--list", None, [])),
        (["--list", "models", "--config-dir", "x"], ("--list", "models", ["--config-dir", "x"])),
        (["--tree", "task=qa"], ("--tree", None, ["task=qa"])),
        (["--tree", "-m"], ("--tree", None, ["-m"])),
    ],
)
def test_what_belongs_to_a_flag(arguments: list[str], found: tuple) -> None:
    assert split(arguments) == found


def test_the_help_names_what_it_should(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rlhf-train"])
    monkeypatch.setenv("COLUMNS", "200")
    assert train.main(["--help"]) == 0
    told = capsys.readouterr().out
    for part in ("--tree", "--list", "-sc install=bash", "dry_run=true", "qa, summarization, translation"):
        assert part in " ".join(told.split())
    assert max(map(len, told.split("Groups, chosen")[0].splitlines())) <= 120
