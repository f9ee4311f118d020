"""The page on which people judge, in a real browser, in front of a real server."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from judges import HEADING, READY, Server, enter

from rlhf_lightning.feedback.payloads import Correction, Pairwise, Ranking, Spans, Thumbs
from rlhf_lightning.feedback.store import Store

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

ONE_OF_EACH: list[dict[str, Any]] = [
    {"prompt": "Which?", "candidates": ["Yes.", "No, because **x**."], "kind": "pairwise", "priority": 9},
    {"prompt": "Rank.", "candidates": ["First", "Second", "Third"], "kind": "ranking", "priority": 8},
    {
        "prompt": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
        "candidates": ["One", "Two"],
        "kind": "rating",
        "aspects": ["helpful", "fluent"],
        "priority": 7,
    },
    {"prompt": "Good?", "candidates": ["Water is wet."], "kind": "thumbs", "priority": 6},
    {"prompt": "Several good?", "candidates": ["A", "B", "C"], "kind": "thumbs", "priority": 5},
    {"prompt": "Mend.", "candidates": ["Teh cat\r\nsat."], "kind": "correction", "priority": 4},
    {
        "prompt": "Mark.",
        "candidates": ["The 😀 hound did run fast."],
        "kind": "spans",
        "labels": ["accuracy", "style"],
        "priority": 3,
    },
    {"prompt": "Label.", "candidates": ["Shares fell."], "kind": "label", "labels": ["sport", "news"], "priority": 2},
]
NAMELESS = {
    "button",
    "textbox",
    "radio",
    "checkbox",
    "combobox",
    "spinbutton",
    "progressbar",
    "link",
    "dialog",
    "meter",
}
"""Roles of what can be used or read off: each needs a name."""


def pairs(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"Question {i}?", "candidates": [f"Yes {i}.", f"No {i}."], "priority": 50} for i in range(count)]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    chromium.call("Emulation.setEmulatedMedia", features=[])
    chromium.events.clear()
    return chromium


class Servers:
    """Servers of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, list[Server]()

    def __call__(self, items: list[dict[str, Any]], *options: str) -> Server:
        self.made.append(Server(self.folder / str(len(self.made)), items, *options))
        return self.made[-1]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    for server in servers.made:
        server.close()


def answered(browser: Browser, *keys: str) -> None:
    """Press keys, the last of which submits, and wait for what comes next."""
    before = browser.js("document.querySelector('.far').textContent")
    for key in keys:
        browser.press(*key.split("+")[::-1])
    browser.until(f"document.querySelector('.far').textContent !== {json.dumps(before)}")
    browser.until(READY)
    assert browser.js("document.activeElement !== document.body"), "the focus was lost"


def next_judgement(browser: Browser, answer: str) -> None:
    """Let the page's next judgement be answered by this promise, which may send it: ``real(url, options)``.

    (DevTools may begin to hold requests up too late.)
    """
    browser.js(f"""{{
        const real = window.fetch;
        window.fetch = (url, options) => {{
            if (!String(url).endsWith("/api/judgements")) return real(url, options);
            window.fetch = real;
            return {answer};
        }};
    }}""")


def original(event: Any) -> list[str]:
    """The candidates' texts in the order in which they were shown."""
    return [event.candidates[i].text for i in event.shown.order]


