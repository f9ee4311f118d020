import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.run_folders import write_run

from rlhf_lightning import compare
from rlhf_lightning.compare import main, print_summary
from rlhf_lightning.comparison.rows import make_rows
from rlhf_lightning.comparison.table import csv_text, table_fields
from rlhf_lightning.errors import UserError
from rlhf_lightning.report import RunResults
from rlhf_lightning.report.runs import differing_settings, find_runs, natural

# Setting and seed to the share of words that the final policy gets right.
QUALITY = {("0.02", 0): 0.5, ("0.02", 1): 0.52, ("0.1", 0): 0.9, ("0.1", 1): 0.92}


@pytest.fixture
def sweep(tmp_path):
    for i, ((kl_coef, seed), quality) in enumerate(QUALITY.items()):
        write_run(tmp_path / "multiruns" / "night" / str(i + 8), kl_coef, seed, quality)  # 8 9 10 11
    return tmp_path / "multiruns"


def columns(fields):
    return {field.title: field.texts for field in fields}


def test_runs_are_found_below_in_natural_order_and_once(sweep):
    runs = find_runs([sweep / "night" / "9", sweep, sweep / "night"])
    assert [run.path.name for run in runs] == ["9", "8", "10", "11"]
    assert sorted(["1e-3", "0.02", "-1", "b10", "b9"], key=natural) == ["-1", "1e-3", "0.02", "b9", "b10"]


def test_nothing_below_a_run_is_taken_for_a_run(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "ppo" / "metrics.json").write_text("{}")
    assert [found.path for found in find_runs([tmp_path])] == [run]


def test_latest_is_the_newest_folder(tmp_path):
    for age, name in ((300, "z"), (100, "a"), (200, "m")):
        write_run(tmp_path / name / "0")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "file").write_text("")
    assert [run.path for run in find_runs([tmp_path / "LATEST"])] == [tmp_path / "a" / "0"]
    write_run(tmp_path / "LATEST" / "real")
    assert [run.path.name for run in find_runs([tmp_path / "LATEST"])] == ["real"]


def test_only_settings_that_differ_are_shown(sweep):
    assert differing_settings(find_runs([sweep])) == {
        "ppo.kl_coef": ["0.02", "0.02", "0.1", "0.1"],
        "seed": ["0", "1", "0", "1"],
    }


def test_a_config_group_stands_for_the_settings_it_brings(tmp_path):
    for name, (rank, lr) in {"tiny": (4, 1), "hf": (8, 2)}.items():
        folder = write_run(tmp_path / name)
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


@pytest.mark.parametrize(("own", "shown"), [("0.5", {"ppo.lr": ["0.5", "0.1"]}), ("0.1", {})])
def test_a_value_of_its_own_is_held_against_what_others_take_from_elsewhere(tmp_path, own, shown):
    for name, value in {"a": own, "b": "${model.recommended.lr}"}.items():
        text = f"model: {{recommended: {{lr: 0.1}}}}\nppo: {{lr: '{value}'}}\n"
        (write_run(tmp_path / name) / ".hydra" / "config.yaml").write_text(text)
    assert differing_settings(find_runs([tmp_path])) == shown


