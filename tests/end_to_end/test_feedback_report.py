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