def check_quiet(browser: Browser, server: Server) -> None:
    """Nothing was asked of another place, and nothing complained of."""
    urls = [event["request"]["url"] for event in browser.reported("Network.requestWillBeSent")]
    # Chromium draws a text field's own corner from a data: address; the page's own would break its policy.
    assert not [url for url in urls if not url.startswith((server.address, "about:", "data:"))]
    assert not browser.reported("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


def check_named(browser: Browser) -> None:
    """Whatever can be used has a name for those who don't see it."""
    nodes = browser.accessible()
    assert not [node for node in nodes if node["role"] in NAMELESS and not node["name"].strip()]
    place = "dialog" if browser.js("!!document.querySelector('dialog[open]')") else "main"
    assert {place, "button", "heading"} <= {node["role"] for node in nodes}


# --- all kinds of questions ------------------------------------------------------------------------------------------


def test_every_kind_of_question_by_keyboard_alone(browser: Browser, serve: Servers) -> None:
    server = serve(ONE_OF_EACH, "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    assert "Which answer is better?" in browser.js(HEADING)
    check_named(browser)
    answered(browser, "2")
    check_named(browser)
    # 3 first, 1 and 2 tied behind it; then 3 is moved into the tie and out of it, to the end.
    for key in ("3", "1", "0", "2"):
        browser.press(key)
    browser.js("document.querySelector('[data-chip=\"2\"]').focus()")
    for key in ("ArrowDown", "ArrowDown"):
        browser.press(key)
    assert browser.js("document.activeElement.dataset.chip") == "2", "what is moved keeps the focus"
    answered(browser, "Enter")
    check_named(browser)
    answered(browser, "5", "4", "3", "2", "Enter")
    answered(browser, "2")
    # A second press says bad, a third takes it back.
    answered(browser, "1", "2", "2", "3", "3", "3", "Enter")
    check_named(browser)
    browser.press("e")
    browser.press("Home", "Ctrl")
    for _ in range(3):
        browser.press("Delete")
    browser.type("The")
    browser.until("document.querySelector('.difference del')")
    assert browser.js("document.querySelector('.difference del').textContent") == "Teh"
    assert browser.js("document.querySelector('.difference ins').textContent") == "The"
    answered(browser, "Ctrl+Enter")
    # Words 3 and 4, then 4 and 5 without its last letter: two marks that overlap, after a letter beyond the BMP.
    for key in ("ArrowRight",) * 3:
        browser.press(key)
    browser.press("ArrowRight", "Shift")
    browser.press("1")
    browser.press("ArrowRight")
    browser.press("ArrowLeft", "Shift")
    browser.press("ArrowLeft", "Ctrl")
    browser.press("2")
    browser.until("document.querySelectorAll('.marks li').length === 2")
    check_named(browser)
    answered(browser, "Enter")
    check_named(browser)
    answered(browser, "2")
    browser.until("/All done for now/.test(document.body.innerText)")
    assert "If more questions come, they appear here by themselves." in browser.js("document.body.innerText")
    check_named(browser)
    check_quiet(browser, server)

    said = {(event.kind, len(event.candidates)): event for event in server.holding()}
    assert len(said) == len(ONE_OF_EACH)
    choice = said["pairwise", 2]
    assert isinstance(choice.payload, Pairwise)
    assert (choice.payload.outcome, choice.payload.winner) == ("win", choice.shown.order[1])
    ranked = said["ranking", 3]
    assert isinstance(ranked.payload, Ranking)
    assert [ranked.payload.ranks[i] for i in ranked.shown.order] == [1, 1, 2]
    rated = said["rating", 2]
    assert {a: [v[i] for i in rated.shown.order] for a, v in rated.payload.values.items()} == {
        "helpful": [5, 3],
        "fluent": [4, 2],
    }
    assert said["thumbs", 1].payload.up == (False,)
    several = said["thumbs", 3]
    assert isinstance(several.payload, Thumbs)
    assert [several.payload.up[i] for i in several.shown.order] == [True, False, None]
    corrected = next(event for event in server.holding() if event.kind == "correction").payload
    assert isinstance(corrected, Correction)
    assert corrected.text == "The cat\nsat."
    marks = next(event for event in server.holding() if event.kind == "spans").payload
    assert isinstance(marks, Spans)
    text = "The 😀 hound did run fast."
    assert [(text[s.start : s.end], s.label) for s in marks.spans] == [("hound did", "accuracy"), ("did ru", "style")]
    assert next(event for event in server.holding() if event.kind == "label").payload.label == "news"
    for event in server.holding():
        assert event.timing.shown <= event.timing.first_action <= event.timing.submitted
        assert 0 < event.timing.active_ms < 60_000


def test_an_untouched_correction_comes_back_as_it_was(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[5]], "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    answered(browser, "Enter")
    assert server.holding()[0].payload.text == "Teh cat\r\nsat."


def test_details_skips_and_incomplete_answers(browser: Browser, serve: Servers) -> None:
    server = serve([*pairs(2), ONE_OF_EACH[1]], "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    browser.press("r")
    browser.type("It is shorter 1 2 s.")  # letters that would be keys elsewhere
    browser.press("Escape")
    browser.press("1")
    browser.js("document.querySelectorAll('.details input')[1].click()")
    answered(browser, "Ctrl+Enter")
    browser.until("/Question 2/.test(document.getElementById('question')?.textContent)")
    browser.press("s")
    browser.until("document.querySelector('dialog[open]')")
    check_named(browser)
    browser.press("3")
    answered(browser, "Enter")
    browser.press("Enter")  # nothing is ranked yet
    browser.until("/rank every answer/.test(document.getElementById('banner').textContent)")
    first, second = [event for event in server.log() if event.status != "draft"]
    payload = first.payload
    assert (payload.rationale, payload.strength, payload.outcome) == ("It is shorter 1 2 s.", 2, "win")
    assert (second.status, second.reason, second.payload) == ("skipped", "language", None)


def test_single_keys_can_be_switched_off(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(1), "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    browser.press("?", "Shift")
    browser.until("document.querySelector('dialog[open] .keys')")
    check_named(browser)
    browser.press(" ")
    browser.press("Escape")
    browser.until("!document.querySelector('dialog')")
    browser.press("1")
    time.sleep(0.5)
    assert server.log() == []
    browser.press("?", "Shift")
    browser.press(" ")
    browser.press("Escape")
    browser.until("!document.querySelector('dialog')")
    answered(browser, "1")
    assert len(server.holding()) == 1


# --- mouse and finger ------------------------------------------------------------------------------------------------


def ranked_by(browser: Browser, server: Server, drag: Any) -> list[int]:
    """Put 2 first, 1 below it, 3 in a tie with 1, each by dragging."""
    enter_at = browser.centre
    drag(enter_at('[data-chip="1"]'), enter_at('.gap[data-gap="0"]'))
    browser.until("document.querySelectorAll('.tier').length === 1")
    drag(enter_at('[data-chip="0"]'), enter_at('.gap[data-gap="1"]'))
    browser.until("document.querySelectorAll('.tier').length === 2")
    drag(enter_at('[data-chip="2"]'), enter_at('.tier[data-tier="1"] .rank'))
    browser.until("document.querySelector('.pool').hidden")
    browser.js("document.querySelector('.submit button').click()")
    browser.until("/All done/.test(document.body.innerText)")
    event = server.holding()[0]
    return [event.payload.ranks[i] for i in event.shown.order]


def test_arrow_keys_scroll_and_judge_nothing(browser: Browser, serve: Servers) -> None:
    row = {"prompt": "Good?", "candidates": ["Water is wet.\n\n" * 100], "kind": "thumbs"}
    server = serve([row, {**row, "prompt": "And this?"}], "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        browser.press(key)
    answered(browser, "1")
    (said,) = server.holding()
    assert said.payload.up == (True,)


def test_ranking_by_dragging_with_the_mouse(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[1]], "--annotators", "1")
    enter(browser, server.links["annotator"][0], height=1000)
    assert ranked_by(browser, server, browser.drag) == [2, 1, 2]


def test_ranking_by_dragging_with_a_finger(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[1]], "--annotators", "1")
    enter(browser, server.links["annotator"][0], width=390, height=1400, mobile=True)
    assert ranked_by(browser, server, browser.touch_drag) == [2, 1, 2]


def test_spans_by_mouse(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[6]], "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    # From before "hound" to after "did".
    at = "const r = document.createRange(); const n = document.querySelector('.markable').firstChild.firstChild;"
    place = (
        "{} r.setStart(n, {}); r.setEnd(n, {}); const b = r.getBoundingClientRect(); return [b.{}, b.y + b.height/2]"
    )
    start = browser.js(f"(() => {{{place.format(at, 7, 12, 'left')}}})()")
    end = browser.js(f"(() => {{{place.format(at, 13, 16, 'right')}}})()")
    browser.drag(tuple(start), tuple(end))
    browser.until("/hound did/.test(document.querySelector('.chosen-text').textContent)")
    x, y = browser.centre(".bar .choice:last-child")
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    browser.until("document.querySelectorAll('.marks li').length === 1")
    browser.js("document.querySelector('.submit button').click()")
    browser.until("/All done/.test(document.body.innerText)")
    (mark,) = server.holding()[0].payload.spans
    assert (mark.start, mark.end, mark.label) == (6, 15, "style")


def test_a_phone(browser: Browser, serve: Servers) -> None:
    long = {"prompt": "Long?", "candidates": ["word " * 500, "x" * 3000], "context": "y" * 5000, "priority": 20}
    wide = {"prompt": "Wide?", "candidates": ["|a|b|\n|-|-|\n|" + "z" * 300 + "|c|", "```\n" + "code " * 200 + "\n```"]}
    server = serve([long, *ONE_OF_EACH, wide], "--annotators", "1")
    enter(browser, server.links["annotator"][0], width=360, height=740, mobile=True)
    small = (
        "[...document.querySelectorAll('button, select, summary, input:not([type=radio]), .option, textarea')]"
        ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 43.5).map((e) => e.outerHTML)"
    )
    taps = {
        "pairwise": [".bar .choice"],
        "ranking": ['[data-chip="0"]', '[data-chip="2"]', '[data-chip="1"]', ".submit button"],
        "rating": [".scale .option:nth-child(3)", ".submit button"],
        "thumbs": [".choice", ".submit button"],
        "correction": [".submit button"],
        "spans": [".submit button"],
        "label": [".labels .option", ".submit button"],
    }
    for _ in range(10):
        assert browser.js("document.documentElement.scrollWidth") <= 360
        assert browser.js(small) == []
        words = browser.js(HEADING)
        kind = next(
            k
            for k, word in zip(
                taps, ("Which answer is", "Rank", "Rate", "good", "Correct", "Mark", "label"), strict=True
            )
            if word in words
        )
        before = browser.js("document.querySelector('.far').textContent")
        one = not browser.js("!!document.querySelector('.submit button')?.checkVisibility()")
        for selector in taps[kind][:1] if one else taps[kind]:
            browser.tap(selector)
        browser.until(f"document.querySelector('.far').textContent !== {json.dumps(before)}")
        browser.until(READY)
    assert len(server.holding()) == 10
    check_quiet(browser, server)


# --- several people, tabs, and a server that dies --------------------------------------------------------------------


def test_two_people_at_once(browser: Browser, serve: Servers, tmp_path: Path) -> None:
    server = serve(pairs(6), "--annotators", "2")
    other = Browser(tmp_path / "other")
    try:
        for one, link in zip((browser, other), server.links["annotator"], strict=True):
            enter(one, link)
        asked = "document.querySelector('.beside .text').textContent"
        for _ in range(3):
            assert browser.js(asked) != other.js(asked), "both were given the same question"
            for one in (browser, other):
                answered(one, "1")
        for one in (browser, other):
            one.until("/All done/.test(document.body.innerText)", 30)
    finally:
        other.close()
    said = server.holding()
    assert len(said) == len({event.item for event in said}) == 6
    assert len({event.annotator.id for event in said}) == 2


def test_two_tabs(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(4), "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    second = browser.tab()
    second.open(server.address, 1200)
    second.until(READY)
    asked = "document.querySelector('.beside .text').textContent"
    first, other = browser.js(asked), second.js(asked)
    assert first != other
    answered(browser, "1")
    answered(second, "2")
    second.reload()
    second.until(READY)
    assert len({browser.js(asked), second.js(asked), first, other}) == 4
    answered(second, "b")
    answered(browser, "0")
    assert len({event.item for event in server.holding()}) == 4
    second.call("Page.close")


def test_a_question_is_for_others_once_its_person_goes(browser: Browser, serve: Servers, tmp_path: Path) -> None:
    server = serve([ONE_OF_EACH[5]], "--annotators", "2")
    other = Browser(tmp_path / "other")
    nothing = "/Nothing to judge right now/.test(document.getElementById('question')?.textContent)"
    try:
        enter(browser, server.links["annotator"][0])
        browser.reload()
        browser.until(READY)
        enter(other, server.links["annotator"][1])
        assert other.js(nothing)
        browser.open("about:blank", 1200)
        other.open("about:blank", 1200)
        other.open(server.address, 1200)
        other.until("document.querySelector('main textarea')")
        other.press("e")
        other.type("Begun ")
        other.until("/Draft saved/.test(document.getElementById('draft-state').textContent)")
        other.open("about:blank", 1200)
        browser.open(server.address, 1200)
        browser.until(nothing)  # what was begun is kept
    finally:
        other.close()


def test_a_killed_server_loses_nothing(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(3), "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    server.kill()
    browser.press("1")
    browser.until("/doesn't answer/.test(document.getElementById('banner').textContent)")
    kept = "Object.keys(localStorage).filter((key) => key.includes('outbox')).length"
    assert browser.js(kept) == 1
    server.start()
    browser.until("/Question 2/.test(document.getElementById('question')?.textContent)")
    assert browser.js(kept) == 0
    assert len(server.holding()) == 1
    # Once more, and the page is gone before the server is back.
    server.kill()
    browser.press("2")
    browser.until("/doesn't answer/.test(document.getElementById('banner').textContent)")
    browser.open("about:blank", 1200)
    server.start()
    browser.open(server.address, 1200)
    browser.until(READY)
    browser.until("/Question 3/.test(document.getElementById('question')?.textContent)")
    first, second = server.holding()
    assert first.payload.winner == first.shown.order[0]
    assert second.payload.winner == second.shown.order[1]


def test_an_answer_lost_on_its_way_is_stored_once(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(2), "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    reset = "new Promise((_, reject) => { window.lose = () => reject(new TypeError('reset')); })"
    next_judgement(browser, f"real(url, options).then(() => {reset})")
    browser.press("1")
    browser.until("window.lose")
    assert len(server.holding()) == 1, "the server has it, and its answer is on the way"
    browser.js("window.lose()")
    browser.until("/Question 2/.test(document.getElementById('question')?.textContent)")
    sent = [e["request"]["url"] for e in browser.reported("Network.requestWillBeSent")]
    assert sum(url.endswith("/api/judgements") for url in sent) == 2
    assert len(server.log()) == 1


def test_a_reload_goes_on_with_the_draft(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[5]], "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    browser.press("e")
    browser.press("End", "Ctrl")
    browser.type(" Saved")
    browser.until("/Draft saved/.test(document.getElementById('draft-state').textContent)")
    browser.reload()
    browser.until(READY)
    text = "document.querySelector('.judging textarea').value"
    assert browser.js(text) == "Teh cat\nsat. Saved"
    # What did not reach the server is kept as well.
    server.kill()
    browser.press("e")
    browser.press("End", "Ctrl")
    browser.type(" and kept")
    browser.until("/kept in this browser/.test(document.getElementById('draft-state').textContent)")
    server.start()
    browser.reload()
    browser.until(READY)
    assert browser.js(text) == "Teh cat\nsat. Saved and kept"
    answered(browser, "Ctrl+Enter")
    assert server.holding()[0].payload.text == "Teh cat\nsat. Saved and kept"


SAVED = "/Draft saved/.test(document.getElementById('draft-state')?.textContent)"
KEPT = "/kept in this browser/.test(document.getElementById('draft-state')?.textContent)"
WRITTEN = "document.querySelector('.judging textarea')?.value"
OWN = "Object.keys(localStorage).filter((key) => /\\.(draft|aside|outbox)\\./.test(key))"


def write(browser: Browser, text: str, until: str) -> None:
    """Put a text at the end of a correction."""
    browser.js("document.querySelector('.judging textarea').focus()")
    browser.press("End", "Ctrl")
    browser.type(text)
    browser.until(until)


def free(server: Server) -> None:
    """End all leases, as time does."""
    with Store(server.folder / "feedback.db") as store, store.writing() as connection:
        connection.exec_driver_sql("update assignments set expires = '2000'")


def press(browser: Browser, name: str) -> None:
    """Click the button of this name."""
    found = f"[...document.querySelectorAll('button')].find((one) => one.textContent === {json.dumps(name)})"
    browser.until(found)
    browser.js(f"{found}.click()")


def test_of_two_drafts_the_newer_one_is_shown_and_the_other_is_to_be_had(
    browser: Browser, serve: Servers, tmp_path: Path
) -> None:
    server = serve([ONE_OF_EACH[5]], "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    write(browser, " Both.", SAVED)
    server.kill()
    write(browser, " Here.", KEPT)
    browser.open("about:blank", 1200)  # else it would be sent as soon as the server is back
    server.start()
    free(server)
    other = Browser(tmp_path / "other")
    try:
        enter(other, server.links["annotator"][0])
        assert other.js(WRITTEN) == "Teh cat\nsat. Both."
        write(other, " There.", SAVED)
    finally:
        other.close()
    free(server)
    browser.open(server.address, 1200)
    browser.until(READY)
    assert browser.js(WRITTEN) == "Teh cat\nsat. Both. There."
    for text in (" Both. Here.", " Both. There.", " Both. Here."):
        press(browser, "Show the other")
        assert browser.js(WRITTEN) == f"Teh cat\nsat.{text}"
    # The other way round: what is here is the newer one, and comes first after a reload.
    server.kill()
    write(browser, " Late.", KEPT)
    browser.open("about:blank", 1200)
    server.start()
    browser.open(server.address, 1200)
    browser.until(f"{READY} && {WRITTEN}")
    assert browser.js(WRITTEN) == "Teh cat\nsat. Both. Here. Late."
    browser.until(SAVED)  # it is sent without another word
    press(browser, "Show the other")
    assert browser.js(WRITTEN) == "Teh cat\nsat. Both. There."
    press(browser, "Show the other")
    answered(browser, "Ctrl+Enter")
    assert [event.payload.text for event in server.holding()] == ["Teh cat\nsat. Both. Here. Late."]
    assert browser.js(OWN) == []


def test_who_logs_out_leaves_nothing_unless_they_want_to(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[5]], "--annotators", "1")
    out = "/You are logged out/.test(document.body.innerText)"
    enter(browser, server.links["annotator"][0])
    write(browser, " Sent.", "true")
    press(browser, "Log out")  # at once: what was written a moment ago is sent first
    browser.until(out)
    assert browser.js(OWN) == []
    assert [event.payload.text for event in server.log()] == ["Teh cat\nsat. Sent."]
    for choice, left in (("Log out, keep it here", 1), ("Log out, delete it", 0)):
        server.kill()
        server.start()
        free(server)
        enter(browser, server.links["annotator"][0])
        if not left:
            assert browser.js(WRITTEN) == "Teh cat\nsat. Sent. Log out, keep it here."
            browser.until(SAVED)
        server.kill()
        write(browser, f" {choice}.", KEPT)
        press(browser, "Log out")
        press(browser, "Cancel")
        assert len(browser.js(OWN)) == 1
        press(browser, "Log out")
        press(browser, choice)
        browser.until("/still logged in/.test(document.body.innerText)")
        server.start()
        press(browser, "Try now")
        browser.until(out)
        assert len(browser.js(OWN)) == left
    texts = [event.payload.text for event in server.log()]
    assert texts == ["Teh cat\nsat. Sent.", "Teh cat\nsat. Sent. Log out, keep it here."]


def test_when_somebody_else_logs_in_the_page_is_theirs(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[5]], "--annotators", "2", "--raters", "2")
    first, second = server.links["annotator"]
    enter(browser, first)
    write(browser, " Of the first.", SAVED)
    tab = browser.tab()
    enter(tab, second)
    assert tab.js(WRITTEN) == "Teh cat\nsat."
    browser.until(f"{WRITTEN} !== 'Teh cat\\nsat. Of the first.'")
    browser.until(READY)
    tab.call("Page.close")
    browser.reload()
    browser.until(READY)
    # Now without the tabs hearing of each other: the next thing that is sent tells.
    server.kill()
    server.start()
    free(server)
    first, second = server.links["annotator"]
    enter(browser, first)
    assert browser.js(WRITTEN) == "Teh cat\nsat. Of the first."
    free(server)
    token = json.dumps({"token": second.split("token=")[1], "consent": None})
    headers = "{'Content-Type': 'application/json'}"
    browser.js(f"fetch('/api/session', {{method: 'POST', headers: {headers}, body: {json.dumps(token)}}})")
    write(browser, " Not the second's.", f"{READY} && {WRITTEN} === 'Teh cat\\nsat.'")
    assert len(browser.js(OWN)) == 1, "what the first wrote waits for them"
    assert [event.payload.text for event in server.log()] == ["Teh cat\nsat. Of the first."]


def test_a_lost_lease_leaves_what_was_written(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[5]], "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    browser.press("e")
    browser.press("End", "Ctrl")
    browser.type(" Written")
    browser.until("/Draft saved/.test(document.getElementById('draft-state').textContent)")
    gone = """JSON.stringify({error: "lease_lost", message: "Gone."})"""
    next_judgement(browser, f"Promise.resolve(new Response({gone}, {{status: 409}}))")
    browser.press("Enter", "Ctrl")
    browser.until("/went to somebody else/.test(document.getElementById('question')?.textContent)")
    assert browser.js("document.activeElement.id") == "question"
    assert browser.js("document.querySelector('main textarea').value") == "Teh cat\nsat. Written"
    browser.js("document.querySelector('main .primary').click()")
    browser.until(READY)
    answered(browser, "Ctrl+Enter")
    assert len(server.holding()) == 1


def test_who_writes_on_is_told_that_the_question_is_lost(browser: Browser, serve: Servers) -> None:
    server = serve([ONE_OF_EACH[5]], "--annotators", "2")
    enter(browser, server.links["annotator"][0])
    with Store(server.folder / "feedback.db") as store, store.writing() as connection:
        connection.exec_driver_sql("update assignments set lease = 'gone'")
    browser.press("e")
    browser.type("In vain ")
    browser.until("/went to somebody else/.test(document.getElementById('banner').textContent)")
    assert "In vain" in browser.js("document.querySelector('main textarea').value")


def test_a_wrong_clock_costs_the_times_alone(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(1), "--annotators", "1")
    ahead = "const now = Date.now; Date.now = () => now() + 3_600_000;"
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=ahead)["identifier"]
    try:
        enter(browser, server.links["annotator"][0])
        answered(browser, "1")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    (said,) = server.holding()
    assert said.timing.shown is None
    assert said.timing.active_ms > 0


def test_undo(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(2), "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    browser.press("u")
    browser.until("/nothing to undo/.test(document.getElementById('banner').textContent)")
    asked = "document.querySelector('.beside .text').textContent"
    first = browser.js(asked)
    answered(browser, "1")
    second = browser.js(asked)
    browser.press("u")
    browser.until("document.querySelector('main .notice')")
    assert browser.js(asked) == first
    assert browser.js("document.querySelector('[aria-pressed=true]').textContent") == "1Answer 1"
    assert browser.js("document.activeElement.id") == "question"
    browser.press("2")  # changing an earlier answer waits for Enter
    browser.press("Enter")
    browser.until(f"{asked} === {json.dumps(second)}")
    (now,) = server.holding()
    assert now.payload.winner == now.shown.order[1]
    assert sum(event.status == "submitted" for event in server.log()) == 2


# --- texts -----------------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "[click](javascript:document.title='taken') ![pic](https://evil.example/x.png) <https://evil.example>",
    "<style>*{display:none}</style><iframe src=https://evil.example></iframe>",
    "\u202eevil\u202c \u2066\u202dx",
    "# **[`*_~>|```\n- > - > - > - > - > - > - > - >\n|-|\n|",
    "\x1b[31m \ud7ff \ufffe &lt;b&gt; </div></main></body>",
]


def test_hostile_texts_are_only_ever_text(browser: Browser, serve: Servers) -> None:
    bad = "\n\n".join(HOSTILE)
    huge = "*a [b](c `d _e " * 14_000
    rows = [
        {**row, "prompt": bad, "context": bad, "candidates": [bad + str(i) for i in range(len(row["candidates"]))]}
        for row in ONE_OF_EACH
    ]
    rows.append({"prompt": [{"role": "user", "content": bad}], "candidates": [huge, bad], "priority": 99})
    guide = serve.folder / "guide.md"
    guide.write_text(bad, encoding="utf-8")
    server = serve(rows, "--annotators", "1", "--guidelines", str(guide))
    assert len(huge) > 200_000
    start = time.monotonic()
    enter(browser, server.links["annotator"][0])
    assert time.monotonic() - start < 20
    keys = {"Which answer is": "1", "Rank": "123", "Rate": "1", "good?": "1", "Correct": "", "Mark": "", "label": "1"}
    browser.press("g")
    for _ in range(len(rows)):
        for plain in ("", "p"):
            if plain:
                browser.press("Escape")
                browser.js("document.getElementById('question').focus()")
                browser.press("p")
            assert browser.js("document.title") == "Feedback"
            assert browser.js("document.querySelectorAll('#page :is(script, img, a, iframe, style, svg)').length") == 0
            shown = browser.js(
                "document.querySelector('.judging').textContent + document.querySelector('.judging textarea')?.value"
            )
            assert "<script>document.title='taken'</script>" in shown
            assert "javascript:document.title" in shown
        words = browser.js(HEADING)
        pressed = next(key for word, key in keys.items() if word in words)
        at_once = any(word in words for word in ("Which answer is", "this answer good", "label"))
        answered(browser, *pressed, *([] if at_once else ["Enter"]))
    assert len(server.holding()) == len(rows)
    check_quiet(browser, server)


def test_directions_and_languages_of_texts(browser: Browser, serve: Servers) -> None:
    hebrew, arabic = "בירת צרפת היא פריז (Paris).", "باريس هي عاصمة فرنسا."
    rows = [
        {"prompt": "מהי בירת צרפת?", "candidates": [hebrew, "Paris is."], "language": "he", "priority": 2},
        {"prompt": "Mend", "candidates": [arabic], "kind": "correction", "language": "ar", "priority": 1},
        {"prompt": "\u202ealert", "candidates": ["a\u202eb"], "kind": "spans"},
    ]
    server = serve(rows, "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    direction = "[...document.querySelectorAll('{}')].map((e) => getComputedStyle(e).direction)"
    shown = browser.js("[...document.querySelectorAll('.card .text p')].map((e) => e.textContent)")
    assert browser.js(direction.format(".card .text p")) == ["rtl" if text == hebrew else "ltr" for text in shown]
    assert browser.js(direction.format(".beside .text p")) == ["rtl"]
    assert browser.js("document.querySelector('.card .text').lang") == "he"
    assert browser.js("getComputedStyle(document.body).direction") == "ltr"
    answered(browser, "1")
    assert browser.js(direction.format(".judging textarea, .difference")) == ["rtl", "rtl"]
    answered(browser, "Enter")
    # What turns the direction of what follows is seen, and reaches no further.
    assert browser.js("document.querySelectorAll('.control').length") == 2
    assert browser.js("getComputedStyle(document.querySelector('.control')).unicodeBidi") == "isolate"
    assert browser.js("document.querySelector('.markable').textContent") == "a\u202eb"


def test_a_prompt_from_right_to_left_begins_at_the_right_as_its_answers_do(browser: Browser, serve: Servers) -> None:
    arabic = "ما هي عاصمة فرنسا؟"
    turns = [{"role": "user", "content": arabic}, {"role": "assistant", "content": "Hello."}]
    rows = [
        {"prompt": arabic, "candidates": ["باريس.", "ليون."], "context": arabic, "language": "ar", "priority": 2},
        {"prompt": turns, "candidates": ["باريس.", "Lyon."]},
    ]
    server = serve(rows, "--annotators", "1")
    edges = (
        "[...document.querySelectorAll('.beside .text, .card .text')].map((e) => {"
        "const at = document.createRange(); at.selectNodeContents(e.querySelector('p'));"
        "const text = at.getBoundingClientRect(), box = e.closest('.beside, .card').getBoundingClientRect();"
        "return [text.left - box.left, box.right - text.right]})"
    )
    for width in (1200, 390):
        enter(browser, server.links["annotator"][0], width=width, mobile=width < 500)
        assert len(browser.js(edges)) == 4
        assert all(right < 30 < left for left, right in browser.js(edges))
    answered(browser, "1")
    (_, right), (left, _), *_ = browser.js(edges)
    assert right < 30
    assert left < 30, "what is written from left to right begins at the left"


def test_the_bar_is_opaque_while_an_answer_is_sent(browser: Browser, serve: Servers) -> None:
    row = {"prompt": "Long?", "candidates": ["word " * 900, "more " * 900]}
    server = serve([row], "--annotators", "1")
    enter(browser, server.links["annotator"][0], width=390, mobile=True)
    next_judgement(browser, "new Promise((go) => { window.go = go; }).then(() => real(url, options))")
    browser.press("1")
    browser.until("document.querySelector('.sending .bar')")
    solid = "(s => [s.opacity, s.backgroundColor.startsWith('rgb(')])(getComputedStyle(document.querySelector('.bar')))"
    assert browser.js(solid) == ["1", True]
    assert browser.js("getComputedStyle(document.querySelector('.bar .choices')).opacity") == "0.6"
    browser.js("window.go()")
    browser.call("Fetch.disable")
    browser.until(READY)
    assert len(server.holding()) == 1


def test_the_interface_in_chinese(serve: Servers, tmp_path: Path) -> None:
    server = serve([*pairs(1), ONE_OF_EACH[1]], "--annotators", "1")
    opened = Browser(tmp_path / "chinese", language="zh-CN")
    try:
        enter(opened, server.links["annotator"][0])
        assert "哪个回答更好？" in opened.js(HEADING)
        assert opened.js("document.documentElement.lang") == "zh-Hans"
        choose = "(s => {s.value = 'en'; s.dispatchEvent(new Event('change'))})(document.querySelector('.top select'))"
        opened.js(choose)
        opened.until("/Which answer is better/.test(document.getElementById('question')?.textContent)")
        opened.reload()
        opened.until("/Which answer is better/.test(document.getElementById('question')?.textContent)")
        check_quiet(opened, server)
    finally:
        opened.close()


def test_both_languages_say_the_same_things(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(1))
    enter(browser, server.links["owner"][0])
    words = browser.js("import('/static/words.js').then((m) => JSON.stringify(m.languages))")
    english, chinese = json.loads(words).values()
    assert english.keys() == chinese.keys()
    for name, text in english.items():
        gaps = [{part.split("}")[0] for part in one.split("{")[1:]} for one in (text, chinese[name])]
        assert gaps[0] == gaps[1], name


def longest_common(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        row = [0, *row[1:]]
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def test_differences_are_right_and_shortest(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(1))
    enter(browser, server.links["owner"][0])
    draw = random.Random(0)
    cases = [["".join(draw.choices("ab 猫犬.", k=draw.randrange(12))) for _ in range(2)] for _ in range(300)]
    cases += [["", ""], ["我喜欢猫。", "我很喜欢狗。"], ["the cat", "the  cat"]]
    code = (
        "import('/static/diff.js').then((m) => JSON.stringify({}.map(([a, b]) => [m.pieces(a), m.pieces(b), "
        "m.difference(a, b).parts.map(([kind, text]) => [kind, text, m.pieces(text).length])])))"
    )
    for (a, b), (x, y, parts) in zip(cases, json.loads(browser.js(code.format(json.dumps(cases)))), strict=True):
        assert "".join(text for kind, text, _ in parts if kind != "added") == a
        assert "".join(text for kind, text, _ in parts if kind != "removed") == b
        # Pieces that meet where something was taken out may join, never the other way round.
        assert sum(n for kind, _, n in parts if kind == "same") <= longest_common(x, y)
        kept = sum(len(text) for kind, text, _ in parts if kind == "same")
        assert kept >= longest_common(x, y)
    chinese = json.loads(browser.js(code.format(json.dumps(cases[-2:-1]))))[0][2]
    assert [(kind, text) for kind, text, _ in chinese] == [
        ("same", "我"),
        ("added", "很"),
        ("same", "喜欢"),
        ("removed", "猫"),
        ("added", "狗"),
        ("same", "。"),
    ]


# --- who leads -------------------------------------------------------------------------------------------------------


def test_consent_comes_first(browser: Browser, serve: Servers, tmp_path: Path) -> None:
    text = tmp_path / "consent.md"
    text.write_text("You agree to *everything*.", encoding="utf-8")
    server = serve(pairs(1), "--annotators", "1", "--consent", str(text))
    browser.open("about:blank", 1200)
    browser.open(server.links["annotator"][0], 1200)
    browser.until("/You agree to everything/.test(document.body.innerText)")
    check_named(browser)
    assert "token" not in browser.js("location.href")
    browser.js("document.querySelector('.buttons .primary').click()")
    browser.until(READY)
    browser.until("/Which answer/.test(document.getElementById('question')?.textContent)")
    answered(browser, "1")
    assert server.holding()[0].consent is not None
    check_quiet(browser, server)


def test_a_used_link_lets_nobody_in(browser: Browser, serve: Servers, tmp_path: Path) -> None:
    server = serve(pairs(1), "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    enter(browser, server.links["annotator"][0])  # this browser is known
    other = Browser(tmp_path / "other")
    try:
        other.open(server.links["annotator"][0], 1200)
        other.until("/used before/.test(document.body.innerText)")
        assert other.js("document.activeElement.tagName") == "INPUT"
        check_named(other)
    finally:
        other.close()


def test_a_link_that_is_opened_where_the_page_is_open(browser: Browser, serve: Servers) -> None:
    server = serve(pairs(1), "--annotators", "2")
    first, second = server.links["annotator"]
    enter(browser, first)
    before = browser.js("fetch('/api/me').then((r) => r.json()).then((me) => me.annotator.id)")
    browser.js(f"location.href = {json.dumps(second)}")
    browser.until("!location.href.includes('token')")
    browser.until(READY)
    assert browser.js("fetch('/api/me').then((r) => r.json()).then((me) => me.annotator.id)") != before
    answered(browser, "1")
    assert len(server.holding()) == 1


def test_a_new_text_to_agree_to_comes_up_by_itself(browser: Browser, serve: Servers, tmp_path: Path) -> None:
    text = tmp_path / "consent.md"
    text.write_text("You agree to *something*.", encoding="utf-8")
    server = serve(pairs(1), "--annotators", "1")
    enter(browser, server.links["annotator"][0])
    server.kill()
    server.options += ["--consent", str(text)]
    server.start()
    browser.press("1")
    browser.until("/You agree to something/.test(document.body.innerText)")
    browser.js("document.querySelector('.buttons .primary').click()")
    browser.until("/Which answer/.test(document.getElementById('question')?.textContent)")
    answered(browser, "1")
    assert server.holding()[0].consent is not None


def test_dashboard_invitations_and_adjudication(browser: Browser, serve: Servers, tmp_path: Path) -> None:
    server = serve(pairs(1), "--annotators", "1", "--raters", "2", "--keep-names")
    enter(browser, server.links["annotator"][0])
    answered(browser, "1")
    first = server.holding()[0].payload.winner
    browser.open("about:blank", 1200)
    browser.open(server.links["owner"][0], 1200)
    browser.until("document.querySelector('.people')")
    check_named(browser)
    browser.js("document.getElementById([...document.querySelectorAll('.invite label')].at(-1).htmlFor).focus()")
    browser.type("Ada <b>")
    browser.press("Enter")
    browser.until("document.querySelector('.links input')")
    link = browser.js("document.querySelector('.links input').value")
    browser.until("/Ada <b>/.test(document.querySelector('.people').textContent)")
    other = Browser(tmp_path / "other")
    try:
        enter(other, link)
        # The other one prefers the other answer: find where it stands.
        texts = other.js("[...document.querySelectorAll('.card .text')].map((e) => e.textContent)")
        wanted = server.holding()[0].candidates[1 - first].text
        answered(other, str(texts.index(wanted) + 1))
    finally:
        other.close()
    browser.until("/Questions: disputed\\s*1/.test(document.querySelector('.tiles').innerText)")
    browser.js("document.querySelector('[data-view=adjudicate]').click()")
    browser.until("document.querySelector('.others')")
    said = browser.js("document.querySelector('.others').innerText")
    assert "Answer 1 is better" in said
    assert "Answer 2 is better" in said
    check_named(browser)
    answered(browser, "0")
    settled = [event for event in server.holding() if event.adjudicates]
    assert [event.payload.outcome for event in settled] == ["tie"]
    check_quiet(browser, server)


def prefer(browser: Browser, text: str) -> None:
    """Choose the answer of this text, wherever it is shown."""
    texts = browser.js("[...document.querySelectorAll('.card .text')].map((e) => e.textContent)")
    answered(browser, str(texts.index(text) + 1))


def test_who_settles_is_led_to_what_waits(browser: Browser, serve: Servers, tmp_path: Path) -> None:
    server = serve(pairs(1), "--annotators", "2", "--adjudicators", "1", "--raters", "2")
    tab = "document.querySelector('[data-view=adjudicate]').textContent"
    others = [Browser(tmp_path / str(i)) for i in range(2)]
    try:
        for other, link in zip(others, server.links["annotator"], strict=True):
            enter(other, link)
        prefer(others[0], "Yes 0.")
        assert others[0].js("document.querySelector('nav')") is None
        # Nothing is disputed so far: an adjudicator opens on Judge.
        enter(browser, server.links["adjudicator"][0])
        assert browser.js("document.querySelector('[aria-current=page]').dataset.view") == "judge"
        assert browser.js(tab) == "Adjudicate"
        prefer(others[1], "No 0.")
        # What came meanwhile shows by itself.
        browser.until("/that is yours to settle. Questions waiting: 1/.test(document.body.innerText)", 30)
        assert browser.js(tab) == "Adjudicate (1)"
        assert browser.js(HEADING) == "Nothing left to judge"
        assert "All done" not in browser.js("document.body.innerText")
        assert not browser.js("document.querySelector('.progress').checkVisibility()"), "0 of 0 done tells nothing"
        check_named(browser)
        browser.open("about:blank", 1200)
        at = "document.querySelector('[aria-current=page]').dataset.view"
        enter(others[0], server.links["owner"][0])
        assert (others[0].js(at), others[0].js(tab)) == ("adjudicate", "Adjudicate (1)")
        others[0].open("about:blank", 1200)
        browser.open(server.address, 1200)
        browser.until(READY)
        assert browser.js(at) == "adjudicate"
        browser.js("document.querySelector('[data-view=judge]').click()")
        browser.until("document.querySelector('main .end .primary')")
        browser.js("document.querySelector('main .end .primary').click()")
        browser.until("document.querySelector('.others')")
        answered(browser, "0")
        browser.until("/All done for now/.test(document.body.innerText)")
        assert browser.js(tab) == "Adjudicate"
    finally:
        for other in others:
            other.close()
    assert [event.payload.outcome for event in server.holding() if event.adjudicates] == ["tie"]
