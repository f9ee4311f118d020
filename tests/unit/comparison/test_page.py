"""The page's content: escaped, within its size, with what the script needs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from helpers.run_folders import HELD_OUT, write_run
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.comparison import page, page_data
from rlhf_lightning.comparison.page import comparison_page, marked_words
from rlhf_lightning.comparison.page_data import safe_json
from rlhf_lightning.comparison.rows import make_rows
from rlhf_lightning.comparison.significance import compare_rows
from rlhf_lightning.comparison.table import table_fields
from rlhf_lightning.report import RunResults, read_samples, write_samples
from rlhf_lightning.report.runs import find_runs


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for kl_coef, quality in (("0.02", 0.5), ("0.1", 0.9)):
        for seed in (1, 2):
            write_run(tmp_path / f"{kl_coef} {seed}", kl_coef, seed, quality)
    return tmp_path


def made(folder: Path, tested: bool = False) -> str:
    rows = make_rows(find_runs([folder]))
    tests = compare_rows(rows.rows) if tested else None
    return comparison_page(rows, table_fields(rows, tests=tests), tests, None)


def data_of(text: str) -> dict:
    return json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', text)[1])


@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=4))
def test_json_in_the_page_is_the_same_and_ends_nothing(value: object) -> None:
    text = safe_json(value)
    assert json.loads(text) == value
    assert not set("<\u2028\u2029") & set(text)


@given(st.text(), st.text())
def test_marked_words_are_the_texts(a: str, b: str) -> None:
    for text, shown in zip((a, b), marked_words(a, b), strict=True):
        assert re.sub("</?mark>", "", shown) == (page.html_text(text) or '<span class="dim">(empty)</span>')
    assert ("<mark>" in "".join(marked_words(a, b))) == (a != b)


def test_words_that_differ_are_marked() -> None:
    assert marked_words("a red <b>", "a green <b>") == (
        "a <mark>red</mark> &lt;b&gt;",
        "a <mark>green</mark> &lt;b&gt;",
    )
    assert marked_words("我有猫", "我有狗") == ("我有<mark>猫</mark>", "我有<mark>狗</mark>")


def test_it_has_all_parts_and_its_policy_lets_its_script_run_alone(sweep: Path) -> None:
    text = made(sweep, tested=True)
    assert re.findall("<h2[^>]*>(.*?)</h2>", text) == [
        "What is certain",
        "Results of the final policies",
        "Reward against KL",
        "Learning curves of PPO",
        "Settings and results",
        "Answers side by side",
    ]
    policy = re.search('Content-Security-Policy" content="(.*?)"', text)[1]
    assert policy.startswith("default-src 'none'; ")
    assert re.search(r"script-src 'sha256-[\w+/]{43}='$", policy)
    assert text.count("<script") == 2
    assert "http:" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    data = data_of(text)
    assert [policy["label"] for policy in data["policies"]][:2] == [
        "ppo.kl_coef=0.02, seed 1, base",
        "ppo.kl_coef=0.02, seed 1, sft",
    ]
    assert [data["policies"][i]["label"] for i in data["chosen"]] == [
        "ppo.kl_coef=0.02, seed 1, ppo",
        "ppo.kl_coef=0.1, seed 1, ppo",
    ]
    assert data["held"] == [HELD_OUT]
    assert data["table"].startswith("row,status,ppo.kl_coef")


def test_it_holds_as_many_answers_as_fit(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_data, "MOST_ANSWERS", 25)
    text = made(sweep)
    assert len(data_of(text)["sets"][0]) == 25
    assert "The page holds the first 25 of 60 held-out rows; all are in samples.jsonl." in text
    monkeypatch.setattr(page_data, "MOST_TEXT", 4000)
    assert 1 <= len(data_of(made(sweep))["sets"][0]) < 25


def test_one_run_shows_its_last_two_policies(tmp_path: Path) -> None:
    text = made(write_run(tmp_path / "run"))
    data = data_of(text)
    assert [data["policies"][i]["label"] for i in data["chosen"]] == ["run, sft", "run, ppo"]


def test_runs_without_files_still_have_a_table(tmp_path: Path) -> None:
    write_run(tmp_path / "a", samples=False)
    write_run(tmp_path / "b", "0.1", samples=False)
    text = made(tmp_path)
    assert "Answers side by side" not in text
    assert "ppo.kl_coef=0.1" in text


def test_nothing_finished_is_a_page_too(tmp_path: Path) -> None:
    text = made(write_run(tmp_path / "a", status="failed", policies=(), notes=["the run failed: <i>no</i>"]))
    assert "No run has finished." in text
    assert "&lt;i&gt;no&lt;/i&gt;" in text


@pytest.mark.parametrize(("unanswered", "other_task"), [(0.1, 0.1), (0.95, 0.1), (0.1, 0.97)])
def test_the_best_row_is_shown_also_where_rows_before_it_have_no_answers(
    tmp_path: Path, unanswered: float, other_task: float
) -> None:
    """Rows without answers, without a number and of another task are not taken for the best, nor counted."""
    write_run(tmp_path / "a", "0.01", samples=False, quality=unanswered)
    write_run(tmp_path / "b", "0.02", quality=0.5)
    write_run(tmp_path / "c", "0.03", quality=0.4)
    write_run(tmp_path / "d", "0.04", quality=0.9)
    folder = write_run(tmp_path / "e", "0.05", quality=0.6)
    results = RunResults.read(folder / "metrics.json")
    results.policies[-1].metrics["gold"] = math.nan
    results.write(folder / "metrics.json")
    write_run(tmp_path / "f", "0.06", task="translation", quality=other_task)
    data = data_of(made(tmp_path))
    labels = [data["policies"][i]["label"] for i in data["chosen"]]
    assert ["0.02" in labels[0], "0.04" in labels[1]] == [True, True]
    assert all(label.endswith(", ppo") for label in labels)


def test_the_model_that_runs_started_from_is_there_once(sweep: Path) -> None:
    """The first policy's answers: once where runs have the same, each where they differ."""
    texts = [f"nothing {row}" for row in range(HELD_OUT)]
    for folder in sorted(sweep.iterdir())[:3]:
        samples = read_samples(folder / "samples.jsonl")
        for sample in samples:
            sample.completions["base"], sample.scores["base"] = texts[sample.id], {"gold": 0.0}
        write_samples(folder / "samples.jsonl", samples)
    labels = [policy["label"] for policy in data_of(made(sweep))["policies"]]
    assert [label for label in labels if label.endswith(", base")] == [
        "ppo.kl_coef=0.02, seed 1, base",
        "ppo.kl_coef=0.1, seed 2, base",
    ]


@pytest.mark.parametrize(
    ("runs", "same", "said"),
    [
        (5, False, "What explains gold can be told once 6 runs have it."),
        (8, False, "What explains gold can&#x27;t be told: no setting has one value in several runs"),
        (8, True, "gold is the same in all runs: there is nothing to explain."),
    ],
)
def test_it_says_why_nothing_explains_the_objective(tmp_path: Path, runs: int, same: bool, said: str) -> None:
    for i in range(runs):
        folder = write_run(tmp_path / str(i), f"0.{i + 1}", seed=i, quality=0.5 + 0.05 * i)
        results = RunResults.read(folder / "metrics.json")
        results.policies[-1].metrics |= {"gold": 0.5} if same else {}
        results.policies[-1].metrics["kl"] = float(i)
        results.write(folder / "metrics.json")
    rows = make_rows(find_runs([tmp_path]))
    assert said in comparison_page(rows, table_fields(rows), None, None)
