"""What is learnt from judgements, and what reward models are measured on."""

from pathlib import Path

import pytest

from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.loop.judgements import JUDGEMENTS, QUESTIONS, Judgements, held_prompts
from rlhf_lightning.loop.questions import VERDICT


def item(i: int, strategy: str = "random", text: str = "b") -> Item:
    return Item(
        asked=Asked(text=f"prompt {i}"), candidates=(Candidate(text="a"), Candidate(text=text)), strategy=strategy
    )


def said(about: Item, outcome: str = "win") -> Event:
    return Event(
        item=about.id,
        kind="pairwise",
        asked=about.asked,
        candidates=about.candidates,
        annotator=Annotator(id="a"),
        payload=Pairwise(outcome=outcome, winner=0 if outcome == "win" else None),  # type: ignore[arg-type]
    )


class Loop:
    """A loop's folder, round after round."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.events = folder, list[Event]()
        self.told: list[str] = []
        self.judgements = Judgements(folder, TaskData(), 0, self.told.append)

    def round(self, number: int, items: list[Item], *outcomes: str) -> None:
        folder = self.folder / f"round_{number}"
        folder.mkdir()
        self.events += [said(one, outcome) for outcome in outcomes or ("win",) for one in items]
        (folder / QUESTIONS).write_text("".join(one.to_json() + "\n" for one in items))
        (folder / JUDGEMENTS).write_text("".join(event.to_json() + "\n" for event in self.events))


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def names(rows) -> set[str]:
    return {str(row.prompt.text) for row in rows}


def test_what_is_held_out_once_stays_so_and_what_was_learnt_is_never_held_out():
    first, second = [item(i) for i in range(40)], [item(i) for i in range(20, 80)]
    before, after = held_prompts([first], 0.1, 0), held_prompts([first, second], 0.1, 0)
    assert len(before) == 4
    assert len(after) == 8
    asked_first = {one.asked.text for one in first}
    assert after & asked_first == before


def test_verdicts_and_a_lone_new_prompt_are_not_held_out():
    assert held_prompts([[item(i, VERDICT) for i in range(20)]], 0.1, 0) == set()
    assert held_prompts([[item(0)], [item(0), item(1)]], 0.5, 0) == set()


def test_prompts_are_held_out_of_those_asked_at_random_as_many_as_of_all():
    items = [item(i, "random" if i % 5 == 0 else "margin") for i in range(50)]
    held = held_prompts([items], 0.1, 0)
    assert len(held) == 5
    assert held <= {str(one.asked.text) for one in items if one.strategy == "random"}
    assert len({frozenset(held_prompts([items], 0.1, seed)) for seed in range(9)}) > 1
    assert held_prompts([[item(i, "margin") for i in range(9)]], 0.1, 0) == set()


def test_no_prompt_of_a_round_is_learnt_from_and_measured_on_and_prompts_know_what_may_be_cut(loop: Loop):
    loop.round(1, [item(i) for i in range(20)], "win", "both_bad")
    loop.judgements.data.prompts = [PromptRow(Prompt(f"prompt {i}", (0, 3))) for i in range(20)]
    data = loop.judgements.rows(1)
    learnt = {row.prompt for row in (*data.preferences, *data.unpaired)}
    held = {row.prompt for row in (*data.preferences_test, *data.unpaired_test)}
    assert len(learnt) == 18
    assert len(held) == 2
    assert not learnt & held
    assert all(prompt.cut == (0, 3) for prompt in learnt | held)
    assert len(data.preferences_test) == 2
    assert len(data.unpaired_test) == 4


def test_reward_models_are_measured_on_pairs_asked_at_random_alone(loop: Loop):
    loop.round(1, [item(i) for i in range(20)])
    again = [item(i, "gap", "c") for i in range(20)]  # the same prompts, with other answers
    loop.round(2, [*again, *(item(i, "random" if i < 24 else "gap") for i in range(20, 40)), item(99, VERDICT)])
    held = names(loop.judgements.rows(1).preferences_test)
    data = loop.judgements.rows(2)
    assert len(held) == 2
    assert held < names(data.preferences_test)
    assert len(data.preferences_test) == 4
    assert all(row.rejected == "b" for row in data.preferences_test)  # none of those that were chosen
    assert names(data.preferences_test) - held <= {f"prompt {i}" for i in range(20, 24)}
    # What was said of other answers to a held-out prompt is neither learnt from nor measured on; nor are verdicts.
    assert not names(data.preferences) & names(data.preferences_test)
    assert len(data.preferences) == 20 - 2 + 20 - 2 + 20 - 2
    assert names(loop.judgements.asked_at_random(2)) == {f"prompt {i}" for i in range(20, 24)}
    assert len(loop.judgements.learnable(2)) == 60
    assert len(loop.judgements.pairs(2)) == 58


def test_where_all_that_was_preferred_is_held_out_it_is_learnt_from(loop: Loop):
    items = [item(i) for i in range(2)]
    (held,) = held_prompts([items], 0.1, 0)
    preferred = next(one for one in items if one.asked.text == held)
    (tied,) = (one for one in items if one is not preferred)
    loop.round(1, items, "tie")
    loop.events.append(said(preferred))
    (loop.folder / "round_1" / JUDGEMENTS).write_text("".join(event.to_json() + "\n" for event in loop.events))
    data = loop.judgements.rows(1)
    assert (len(data.preferences), len(data.preferences_test)) == (1, 0)
    assert tied.asked.text != held
    assert "none is held out" in loop.told[0]


def test_without_a_preference_the_loop_is_told_so(loop: Loop):
    loop.round(1, [item(i) for i in range(5)], "tie")
    with pytest.raises(UserError, match="no preference"):
        loop.judgements.rows(1)


def test_each_file_is_read_once(loop: Loop, monkeypatch):
    loop.round(1, [item(i) for i in range(5)])
    loop.judgements.rows(1)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("read again"))
    loop.judgements.rows(1)
    loop.judgements.asked_at_random(1)
