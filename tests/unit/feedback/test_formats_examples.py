"""Each format by an example of the fields that its source documents, and by what is wrong with bad files."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.formats import FORMATS, recognised
from rlhf_lightning.feedback.formats.common import UNKNOWN, Import
from rlhf_lightning.feedback.salt import pseudonym

SALT = b"salt"


def read(tmp_path: Path, name: str, *rows: Any, suffix: str = ".jsonl", **more: Any) -> list[Event]:
    path = tmp_path / f"file{suffix}"
    lines = json.dumps(list(rows)) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    path.write_text(lines)
    assert recognised(path) == name
    return list(FORMATS[name][0](path, Import(name, SALT, **more)))


def won(event: Event) -> tuple[str, str]:
    said: Any = event.payload
    return event.candidates[said.winner].text, event.candidates[1 - said.winner].text


USER = {"role": "user", "content": "Which way?"}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "texts"),
    [
        ({"prompt": "Snow is", "chosen": " white.", "rejected": " black."}, "Snow is", (" white.", " black.")),
        ({"chosen": "Snow is white.", "rejected": "Snow is black."}, "Snow is", (" white.", " black.")),
        (
            {"prompt": [USER], "chosen": [assistant("Left.")], "rejected": [assistant("Right.")]},
            [USER],
            ("Left.", "Right."),
        ),
        ({"chosen": [USER, assistant("Left.")], "rejected": [USER, assistant("Right.")]}, [USER], ("Left.", "Right.")),
    ],
)
def test_preferences_in_all_of_trls_forms(tmp_path, row, prompt, texts):
    (event,) = read(tmp_path, "preference", {**row, "source": "forum"})
    asked = event.asked.text
    assert (asked if isinstance(asked, str) else [turn.model_dump() for turn in asked]) == prompt
    assert won(event) == texts
    assert event.asked.meta == {"source": "forum"}
    assert (event.annotator.id, event.timing.submitted, event.shown.order) == (UNKNOWN, None, ())


def test_two_people_who_disagree_were_asked_one_question(tmp_path):
    one = {"prompt": "?", "chosen": "x", "rejected": "y"}
    first, second = read(tmp_path, "preference", one, {**one, "chosen": "y", "rejected": "x"})
    assert first.item == second.item
    assert {first.payload.winner, second.payload.winner} == {0, 1}


def test_unpaired_and_sft(tmp_path):
    (event,) = read(tmp_path, "unpaired", {"prompt": "Snow is", "completion": " white.", "label": True})
    assert (event.kind, event.payload.up, event.candidates[0].text) == ("thumbs", (True,), " white.")
    plain, chat = (
        read(tmp_path, "sft", row)[0]
        for row in ({"prompt": "Snow is", "completion": " white."}, {"messages": [USER, assistant("Left.")]})
    )
    assert (plain.payload.text, plain.candidates[0].text) == (" white.", " white.")  # nothing was corrected
    assert (chat.payload.text, chat.asked.plain) == ("Left.", "user: Which way?")


def test_hh(tmp_path):
    begin = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Which way?\n\nAssistant:"
    (event,) = read(tmp_path, "hh", {"chosen": f"{begin} Left.", "rejected": f"{begin} Right."})
    assert [turn.role for turn in event.asked.text] == ["user", "assistant", "user"]
    assert won(event) == ("Left.", "Right.")


COMPARISON = {
    "info": {"id": "t3_x", "post": "My cat sings.", "title": "Cat", "subreddit": "pets"},
    "summaries": [{"text": " A cat.", "policy": "sup1", "note": "Which cat?"}, {"text": " Song.", "policy": "ref"}],
    "choice": 1,
    "worker": "w1",
    "batch": "batch3",
    "split": "train",
    "extra": {"confidence": 8},
}


def test_tldr(tmp_path):
    (event,) = read(tmp_path, "tldr", COMPARISON)
    assert event.asked.text == "SUBREDDIT: r/pets\n\nTITLE: Cat\n\nPOST: My cat sings.\n\nTL;DR:"
    assert (event.asked.document, event.task) == ("t3_x", "summarization")
    assert won(event) == (" Song.", " A cat.")
    assert [c.model for c in event.candidates] == ["sup1", "ref"]
    assert event.annotator.id == pseudonym(SALT, "tldr:w1")
    (again,) = FORMATS["tldr"][1]([event], lambda *_: None)
    notes = [{**summary, "note": summary.get("note")} for summary in COMPARISON["summaries"]]
    assert json.loads(again) == {**COMPARISON, "summaries": notes, "worker": event.annotator.id}


def test_tldr_of_news_without_a_subreddit(tmp_path):
    info = {"id": "n1", "site": "cnn", "title": "Cat", "article": "It sings."}
    (event,) = read(tmp_path, "tldr", {**COMPARISON, "info": info})
    assert event.asked.text == "TITLE: Cat\n\nPOST: It sings.\n\nTL;DR:"


def node(name: str, role: str, text: str, *replies: dict, **more: Any) -> dict[str, Any]:
    return {"message_id": name, "role": role, "text": text, "lang": "en", "replies": list(replies), **more}


TREE = {
    "message_tree_id": "m0",
    "tree_state": "ready_for_export",
    "prompt": node(
        "m0",
        "prompter",
        "Which way?",
        node(
            "m1",
            "assistant",
            "Left.",
            node(
                "m3", "prompter", "Why?", node("m4", "assistant", "So.", rank=1), node("m5", "assistant", "As.", rank=0)
            ),
            rank=1,
            labels={"quality": {"value": 0.25, "count": 3}, "toxicity": {"value": None, "count": 0}},
        ),
        node("m2", "assistant", "Right.", rank=0, model_name="m", synthetic=True),
        node("m6", "assistant", "Gone.", rank=2, deleted=True),
        user_id="u1",
    ),
}


def test_oasst(tmp_path):
    first, rating, second = read(tmp_path, "oasst", TREE)
    assert ([c.text for c in first.candidates], first.payload.ranks) == (["Left.", "Right."], (2, 1))
    assert [c.model for c in first.candidates] == [None, "m"]
    assert (dict(rating.payload.values), rating.payload.low, rating.payload.high) == ({"quality": (0.25,)}, 0, 1)
    assert second.asked.plain == "user: Which way?\n\nassistant: Left.\n\nuser: Why?"
    assert second.payload.ranks == (2, 1)
    assert {e.asked.document for e in (first, rating, second)} == {"m0"}
    assert first.asked.person == pseudonym(SALT, "oasst:u1")
    (tree,) = FORMATS["oasst"][1]([first, rating, second], lambda *_: pytest.fail("left out"))
    again = json.loads(tree)["prompt"]
    assert [(r["text"], r["rank"]) for r in again["replies"]] == [("Left.", 1), ("Right.", 0)]
    assert again["replies"][0]["labels"] == {"quality": {"value": 0.25, "count": 3}}
    assert [r["rank"] for r in again["replies"][0]["replies"][0]["replies"]] == [1, 0]


VOTE = {
    "question_id": "q1",
    "model_a": "one",
    "model_b": "two",
    "winner": "model_b",
    "judge": "arena_user_1",
    "conversation_a": [USER, assistant("Left."), {"role": "user", "content": "Why?"}, assistant("So.")],
    "conversation_b": [USER, assistant("Right."), {"role": "user", "content": "Why?"}, assistant("As.")],
    "turn": 2,
    "anony": True,
    "language": "English",
    "tstamp": 1682351591.5,
    "toxic": False,
}


@pytest.mark.parametrize(
    ("winner", "outcome", "place"),
    [("model_a", "win", 0), ("model_b", "win", 1), ("tie", "tie", None), ("tie (bothbad)", "both_bad", None)],
)
def test_arena(tmp_path, winner, outcome, place):
    row = {**VOTE, "winner": winner}
    (event,) = read(tmp_path, "arena", row)
    assert (event.payload.outcome, event.payload.winner) == (outcome, place)
    assert [(c.model, c.text) for c in event.candidates] == [
        ("one", "Left.\n\nHuman: Why?\n\nAssistant: So."),
        ("two", "Right.\n\nHuman: Why?\n\nAssistant: As."),
    ]
    assert event.time == datetime(2023, 4, 24, 15, 53, 11, 500000, tzinfo=timezone.utc)
    assert (event.asked.language, event.shown.order, event.shown.blind) == ("en", (0, 1), True)
    (again,) = FORMATS["arena"][1]([event], lambda *_: None)
    assert json.loads(again) == {**row, "question_id": event.id, "judge": event.annotator.id}


def task(*results: dict, data: dict | None = None, **more: Any) -> dict[str, Any]:
    annotation = {
        "id": 1001,
        "completed_by": 10,
        "was_cancelled": False,
        "created_at": "2021-03-09T22:16:08.728353Z",
        "lead_time": 4.288,
        "result": list(results),
        **more,
    }
    told = data or {"prompt": "Which way?", "answer1": "Left 🙂 now.", "answer2": "Right."}
    return {"id": 1, "data": told, "annotations": [annotation], "predictions": []}


def result(kind: str, name: str, field: str, **value: Any) -> dict[str, Any]:
    return {"id": "r", "from_name": name, "to_name": field, "type": kind, "value": value}


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([result("pairwise", "pw", "answer1,answer2", selected="right")], {"outcome": "win", "winner": 1}),
        ([result("choices", "outcome", "prompt", choices=["both_bad"])], {"outcome": "both_bad"}),
        (
            [
                result("rating", "fluency_answer1", "answer1", rating=4),
                result("rating", "fluency_answer2", "answer2", rating=2),
            ],
            {"values": {"fluency": (4, 2)}, "low": 1, "high": 5},
        ),
        ([result("textarea", "fix", "answer2", text=["Right!"])], {"text": "Right!", "candidate": 1}),
        (
            [result("labels", "err", "answer1", start=7, end=10, text="now", labels=["Style"])],
            {"candidate": 0, "spans": [{"start": 7, "end": 10, "label": "Style"}]},
        ),
        (  # as older versions count: the emoji is two units
            [result("labels", "err", "answer1", start=8, end=11, text="now", labels=["Style"])],
            {"candidate": 0, "spans": [{"start": 7, "end": 10, "label": "Style"}]},
        ),
        ([result("choices", "toxic", "answer2", choices=["no"])], {"label": "no", "candidate": 1, "aspect": "toxic"}),
        (
            [result("choices", "thumbs", "answer2", choices=["down"])],
            {"up": (None, False)},
        ),
    ],
)
def test_label_studio(tmp_path, results, said):
    why = result("textarea", "comment", "prompt", text=["because"])
    (event,) = read(tmp_path, "label_studio", task(*results, why), suffix=".json")
    told = event.payload.model_dump(exclude_none=True)
    known = type(event.payload)(**said).model_dump(exclude_none=True)
    assert told == {**known, "rationale": "because"}
    assert event.timing.active_ms == 4288
    assert event.time == event.timing.submitted == datetime(2021, 3, 9, 22, 16, 8, 728353, tzinfo=timezone.utc)
    assert event.annotator.id == pseudonym(SALT, "label_studio:10")


def test_label_studio_ranker_and_skip(tmp_path):
    data = {"prompt": "Which way?", "items": [{"id": n, "title": n, "body": f"{n}!"} for n in ("l", "r", "up")]}
    ranked = task(result("ranker", "rank", "items", ranker=["up", "l", "r"]), data=data)
    ranking, skip = read(tmp_path, "label_studio", ranked, task(was_cancelled=True), suffix=".json")
    assert ([c.text for c in ranking.candidates], ranking.payload.ranks) == (["l!", "r!", "up!"], (2, 3, 1))
    assert (skip.status, skip.kind, skip.payload) == ("skipped", "pairwise", None)
    buckets = task(result("ranker", "rank", "items", ranker={"best": ["up"]}), data=data)
    with pytest.raises(UserError, match=r"file.json, row 1, annotation 1001: 'rank': .*no order"):
        read(tmp_path, "label_studio", buckets, suffix=".json")


def test_fields_of_other_names_are_named_by_the_user(tmp_path):
    data = {"req": "Which way?", "x": "Left.", "y": "Right.", "hint": "z"}
    row = task(result("pairwise", "pw", "text-1,text-2", selected="left"), data=data)
    with pytest.raises(UserError, match="say --prompt FIELD"):
        read(tmp_path, "label_studio", row, suffix=".json")
    with pytest.raises(UserError, match="name them with --candidate"):
        read(tmp_path, "label_studio", row, suffix=".json", prompt="req", candidates=("x", "y"))
    row["annotations"][0]["result"][0]["to_name"] = "x,y"
    (event,) = read(tmp_path, "label_studio", row, suffix=".json", prompt="req", candidates=("x", "y"))
    assert won(event) == ("Left.", "Right.")


RECORD = {
    "id": "rec1",
    "fields": {"prompt": "Which way?", "a": "Left.", "b": "Right."},
    "metadata": {"model_a": "one"},
    "responses": {
        "better": [{"value": "b", "user_id": "u1"}, {"value": "a", "user_id": "u2"}],
        "quality-a": [{"value": 6, "user_id": "u1"}],
        "comment": [{"value": "because", "user_id": "u1"}],
    },
}
SETTINGS = {
    "questions": [
        {"name": "better", "settings": {"type": "label_selection", "options": [{"value": "a"}, {"value": "b"}]}},
        {"name": "quality-a", "settings": {"type": "rating", "options": [{"value": v} for v in range(8)]}},
        {"name": "comment", "settings": {"type": "text"}},
    ]
}


def test_argilla_as_to_disk_writes_it(tmp_path):
    (tmp_path / ".argilla").mkdir()
    (tmp_path / ".argilla" / "settings.json").write_text(json.dumps(SETTINGS))
    better, quality, other = read(tmp_path, "argilla", RECORD, suffix=".json")
    assert (won(better), won(other)) == (("Right.", "Left."), ("Left.", "Right."))
    assert (dict(quality.payload.values), quality.payload.high) == ({"quality": (6, None)}, 7)
    assert (better.payload.rationale, other.payload.rationale) == ("because", None)
    assert better.annotator == quality.annotator != other.annotator
    assert better.candidates[0].model == "one"


def test_argilla_responses_with_a_status(tmp_path):
    values = {"ranking": {"value": [{"value": "b", "rank": 1}, {"value": "a", "rank": 1}]}}
    spans = {"err-a": {"value": [{"start": 0, "end": 4, "label": "Style"}]}}
    responses = [
        {"user_id": "u1", "values": values, "status": "submitted", "updated_at": "2024-05-31T12:00:00.5"},
        {"user_id": "u2", "values": spans, "status": "draft"},
        {"user_id": "u3", "values": None, "status": "discarded"},
    ]
    ranking, marks, skip = read(tmp_path, "argilla", {**RECORD, "responses": responses}, suffix=".json")
    assert (ranking.payload.ranks, ranking.status) == ((1, 1), "submitted")
    assert ranking.time == datetime(2024, 5, 31, 12, 0, 0, 500000, tzinfo=timezone.utc)
    assert (marks.status, marks.payload.spans[0].end) == ("draft", 4)
    assert skip.status == "skipped"


def test_argilla_without_settings_does_not_guess_what_a_text_is(tmp_path):
    with pytest.raises(UserError, match=r"row 1: the answer to 'tone' may be a label or a text"):
        read(tmp_path, "argilla", {**RECORD, "responses": {"tone": [{"value": "x", "user_id": "u"}]}}, suffix=".json")


def test_csv(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text(
        "kind,prompt,a,b,c,choice,annotator,time,ratings,team\n"
        "pairwise,Which way?,Left.,Right.,,b,Zoë,2024-05-31T12:00:00Z,,x\n"
        "ranking,Which way?,Left.,Right.,Up.,c > a = b,,,,\n"
        "thumbs,Which way?,'=Left.,'Tis.,,\"a up, b down\",,,,\n"
        'rating,Which way?,Left.,,,,,,"{""fluency"": [3]}",\n'
    )
    assert recognised(path) == "csv"
    pair, ranking, thumbs, rating = FORMATS["csv"][0](path, Import("csv", SALT))
    assert won(pair) == ("Right.", "Left.")
    assert (pair.annotator.id, pair.asked.meta) == (pseudonym(SALT, "csv:Zoë"), {"team": "x"})
    assert ranking.payload.ranks == (2, 2, 1)
    assert ([c.text for c in thumbs.candidates], thumbs.payload.up) == (["=Left.", "'Tis."], (True, False))
    assert dict(rating.payload.values) == {"fluency": (3.0,)}


def test_no_cell_is_a_formula():
    event = Event.model_validate(
        {
            "item": "i",
            "kind": "label",
            "asked": {"text": "=HYPERLINK(1)"},
            "candidates": [{"text": "@x"}],
            "annotator": {"id": "a"},
            "payload": {"kind": "label", "label": "-1"},
        }
    )
    text = "".join(FORMATS["csv"][1]([event], lambda *_: None))
    assert "'=HYPERLINK(1)" in text
    assert not [cell for cell in text.replace("\r\n", ",").split(",") if cell[:1] in ("=", "+", "-", "@")]


@pytest.mark.parametrize(
    ("name", "row", "told"),
    [
        ("preference", {"prompt": 3, "chosen": "a", "rejected": "b"}, "'prompt' must be a text"),
        ("preference", {"chosen": "a", "rejected": "b"}, "no beginning in common"),
        ("unpaired", {"prompt": "a", "completion": "b", "label": "maybe"}, "'label' must be true or false"),
        ("sft", {"messages": [USER]}, "ends with the assistant's message"),
        ("sft", {"messages": [{"role": "robot", "content": "x"}]}, "'messages.0'"),
        ("tldr", {**COMPARISON, "choice": 2}, "'choice' must be 0 or 1"),
        ("tldr", {**COMPARISON, "summaries": []}, "'summaries' must be two"),
        ("oasst", {**TREE, "prompt": {"role": "bot"}}, "'prompt.role'"),
        ("oasst", {**TREE, "prompt": node("m", "prompter", "x", {"role": "assistant"})}, "'prompt.replies.0.text'"),
        ("arena", {**VOTE, "winner": "me"}, "'winner' must be one of"),
        ("arena", {**VOTE, "tstamp": "soon"}, "'tstamp' must be a time"),
        ("label_studio", task(result("rating", "q", "answer1", rating=9)), "values.q"),
        ("label_studio", task(lead_time=-1), "'lead_time' must be seconds"),
        ("argilla", {**RECORD, "responses": 3}, "'responses' must be"),
        (
            "csv",
            {"kind": "pairwise", "prompt": "x", "a": "1", "b": "2", "choice": "d"},
            "'choice' must name one of a, b",
        ),
        ("csv", {"kind": "poll", "prompt": "x", "choice": "d"}, "'kind' must be one of"),
    ],
)
def test_a_bad_row_is_told_with_its_place_and_field(tmp_path, name, row, told):
    with pytest.raises(UserError, match=r"file\.jsonl, line 1") as error:
        read(tmp_path, name, row)
    assert told in str(error.value)
