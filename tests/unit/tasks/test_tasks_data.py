"""The committed sample data: made by the generator, no leakage, hard enough, and judged by noisy annotators."""

import importlib
import json
from pathlib import Path

import pytest
from rlhf_lightning.tasks.generate import FILES, write_files

TASKS = ["summarization", "translation", "qa", "classification"]
PROMPT = {
    "summarization": ["document"],
    "translation": ["source"],
    "qa": ["context", "question"],
    "classification": ["text"],
}
DEMONSTRATION = {"summarization": "reference", "translation": "reference", "qa": "answer", "classification": "label"}
BEST = {"summarization": "references", "translation": "references", "qa": "answer", "classification": "label"}
META = {"summarization": "facts", "translation": "words", "qa": "answers", "classification": "topic"}
HELD_OUT = ("validation", "test", "preferences_test")
LEARNT_FROM = ("train", "preferences")


def generator(task):
    return importlib.import_module(f"rlhf_lightning.tasks.{task}.make_data")


def folder(task):
    return Path(generator(task).__file__).parent


def rows(task, name):
    text = (folder(task) / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def score(task, completions, meta):
    gold = importlib.import_module(f"rlhf_lightning.tasks.{task}.gold")
    return gold.score([""] * len(meta), completions, [[]] * len(meta), meta)


def prompt(task, row):
    return tuple(row[column] for column in PROMPT[task])


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


def test_committed_files_are_what_the_generator_writes(task, tmp_path):
    write_files(tmp_path, generator(task).build())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.jsonl" for name in FILES)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder(task) / path.name).read_bytes(), path.name


def test_files_are_small(task):
    assert sum(path.stat().st_size for path in folder(task).glob("*.jsonl")) < 1_500_000


def test_every_row_has_its_columns_and_an_id_of_its_own(task):
    added = {
        "train": [DEMONSTRATION[task]],
        "validation": [BEST[task]],
        "test": [BEST[task]],
        "preferences": ["chosen", "rejected", "annotator"],
        "preferences_test": ["chosen", "rejected", "annotator"],
    }
    for name in FILES:
        of_file = rows(task, name)
        assert len({row["id"] for row in of_file}) == len(of_file)
        for row in of_file:
            assert set(row) == {"id", *PROMPT[task], *added[name], META[task]}
            assert all(value or column == "answers" for column, value in row.items())


def test_no_prompt_comes_twice(task):
    prompts = [prompt(task, row) for name in FILES for row in rows(task, name)]
    assert len(set(prompts)) == len(prompts)


def test_held_out_combinations_never_occur_where_the_models_learn(task):
    combinations = generator(task).combinations
    learnt = {pair for name in LEARNT_FROM for row in rows(task, name) for pair in combinations(row)}
    for name in HELD_OUT:
        for row in rows(task, name):
            assert combinations(row)
            assert not learnt & set(combinations(row)), row


def test_every_single_slot_value_of_held_out_rows_occurs_in_train(task):
    def slot_values(names):
        return {value for name in names for row in rows(task, name) for pair in combinations(row) for value in pair}

    def words(names):
        return {
            word for name in names for row in rows(task, name) for text in prompt(task, row) for word in text.split()
        }

    combinations = generator(task).combinations
    assert slot_values(HELD_OUT) <= slot_values(["train"])
    assert words(HELD_OUT) <= words(["train"])


def test_completions_of_held_out_rows_use_only_characters_of_train(task):
    known = {character for row in rows(task, "train") for character in row[DEMONSTRATION[task]]}
    for row in rows(task, "test"):
        best = row[BEST[task]]
        assert set("".join(best) if isinstance(best, list) else best) <= known


@pytest.mark.parametrize("name", ["validation", "test"])
def test_best_answers_of_held_out_rows_have_full_gold(task, name):
    for row in rows(task, name):
        best = row[BEST[task]] if isinstance(row[BEST[task]], list) else [row[BEST[task]]]
        assert score(task, best, [row] * len(best)).min() >= 0.99


def test_demonstrations_leave_room(task):
    of_file = rows(task, "train")
    gold = score(task, [row[DEMONSTRATION[task]] for row in of_file], of_file)
    assert 0.4 <= gold.mean() <= 0.8
    assert 0.35 <= (gold >= 0.99).float().mean() <= 0.75


@pytest.mark.parametrize("name", ["preferences", "preferences_test"])
def test_annotators_mostly_agree_with_gold(task, name):
    of_file = rows(task, name)
    assert all(row["chosen"] != row["rejected"] for row in of_file)
    chosen, rejected = (score(task, [row[side] for row in of_file], of_file) for side in ("chosen", "rejected"))
    gap = chosen - rejected
    assert (gap == 0).sum() == 0
    assert 0.08 <= (gap < 0).float().mean() <= 0.20
    assert gap.mean() > 0.2


def test_annotators_differ_in_care(task):
    of_file = rows(task, "preferences")
    contrary = {}
    for row in of_file:
        chosen, rejected = score(task, [row["chosen"], row["rejected"]], [row, row])
        contrary.setdefault(row["annotator"], []).append(bool(chosen < rejected))
    share = {annotator: sum(judged) / len(judged) for annotator, judged in contrary.items()}
    assert len(share) == 3
    assert share["ada"] < share["bo"] < share["cy"]


@pytest.mark.parametrize("name", ["preferences", "preferences_test"])
def test_length_does_not_tell_which_is_chosen(task, name):
    lengths = [(len(row["chosen"]), len(row["rejected"])) for row in rows(task, name)]
    differing = [chosen > rejected for chosen, rejected in lengths if chosen != rejected]
    assert 0.35 <= sum(differing) / len(differing) <= 0.65


def test_style_cannot_be_told_from_the_prompt():
    """Among demonstrations that share a slot value, full gold is about as frequent as in all."""
    of_file = rows("summarization", "train")
    good = score("summarization", [row["reference"] for row in of_file], of_file) >= 0.99
    overall = good.float().mean()
    for verb in {row["facts"].split()[1] for row in of_file}:
        chosen = [row["facts"].split()[1] == verb for row in of_file]
        assert abs(good[chosen].float().mean() - overall) < 0.15