def test_several_options_of_a_group_are_a_choice(tmp_path):
    for name, choice in {"a": "[learned,chrf]", "b": "learned"}.items():
        folder = write_run(tmp_path / name)
        (folder / ".hydra" / "overrides.yaml").write_text(f"- rewards={choice}\n- stages=[sft,ppo]\n")
        chosen = "rewards: learned" if name == "b" else "other: x"
        (folder / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  runtime:\n    choices:\n      {chosen}\n")
    assert differing_settings(find_runs([tmp_path]))["rewards"] == ["[learned,chrf]", "learned"]


def test_a_secret_is_no_setting_to_show(tmp_path):
    for name in "ab":
        folder = write_run(tmp_path / name)
        with (folder / ".hydra" / "config.yaml").open("a") as config:
            config.write(f"server:\n  api_key: very-secret-{name}\n")
    assert "very-secret" not in str(find_runs([tmp_path]))


def test_the_table_has_mean_and_standard_deviation(sweep):
    rows = make_rows(find_runs([sweep]))
    fields = {field.title: field for field in table_fields(rows)}
    assert list(fields) == [
        "ppo.kl_coef",
        "n",
        "gold",
        "over start",
        "over sft",
        "kl",
        "chrf",
        "empty_rate",
        "eos_rate",
    ]
    values = [run.value("gold") for run in find_runs([sweep])]
    means = [(values[0] + values[1]) / 2, (values[2] + values[3]) / 2]
    assert fields["gold"].numbers == pytest.approx(means)
    # Two values d apart have the sample standard deviation d / sqrt(2).
    spread = [abs(values[0] - values[1]) / 2**0.5, abs(values[2] - values[3]) / 2**0.5]
    assert fields["gold"].spread == pytest.approx(spread)
    assert fields["gold"].texts == [f"{m:.3f} ± {s:.3f}" for m, s in zip(means, spread, strict=True)]
    assert fields["gold"].best == {1}
    assert fields["n"].texts == ["2", "2"]
    assert fields["over start"].numbers == pytest.approx(means)  # the base model has 0


def test_each_run_has_its_line_and_its_gains(sweep):
    shown = columns(table_fields(make_rows(find_runs([sweep]), each=True)))
    assert shown["run"] == ["8", "9", "10", "11"]
    assert shown["seed"] == ["0", "1", "0", "1"]
    assert shown["kl"] == ["2.00"] * 4
    assert all(text.startswith("+0.") for text in shown["over start"])
    assert "n" not in shown


def test_a_metric_where_less_is_better(sweep):
    (field,) = [f for f in table_fields(make_rows(find_runs([sweep])), "empty_rate") if f.title == "empty_rate"]
    assert field.direction == "min"
    write_run(sweep / "x", "0.3", empty=10)
    fields = table_fields(make_rows(find_runs([sweep])), "empty_rate")
    assert [f.title for f in fields] == ["ppo.kl_coef", "n", "empty_rate", "over start", "kl"]
    assert [f.best for f in fields if f.title == "empty_rate"] == [{0, 1}]


def test_runs_of_two_tasks_have_no_best(tmp_path):
    write_run(tmp_path / "a", quality=0.6)
    write_run(tmp_path / "b", quality=0.7, task="translation")
    fields = table_fields(make_rows(find_runs([tmp_path])))
    assert columns(fields)["task"] == ["qa", "translation"]
    assert not any(field.best for field in fields)


def test_csv_is_unrounded_and_has_what_takes_no_part(sweep):
    from rlhf_lightning.comparison.significance import compare_rows

    write_run(sweep / "broken", "0.1", 7, status="failed", policies=(), notes=["the run failed: nan"])
    rows = make_rows(find_runs([sweep]))
    tests = compare_rows(rows.rows)
    lines = list(csv.DictReader(io.StringIO(csv_text(rows, tests))))
    assert [line["row"] for line in lines] == ["ppo.kl_coef=0.02", "ppo.kl_coef=0.1", "broken"]
    assert [line["status"] for line in lines] == ["finished", "finished", "failed"]
    assert lines[2]["reason"] == "failed: nan"
    test = tests.differences[1]["gold"]
    for column, value in {
        "gold": test.value,
        "gold change": test.change,
        "gold low": test.low,
        "gold high": test.high,
        "gold p": test.p,
        "gold p corrected": test.corrected,
    }.items():
        assert float(lines[1][column]) == value
    assert lines[0]["gold change"] == ""
    assert lines[0]["seeds"] == "0 1"


def test_csv_has_the_settings_of_what_takes_no_part(tmp_path):
    """Options of config groups too, and the stages, which the settings hold in another form."""
    for name, option, stages in (("a", "tiny", ["sft", "ppo"]), ("b", "hf", ["sft"]), ("c", "hf", ["ppo"])):
        status = "failed" if name == "c" else "finished"
        folder = write_run(tmp_path / name, status=status, stages=stages)
        (folder / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  runtime:\n    choices:\n      model: {option}\n")
    lines = list(csv.DictReader(io.StringIO(csv_text(make_rows(find_runs([tmp_path]))))))
    told = {line["runs"]: (line["model"], line["stages"]) for line in lines}
    assert told == {"a": ("tiny", "sft, ppo"), "b": ("hf", "sft"), "c": ("hf", "ppo")}


def test_long_names_of_jobs_leave_room_for_results(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for i, kl_coef in enumerate(("0.02", "0.1")):
        write_run(tmp_path / f"{i}_ppo.kl_coef-{kl_coef}_rewards-learned-chrf_stages-sft-ppo", kl_coef, seed=i)
    assert main([str(tmp_path), "--each", "--no-tests"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if "…" in line]
    assert names == ["0_ppo.kl_…es-sft-ppo", "1_ppo.kl_…es-sft-ppo"]
    assert "gold" in lines[2]
    assert max(map(len, lines)) <= 80


def test_unknown_names_are_answered_with_those_there_are(sweep):
    runs = find_runs([sweep])
    with pytest.raises(UserError, match=r"--metric bleu: no finished run has it; there are: gold, chrf, kl"):
        table_fields(make_rows(runs), metric="bleu")
    with pytest.raises(UserError, match=r"--group-by lora .* differ: ppo.kl_coef, seed"):
        make_rows(runs, group_by="lora")


@pytest.mark.parametrize(
    "arguments",
    [
        ["{}/nothing"],
        ["{}/nothing/LATEST"],
        ["{}", "--metric", "bleu"],
        ["{}", "--group-by", "x"],
        ["{}", "--baseline", "x"],
        ["{}", "--against", "{}/nothing"],
        ["{}", "--against", "{}"],
    ],
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


def test_the_command_says_what_is_certain(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "130")
    write_run(sweep / "night" / "12", "0.1", 5, status="interrupted", policies=("base", "sft"))
    sheet = tmp_path / "out.csv"
    assert main([str(sweep / "LATEST"), "--csv", str(sheet)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:4] == ["ppo.kl_coef", "n", "gold", "↑"]
    assert "Against ppo.kl_coef=0.02 (seeds 0, 1):" in lines
    (said,) = [line for line in lines if line.startswith("• ppo.kl_coef=0.1 ")]
    assert said.startswith("• ppo.kl_coef=0.1 raises gold by 0.")
    assert any(line.startswith("Left out of all figures (1)") for line in lines)
    assert any(line.strip() == "• 12 (ppo.kl_coef=0.1, seed=5) interrupted" for line in lines)
    assert len(sheet.read_text().splitlines()) == 4


def test_a_narrow_screen_names_what_it_leaves_out(sweep, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert main([str(sweep), "--no-tests"]) == 0
    out = capsys.readouterr().out
    assert "No room for" in out
    assert "gold" in out.splitlines()[2]
    assert max(map(len, out.splitlines())) <= 50


def test_texts_of_runs_are_no_markup(tmp_path, capsys):
    write_run(tmp_path / "a", kl_coef="'<b>[red]x'")
    write_run(tmp_path / "b")
    assert main([str(tmp_path), "--no-tests", "--html", str(tmp_path / "o.html")]) == 0
    assert "<b>[red]x" in capsys.readouterr().out
    text = (tmp_path / "o.html").read_text()
    assert "&lt;b&gt;[red]x" in text
    assert "<b>[red]" not in text


@pytest.mark.parametrize(("quality", "status"), [(0.3, 1), (0.6, 0), (0.9, 0)])
def test_the_gate_fails_where_something_fell_for_certain(tmp_path, capsys, quality, status):
    for seed in (0, 1, 2):
        write_run(tmp_path / "old" / str(seed), seed=seed, quality=0.6)
        write_run(tmp_path / "new" / str(seed), "0.3", seed, quality)
    assert main([str(tmp_path / "new"), "--against", str(tmp_path / "old")]) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["baseline", "now", "change", "95", "%", "interval", "p", "(Holm)", "verdict"]
    assert [line.split()[0] for line in lines[1:]] == ["gold", "chrf", "Worse" if status else "Nothing"]
    verdicts = {0.3: "WORSE", 0.6: "no certain change", 0.9: "better"}
    assert lines[1].endswith(verdicts[quality])


def test_the_gate_refuses_what_it_can_not_compare(tmp_path, capsys):
    old = write_run(tmp_path / "old")
    for name, changes, message in (
        (
            "unfinished",
            {"status": "running"},
            "a run that is not finished: unfinished ended without a word, or is still running",
        ),
        ("other", {"task": "translation"}, "the baseline's task is qa, not translation"),
        ("bare", {"samples": False}, "nothing can be tested: there is no samples.jsonl"),
    ):
        run = write_run(tmp_path / name, **changes)
        assert main([str(run), "--against", str(old)]) == 2
        assert message in capsys.readouterr().err
    write_run(tmp_path / "two" / "a", "0.1")
    write_run(tmp_path / "two" / "b", "0.2")
    assert main([str(tmp_path / "two"), "--against", str(old)]) == 2
    assert "has 2 rows of runs (ppo.kl_coef)" in capsys.readouterr().err


def not_a_number(folder):
    results = RunResults.read(folder / "metrics.json")
    results.policies[-1].metrics["gold"] = float("nan")
    results.write(folder / "metrics.json")


def test_an_objective_that_is_no_number_any_more_fails_the_gate(tmp_path, capsys):
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new")
    not_a_number(new)
    assert main([str(new), "--against", str(old)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "gold was a number in the baseline and is none now, which is worse." in lines
    assert lines[-1] == "Worse for certain: gold"
    not_a_number(old)
    assert main([str(new), "--against", str(old)]) == 2
    assert "the objective, gold, is not a number in the baseline" in capsys.readouterr().err


def test_a_metric_that_is_no_number_is_left_out_of_the_comparison(tmp_path, capsys):
    write_run(tmp_path / "a")
    not_a_number(write_run(tmp_path / "b", "0.1"))
    assert main([str(tmp_path), "--html", str(tmp_path / "o.html"), "--csv", str(tmp_path / "o.csv")]) == 0
    assert "no test of gold in ppo.kl_coef=0.1" in " ".join(capsys.readouterr().out.split())


def test_a_fault_of_ours_is_not_taken_for_a_metric_that_fell(tmp_path, capsys, monkeypatch):
    from rlhf_lightning.comparison import gate

    def broken(runs, baseline):
        raise RuntimeError("a fault")

    run = write_run(tmp_path / "run")
    monkeypatch.setattr(gate, "against", broken)
    assert main([str(run), "--against", str(run)]) == 2
    assert "RuntimeError: a fault" in capsys.readouterr().err


def test_a_metric_in_the_current_folder_is_found(tmp_path):
    """As it is by rlhf-train: here by the console script, from a folder that is not on Python's path."""
    for name, kl_coef in (("a", "0.05"), ("b", "0.1")):
        config = write_run(tmp_path / "runs" / name, kl_coef) / ".hydra" / "config.yaml"
        config.write_text(config.read_text().replace("rlhf_lightning.metrics.ChrF", "my_own_metrics.Mine"))
    (tmp_path / "my_own_metrics.py").write_text("from rlhf_lightning.metrics import ChrF\nclass Mine(ChrF): pass\n")
    script = Path(sys.executable).parent / "rlhf-compare"
    done = subprocess.run([script, "runs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "no test of chrf" not in done.stdout
    assert "raises" in done.stdout or "nothing for certain" in done.stdout


def test_a_summary_never_raises(tmp_path, capsys, monkeypatch):
    folder = write_run(tmp_path / "0")
    (folder / "metrics.json").write_text("{")
    print_summary(tmp_path)
    assert "The runs can't be compared" in capsys.readouterr().err
    monkeypatch.setattr(compare, "find_runs", lambda paths: 1 / 0)
    print_summary(tmp_path)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_summary_prints_failed_jobs_too_and_is_quick_about_many_answers(sweep, capsys, monkeypatch):
    write_run(
        sweep / "night" / "12",
        "0.1",
        5,
        status="failed",
        policies=(),
        stages=[],
        notes=["the run failed: no such file"],
    )
    print_summary(sweep / "night")
    out = capsys.readouterr().out
    assert "raises gold" in out
    assert "• 12 (ppo.kl_coef=0.1, seed=5) failed: no such file" in out
    monkeypatch.setattr(compare, "SUMMARY_ANSWERS", 10)
    print_summary(sweep / "night")
    out = capsys.readouterr().out
    assert "raises" not in out
    assert f"For the tests, the curves and the answers: rlhf-compare {sweep / 'night'}" in out


def test_a_summary_of_failed_jobs_alone(tmp_path, capsys):
    write_run(tmp_path / "0", status="failed", policies=(), notes=["the run failed: no such file"])
    print_summary(tmp_path)
    assert "• 0 (seed=0) failed: no such file" in capsys.readouterr().out


def test_importing_is_quick():
    heavy = "('torch', 'matplotlib', 'rich', 'hydra')"
    code = f"import sys, rlhf_lightning.compare; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_row_needs_no_torch(tmp_path):
    write_run(tmp_path / "0")
    write_run(tmp_path / "1", seed=1)
    code = f"""
import sys
from rlhf_lightning.compare import main
assert main([{str(tmp_path)!r}, '--html', {str(tmp_path / "o.html")!r}]) == 0
print('torch' in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert Path(tmp_path / "o.html").is_file()
