"""The report of feedback in a real browser: nothing is fetched or run, and it fits a phone."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("websocket")
from browser import CHROMIUM, Browser

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from helpers.judged import ask, question

from rlhf_lightning.feedback.report.build import build
from rlhf_lightning.feedback.report.html import report_page
from rlhf_lightning.feedback.simulated import Simulated
from rlhf_lightning.report.page import page
from rlhf_lightning.report.results import RunResults
from rlhf_lightning.report.rounds import rounds_section

EVIL = "<script>document.title = 'run'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='run'\">"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_feedback_page(tmp_path, width):
    people = Simulated(noise=[0.3])
    events = ask(people, 40)
    for i in range(30):
        item = question(i + 100)
        text = EVIL + item.candidates[0].text
        evil = item.model_copy(
            update={
                "asked": item.asked.model_copy(update={"text": EVIL * 3}),
                "candidates": (type(item.candidates[0])(text=text, model=EVIL), item.candidates[1]),
            }
        )
        events += [people.judge(evil, [0.5, 0.5], k) for k in range(3)]
    page = tmp_path / "feedback.html"
    page.write_text(report_page(build(events, EVIL)))
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page, width)
        assert browser.js("document.title") == "Human feedback"
        requests = [event["request"]["url"] for event in browser.reported("Network.requestWillBeSent")]
        assert requests == [page.as_uri()]
        assert browser.reported("Log.entryAdded", "Runtime.exceptionThrown") == []
        assert browser.js("document.documentElement.scrollWidth") <= width  # tables scroll by themselves
        assert browser.js("document.querySelectorAll('figure svg').length") >= 2
        assert browser.js("document.body.innerText.includes('onerror=')")
    finally:
        browser.close()


ROUND = {"questions": 120.0, "pairs": 1240.0, "foretold": 0.61, "new_pairs": 112.0, "accuracy": 0.655}
ROUND |= {"held_out": 1180.0, "learned": 1.234, "objective": -0.0123, "kl": 12.345}
ROUND |= {"win_rate": 0.55, "win_low": 0.44, "win_high": 0.66, "compared": 112.0}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_wide_tables_fit_or_show_that_they_scroll(tmp_path):
    rounds, people = tmp_path / "rounds.html", tmp_path / "people.html"
    rounds.write_text(page("Loop", rounds_section(RunResults("qa", rounds=[ROUND] * 2))))
    people.write_text(report_page(build(ask(Simulated(noise=[0.3]), 60), "log")))
    browser = Browser(tmp_path / "profile")
    cut = "[...document.querySelectorAll('.card')].filter((e) => e.scrollWidth > e.clientWidth)"
    try:
        browser.open(rounds, 1200)
        assert "44% to 66%, n = 112" in browser.js("document.querySelector('td:last-child small').textContent")
        assert browser.js(f"{cut}.length") == 0
        browser.open(people, 1200)
        assert browser.js(f"{cut}.length") == 0
        browser.open(people, 390, mobile=True)
        assert browser.js("document.documentElement.scrollWidth") == 390
        assert browser.js("document.querySelector('.card').innerText").startswith("kind")
        assert not browser.js(f"{cut}.includes(document.querySelector('.card'))"), "the counts fit"
        browser.open(rounds, 390, mobile=True)
        assert browser.js(f"{cut}.length") == 1
        # A shadow at the edge tells that there is more; at the end of the table it is gone.
        at_edge = darkness(browser, tmp_path / "start.png")
        browser.js("document.querySelector('.card').scrollLeft = 9999")
        assert at_edge > 20
        assert darkness(browser, tmp_path / "end.png") == 0
    finally:
        browser.close()


def darkness(browser, path):
    """How far the right edge of the first table is from white where it is lightest, so that no text counts."""
    Image = pytest.importorskip("PIL.Image")
    browser.picture(path)
    x, y = browser.js("(r => [r.right - 3, r.top + 20])(document.querySelector('.card').getBoundingClientRect())")
    return 255 - max(Image.open(path).convert("L").getpixel((int(x), int(y) + dy)) for dy in range(80))
