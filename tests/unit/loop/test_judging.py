from pathlib import Path

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.items import Item, unanswered
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.feedback.simulated import Simulated
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.loop.judging import ask_file, ask_simulated, hidden_scores, project_of

JUDGE = "rlhf_lightning.tasks.qa.gold.score"


def item(i: int, right: str = "Oslo") -> Item:
    return Item(
        asked=Asked(text=f"question {i}", meta={"answers": [right], "references": [right]}),
        candidates=(Candidate(text="Rome"), Candidate(text=right)),
    )


def said(about: Item, annotator: str, **more) -> Event:
    given = {"payload": Pairwise(outcome="win", winner=0), **more}
    return Event(
        item=about.id,
        kind="pairwise",
        asked=about.asked,
        candidates=about.candidates,
        annotator=Annotator(id=annotator),
        **given,
    )


def test_a_question_is_answered_when_enough_different_people_have_judged_or_skipped_it():
    one = item(0)
    first = said(one, "a")
    assert unanswered([one], [], 1) == [one]
    assert unanswered([one], [first], 1) == []
    assert unanswered([one], [first, said(one, "a", id="again")], 2) == [one]
    assert unanswered([one], [first, said(one, "b", status="skipped", payload=None)], 2) == []
    assert unanswered([one], [said(one, "a", status="draft")], 1) == [one]
    taken_back = said(one, "a", status="retracted", payload=None, supersedes=first.id)
    assert unanswered([one], [first, taken_back], 1) == [one]
    skipped = said(one, "a", status="skipped", payload=None)
    undone = said(one, "a", status="retracted", payload=None, supersedes=skipped.id)
    assert unanswered([one], [skipped], 1) == []
    assert unanswered([one], [skipped, undone], 1) == [one]


def test_the_hidden_judge_sees_columns_and_references():
    assert hidden_scores(JUDGE, [item(0), item(1, "Lima")]) == [[0.0, 1.0], [0.0, 1.0]]


def test_simulated_people_share_the_questions_and_are_right_without_noise(tmp_path: Path):
    items = [item(i) for i in range(30)]
    with Store(tmp_path / "s.db") as store:
        ask_simulated(store, "loop", items, Simulated(noise=[0.0, 0.0, 0.0]), 2, JUDGE, 0)
        events = list(store.events("loop"))
        assert unanswered(items, events, 2) == []
    assert len(events) == 60
    assert all(event.payload.winner == 1 for event in events)  # type: ignore[union-attr]
    assert len({event.annotator.id for event in events}) == 3


def test_a_file_that_leaves_questions_open_says_which_and_what_to_do(tmp_path: Path):
    items = [item(0), item(1)]
    file = tmp_path / "log.jsonl"
    file.write_text('{"event": ' + said(items[0], "a").to_json() + "}\n")
    with Store(tmp_path / "s.db") as store:
        with pytest.raises(UserError, match=r"answers 1 of 2 questions.*questions\.jsonl.*resume=true"):
            ask_file(store, items, file, 1, tmp_path / "questions.jsonl")
        ask_file(store, items[:1], file, 1, tmp_path / "questions.jsonl")


def test_a_run_s_project_is_a_plain_name():
    assert project_of(Path("outputs/my task/2026-11-26_14-48-49")) == "loop-my-task-2026-11-26_14-48-49"
