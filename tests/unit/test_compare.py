import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_lightning.compare import compare, csv_text, main
from rlhf_lightning.errors import UserError
from rlhf_lightning.report import PolicyResult, RunResults
from rlhf_lightning.report.runs import differing_settings, find_runs

GOLD = {("0.02", 0): 0.60, ("0.02", 1): 0.64, ("0.1", 0): 0.70, ("0.1", 1): 0.78}


def make_run(folder: Path, kl_coef="0.05", seed=0, gold=0.6, policies=("base", "sft", "ppo"), **changes) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(
        f"seed: {seed}\nppo:\n  kl_coef: {kl_coef}\n  lr: 1e-5\n  ref: ${{ppo.lr}}\nstages: [sft, ppo]\n"
        f"paths:\n  root: {folder}\ntrainer:\n  dirpath: {folder.name}\n  log: {folder.resolve()}/log\n"
        f"logger:\n  name: run-{folder.name}\n"
    )
    (folder / ".hydra" / "overrides.yaml").write_text(f"- ppo.kl_coef={kl_coef}\n- seed={seed}\n")
    metrics = {
        "base": {"gold": 0.3, "ter": 90.0, "kl": 0.0},
        "sft": {"gold": 0.5, "ter": 60.0, "kl": 1.0},
        "ppo": {"gold": gold, "ter": 50.0, "kl": 3.0},
    }
    fields = {
        "task": "qa",
        "seed": seed,
        "stages": ["sft", "ppo"],
        "objective": "gold",
        "policies": [PolicyResult(name, None, metrics[name]) for name in policies],
        "directions": {"gold": "max", "ter": "min", "kl": None},
        "columns": {"task": ["ter"], "reward": ["gold"], "guardrails": ["kl"]},
    }
    RunResults(**{**fields, **changes}).write(folder / "metrics.json")
    (folder / "ppo").mkdir()
    (folder / "ppo" / "metrics.csv").write_text(f"step,ppo/score,ppo/kl\n0,0.5,0.0\n1,{gold},2.0\n")
    return folder


@pytest.fixture
def sweep(tmp_path):
    for i, ((kl_coef, seed), gold) in enumerate(GOLD.items()):
        make_run(tmp_path / "multiruns" / "night" / str(i + 8), kl_coef, seed, gold)  # 8 9 10 11
    return tmp_path / "multiruns"


def table(fields):
    return {field.title: field.texts for field in fields}


def test_runs_are_found_below_in_natural_order_and_once(sweep):
    runs = find_runs([sweep / "night" / "9", sweep, sweep / "night"])
    assert [run.path.name for run in runs] == ["9", "8", "10", "11"]


def test_nothing_below_a_run_is_taken_for_a_run(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "ppo" / "metrics.json").write_text("{}")
    assert [found.path for found in find_runs([tmp_path])] == [run]


def test_latest_is_the_newest_folder(tmp_path):
    for age, name in ((300, "z"), (100, "a"), (200, "m")):
        make_run(tmp_path / name / "0")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "file").write_text("")
    assert [run.path for run in find_runs([tmp_path / "LATEST"])] == [tmp_path / "a" / "0"]
    make_run(tmp_path / "LATEST" / "real")
    assert [run.path.name for run in find_runs([tmp_path / "LATEST"])] == ["real"]


def test_only_settings_that_differ_are_shown(sweep):
    assert differing_settings(find_runs([sweep])) == {
        "ppo.kl_coef": ["0.02", "0.02", "0.1", "0.1"],
        "seed": ["0", "1", "0", "1"],
    }


def test_a_config_group_stands_for_the_settings_it_brings(tmp_path):
    for name, (rank, lr) in {"tiny": (4, 1), "hf": (8, 2)}.items():
        folder = make_run(tmp_path / name)
        (folder / ".hydra" / "config.yaml").write_text(
            f"model:\n  rank: {rank}\n  lr: {lr}\n  same: 1\nnew:\n  {name}: 1\n"
        )
        (folder / ".hydra" / "overrides.yaml").write_text(f"- model={name}\n- model.lr={lr}\n")
        choices = "".join(f"      {group}: {name}\n" for group in ("model", "logger", "hydra/launcher"))
        choices = f"hydra:\n  runtime:\n    choices:\n{choices}"
        (folder / ".hydra" / "hydra.yaml").write_text(choices)
    assert differing_settings(find_runs([tmp_path])) == {
        "model": ["hf", "tiny"],
        "model.lr": ["2", "1"],
        "new.hf": ["1", "-"],
        "new.tiny": ["-", "1"],
    }


def test_final_metrics_and_gains(sweep):
    fields = compare(find_runs([sweep]))
    assert table(fields) == {
        "run": ["8", "9", "10", "11"],
        "ppo.kl_coef": ["0.02", "0.02", "0.1", "0.1"],
        "seed": ["0", "1", "0", "1"],
        "gold": ["0.600", "0.640", "0.700", "0.780"],
        "gold over first": ["+0.300", "+0.340", "+0.400", "+0.480"],
        "gold over sft": ["+0.100", "+0.140", "+0.200", "+0.280"],
        "kl": ["3.00"] * 4,
        "ter": ["50.0"] * 4,
    }
    best = {field.title: set(field.best) for field in fields if field.best}
    assert best == {"gold": {3}, "gold over first": {3}, "gold over sft": {3}}


