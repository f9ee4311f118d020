import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.judged import ask
from helpers.run_folders import write_run

from rlhf_lightning.feedback.cli import default_store, main
from rlhf_lightning.feedback.events import Annotator
from rlhf_lightning.feedback.formats import log
from rlhf_lightning.feedback.from_run import items_of_run
from rlhf_lightning.feedback.report.build import build, read
from rlhf_lightning.feedback.report.html import report_page
from rlhf_lightning.feedback.simulated import Simulated
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.models import ModelSpec, RewardModel
from rlhf_lightning.report.human import read_human

EVIL = "</p><script>alert(1)</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """All tags of a page, and whatever names another place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.places: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.places += [value for name, value in attrs if name in ("src", "href", "srcset", "action") and value]
        assert not [name for name, _ in attrs if name.startswith("on")]


def evil_events():
    people = Simulated(noise=[0.3])
    events = []
    for event in ask(people, 40):
        asked = event.asked.model_copy(update={"text": EVIL + event.asked.plain, "meta": {"run": EVIL}})
        candidates = tuple(
            type(c).model_validate({"text": EVIL + c.text, "model": EVIL + str(c.model)}) for c in event.candidates
        )
        events.append(event.model_copy(update={"asked": asked, "candidates": candidates, "reason": EVIL}))
    return events


def test_hostile_text_is_escaped_and_nothing_is_fetched():
    page = report_page(build(evil_events(), EVIL))
    tags = Tags(page)
    assert not tags.names & {"script", "img", "iframe", "link", "object"}
    assert all(place.startswith("#") for place in tags.places)
    assert "alert(1)&lt;/script&gt;" in page
    assert "default-src 'none'" in page