def test_a_metric_where_less_is_better(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", policies=("base", "sft"))
    fields = compare(find_runs([tmp_path]), metric="ter")
    assert table(fields) == {
        "run": ["a", "b"],
        "policy": ["ppo", "sft"],
        "ter": ["50.0", "60.0"],
        "ter over first": ["-40.0", "-30.0"],
        "ter over sft": ["-10.0", "-"],
        "kl": ["3.00", "1.00"],
    }
    assert [set(field.best) for field in fields] == [set(), set(), {0}, {0}, set(), set()]


def test_groups_part_by_task_and_count_the_runs_that_have_the_metric(tmp_path):
    for name, task, policies in (("a", "qa", ("ppo",)), ("b", "translation", ("ppo",)), ("c", "qa", ())):
        make_run(tmp_path / name, task=task, policies=policies)
    fields = table(compare(find_runs([tmp_path]), metric="gold", group_by="kl_coef"))
    values = fields[next(iter(fields))]
    assert [value.split(", ")[1] for value in values] == ["qa", "translation"]
    assert fields["n"] == ["1", "1"]


def test_group_by_gives_mean_and_standard_deviation(sweep):
    make_run(sweep / "night" / "12", "0.5", 0, 0.9)
    fields = {field.title: field for field in compare(find_runs([sweep]), group_by="kl_coef")}
    assert fields["kl_coef"].texts == ["0.02", "0.1", "0.5"]
    assert fields["n"].texts == ["2", "2", "1"]
    assert fields["gold"].numbers == pytest.approx([0.62, 0.74, 0.9])
    # Two values d apart have the sample standard deviation d / sqrt(2).
    assert fields["gold"].spread[:2] == pytest.approx([0.04 / 2**0.5, 0.08 / 2**0.5])
    assert fields["gold"].spread[2] is None
    assert fields["gold"].texts == ["0.620 ± 0.028", "0.740 ± 0.057", "0.900"]
    assert fields["gold over sft"].numbers == pytest.approx([0.12, 0.24, 0.4])
    assert fields["gold"].best == {2}
    assert "seed" not in fields


def test_runs_of_two_tasks_have_no_best(tmp_path):
    make_run(tmp_path / "a", gold=0.6)
    make_run(tmp_path / "b", gold=0.7, task="translation")
    fields = compare(find_runs([tmp_path]))
    assert table(fields)["task"] == ["qa", "translation"]
    assert not any(field.best for field in fields)


def test_an_unfinished_run_is_shown_as_such(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", policies=(), status="interrupted")
    shown = table(compare(find_runs([tmp_path])))
    assert shown["status"] == ["finished", "interrupted"]
    assert shown["policy"] == ["ppo", "-"]
    assert shown["gold"] == ["0.600", "-"]


def test_csv_is_unrounded(sweep):
    rows = list(csv.DictReader(io.StringIO(csv_text(compare(find_runs([sweep]), group_by="ppo.kl_coef")))))
    assert [float(row["gold"]) for row in rows] == pytest.approx([0.62, 0.74])
    assert [float(row["gold sd"]) for row in rows] == pytest.approx([0.04 / 2**0.5, 0.08 / 2**0.5], rel=1e-9)


def test_unknown_names_are_answered_with_those_there_are(sweep):
    runs = find_runs([sweep])
    with pytest.raises(UserError, match=r"--metric bleu: no run has it; there are: gold, ter, kl"):
        compare(runs, metric="bleu")
    with pytest.raises(UserError, match=r"--group-by lora .* differ: ppo.kl_coef, seed"):
        compare(runs, group_by="lora")


@pytest.mark.parametrize(
    "arguments", [["{}/nothing"], ["{}/nothing/LATEST"], ["{}", "--metric", "bleu"], ["{}", "--group-by", "x"]]
)
def test_mistakes_are_one_line_and_status_2(sweep, capsys, arguments):
    assert main([argument.format(sweep) for argument in arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("rlhf-compare: ")
    assert error.count("\n") == 1


def test_a_broken_run_is_named(sweep, capsys):
    (sweep / "night" / "9" / ".hydra" / "config.yaml").write_text("a: [1,\n")
    assert main([str(sweep)]) == 2
    assert "config.yaml: no valid YAML" in capsys.readouterr().err


def test_the_command_prints_and_writes(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page, sheet = tmp_path / "out.html", tmp_path / "out.csv"
    assert main([str(sweep / "LATEST"), "--html", str(page), "--csv", str(sheet)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[:5] == ["run", "ppo.kl_coef", "seed", "gold", "gold"]
    assert len(sheet.read_text().splitlines()) == 5
    text = page.read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Against the KL", "Learning curves: ppo"]
    assert text.count("<svg") == 4  # gold and score over KL; score and KL over steps
    assert "8: ppo.kl_coef=0.02, seed=0" in text
    assert "<td class=best>0.780</td>" in text
    assert "<script" not in text
    assert "http:" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


def test_a_narrow_screen_names_what_it_leaves_out(sweep, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert main([str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "No room for" in out
    assert "gold" in out.splitlines()[1]
    assert max(map(len, out.splitlines())) <= 50


def test_texts_of_runs_are_no_markup(tmp_path, capsys):
    make_run(tmp_path / "a", kl_coef="'<b>[red]x'")
    make_run(tmp_path / "b")
    assert main([str(tmp_path), "--html", str(tmp_path / "o.html")]) == 0
    assert "<b>[red]x" in capsys.readouterr().out
    assert "&lt;b&gt;[red]x" in (tmp_path / "o.html").read_text()


def test_importing_is_quick():
    heavy = "('torch', 'matplotlib', 'rich', 'hydra')"
    code = f"import sys, rlhf_lightning.compare; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