def test_an_empty_log_is_refused_and_its_page_says_what_to_do(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text("")
    assert main(["report", "--log", str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "log.jsonl holds no judgements: name a file of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert "The log is empty" in report_page(build([], "x"))


def test_a_store_and_its_log_give_the_same_figures(tmp_path, capsys):
    with Store(tmp_path / "s.db") as store:
        store.add(ask(Simulated(noise=[0.1]), 30))
        (tmp_path / "log.jsonl").write_text("".join(line.text for line in log.write(store)))
    assert main(["report", "--store", str(tmp_path / "s.db"), "--out", str(tmp_path / "a")]) == 0
    assert main(["report", "--log", str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "b")]) == 0
    a, b = (read(tmp_path / name / "feedback.json") for name in "ab")
    assert a.model_dump(exclude={"made", "of"}) == b.model_dump(exclude={"made", "of"})
    assert "pairwise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store", "none.db", "--out", "x"], "there is no feedback store none.db"),
        (["--log", "none.jsonl", "--out", "x"], "none.jsonl"),
        (["--store", "none.db"], "there is no feedback store none.db"),
        (["--run", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_where_to_is_asked_once_there_is_a_store(tmp_path, capsys):
    with Store(tmp_path / "s.db") as store:
        store.add(ask(Simulated(noise=[0.1]), 2))
    assert main(["report", "--store", str(tmp_path / "s.db")]) == 2
    assert "--out FOLDER" in capsys.readouterr().err


def test_what_was_erased_is_counted_apart(tmp_path, capsys):
    place, out = str(tmp_path / "s.db"), tmp_path / "out"
    with Store(place) as store:
        events = [
            e.model_copy(update={"annotator": Annotator(id=f"p{i % 3}")}) for i, e in enumerate(ask(Simulated(), 9))
        ]
        store.add(events)
    assert main(["erase", "--store", place, "--annotator", "p1", "--yes"]) == 0
    capsys.readouterr()
    assert main(["report", "--store", place, "--out", str(out)]) == 0
    left = [e for e in events if e.annotator.id != "p1"]
    questions = len({e.item for e in left})
    said = " ".join(capsys.readouterr().out.split())
    assert f"{len(left)} events of 2 people on {questions} questions; {len(events) - len(left)} erased" in said
    counts = read(out / "feedback.json").counts
    assert (counts.events, counts.people, counts.questions, counts.erased) == (18, 2, questions, 9)
    for sums in (counts.by_status, counts.by_source, counts.by_role, counts.by_project):
        assert sum(sums.values()) == 18
    assert sum(day.count for day in counts.by_day) == sum(kind.logged for kind in counts.by_kind) == 18
    assert "9 erased" in (out / "feedback.html").read_text()


def judged_run(folder: Path, role: str = "annotator") -> Path:
    """A run, and what people say of its last two policies in its store: the newer one is better."""
    write_run(folder, quality=0.9)
    people = Simulated(noise=[0.2])
    events = []
    for item in items_of_run(folder):
        for k in range(2):
            event = people.judge(item, [0.4, 0.6], k)
            events.append(event.model_copy(update={"annotator": Annotator(id=f"p{k}", role=role)}))  # type: ignore[arg-type]
    with Store(folder / "feedback.db") as store:
        store.add(events)
    return folder


def test_a_run_has_what_people_say_in_its_report(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RLHF_FEEDBACK_STORE", raising=False)
    run = judged_run(tmp_path / "run")
    assert main(["report", "--run", str(run)]) == 0
    human = read_human(run)
    assert human is not None
    (one,) = human.preferred
    old, new = (policy.model for policy in items_of_run(run)[0].candidates)
    assert (one.policy, one.other, one.people) == (new, old, 2)
    assert one.comparisons == 2 * one.prompts == 2 * len(items_of_run(run))
    assert one.low is not None
    assert one.low < 0.731 < (one.high or 0)  # sigmoid(0.2 / 0.2)
    assert human.alpha is not None
    assert not human.simulated
    assert "People’s preferences" in (run / "report.html").read_text()
    assert (run / "feedback" / "feedback.html").is_file()
    assert "People: " in capsys.readouterr().out


def test_simulated_annotators_are_called_so(tmp_path, monkeypatch):
    monkeypatch.delenv("RLHF_FEEDBACK_STORE", raising=False)
    run = judged_run(tmp_path / "run", "simulated")
    assert main(["report", "--run", str(run)]) == 0
    human = read_human(run)
    assert human is not None
    assert human.simulated
    assert "Simulated annotators’ preferences" in (run / "report.html").read_text()


def test_the_store_of_a_run_lies_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("RLHF_FEEDBACK_STORE", raising=False)
    write_run(tmp_path / "run")
    assert default_store(tmp_path / "run") == str((tmp_path / "run").resolve() / "feedback.db")
    assert default_store(None) == "feedback.db"
    monkeypatch.setenv("RLHF_FEEDBACK_STORE", "elsewhere.db")
    assert default_store(tmp_path / "run") == "elsewhere.db"


def test_a_reward_model_is_held_against_people(tmp_path, model_dir):
    model = RewardModel.load(ModelSpec(str(model_dir("llama"))), max_prompt=40, max_completion=40, fresh_head=True)
    model.save(tmp_path / "reward")
    with Store(tmp_path / "s.db") as store:
        store.add(ask(Simulated(noise=[0.1]), 20, persons=[0]))
    arguments = ["--store", str(tmp_path / "s.db"), "--out", str(tmp_path / "a")]
    assert main(["report", *arguments, "--reward-model", str(tmp_path / "reward")]) == 0
    check = read(tmp_path / "a" / "feedback.json").reward_model
    assert check is not None
    assert check.pairs == 20
    assert check.accuracy.value is not None
    assert sum(one.pairs for one in check.bins) == 20
    assert "neither the store nor a run" in check.held_out
    assert "Reward model" in (tmp_path / "a" / "feedback.html").read_text()


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from rlhf_lightning.feedback.cli import main\n"
        "try: main(['report', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'sqlalchemy', 'matplotlib', 'pydantic'} & set(sys.modules)"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
