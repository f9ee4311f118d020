"""The page of a comparison in a real browser: with its script and without, wide and on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from console import ok, run
from helpers.run_folders import HELD_OUT, answers, write_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

EVIL = "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)> \u2028 猫"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page made by the console script, of six runs whose first answers are markup."""
    folder = tmp_path_factory.mktemp("comparison")
    for i, (kl_coef, quality) in enumerate([("0.02", 0.5), ("0.1", 0.9)]):
        for seed in (1, 2, 3):
            texts = {name: answers(share, seed) for name, share in (("base", 0.0), ("sft", 0.4), ("ppo", quality))}
            texts["ppo"][0] = f"{EVIL} {i}"
            write_run(folder / "sweep" / f"{i}{seed}", kl_coef, seed, texts=texts)
    write_run(folder / "sweep" / "broken", "0.5", status="failed", policies=(), notes=[EVIL])
    ok(run(folder, "sweep", "--html", "page.html", program="rlhf-compare"))
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


def test_it_works_by_mouse_and_keyboard_and_fetches_nothing(browser: Browser, comparison: Path) -> None:
    browser.open(comparison, 1200)
    # The table: sorted by its settings, then by a metric, upwards and downwards.
    names = "[...document.querySelectorAll('table.sortable tbody th')].map((th) => th.textContent)"
    heads = "[...document.querySelectorAll('table.sortable thead tr:last-child th')]"
    head = f"{heads}.find((h) => /gold/.test(h.textContent))"
    assert browser.js(names) == ["ppo.kl_coef=0.02", "ppo.kl_coef=0.1"]
    browser.js(f"{head}.querySelector('button').focus()")
    browser.press("Enter")
    assert browser.js(f"{head}.getAttribute('aria-sort')") == "ascending"
    browser.press("Enter")
    assert browser.js(f"{head}.getAttribute('aria-sort')") == "descending"
    assert browser.js(names) == ["ppo.kl_coef=0.1", "ppo.kl_coef=0.02"]

    # Answers: all of them, those that differ, those with a text.
    told = "document.getElementById('told').textContent"
    cards = "document.querySelectorAll('#answers article').length"
    assert browser.js(told) == f"{HELD_OUT} of {HELD_OUT} answers"
    assert browser.js(cards) == 20
    browser.js("document.getElementById('more').click()")
    assert browser.js(cards) == 40
    fill = "const f = document.getElementById('filter'); f.value = {}; f.dispatchEvent(new Event('input')); f.focus()"
    browser.js(f"(() => {{ {fill.format(json.dumps('number 17.'))} }})()")
    assert browser.js(told) == f"1 of {HELD_OUT} answers"
    browser.press("ArrowDown")
    assert browser.js("document.activeElement.tagName") == "ARTICLE"
    browser.press("ArrowUp")
    assert browser.js("document.activeElement.id") == "filter"
    browser.js(f"(() => {{ {fill.format(json.dumps(''))} }})()")
    change = "(() => {{ const s = document.getElementById('{}'); s.{} = {}; s.dispatchEvent(new Event('change')) }})()"
    browser.js(change.format("side-b", "value", "document.getElementById('side-a').value"))
    browser.js(change.format("differ", "checked", "true"))
    assert browser.js(told) == f"0 of {HELD_OUT} answers", "a policy's answers are its own"

    # The order: by what the other one wins.
    browser.js(change.format("differ", "checked", "false"))
    browser.js(change.format("side-b", "value", "'7'"))
    browser.js(change.format("order", "value", "'+gold'"))
    scores = "[...document.querySelectorAll('#answers article')].map((c) => [...c.querySelectorAll('small')]"
    pairs = browser.js(f"{scores}.map((s) => parseFloat(s.textContent.split(' ')[1])))")
    gains = [round(b - a, 2) for a, b in pairs]
    assert len(gains) == 20
    assert gains[0] > 0
    assert gains == sorted(gains, reverse=True)
    assert browser.js("document.querySelectorAll('#answers mark').length") > 0

    # Downloads are made in the page.
    made = "(() => { const made = []; URL.createObjectURL = (b) => { made.push(b); return 'blob:x' };"
    clicks = "['get-table', 'get-curves', 'get-answers'].forEach((id) => document.getElementById(id).click());"
    table, curves, texts = browser.js(f"{made} {clicks} return Promise.all(made.map((b) => b.text())) }})()")
    assert table.splitlines()[0].startswith("row,status,ppo.kl_coef,n,seeds")
    assert "ppo,gold,validation,ppo.kl_coef=0.02,0,0.3,0.3,0.3,3" in curves.splitlines()
    assert "Say number 59." in texts

    assert browser.js("document.title") == "Comparison of runs"
    assert browser.js("document.querySelectorAll('img').length") == 0
    requests = [event["request"]["url"] for event in browser.reported("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith("blob:")] == [comparison.as_uri()]
    errors = browser.reported("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert not [error for error in errors if "blob:x" not in json.dumps(error)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, comparison: Path, scheme: str) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(comparison, 375)
    assert browser.js("document.documentElement.scrollWidth") <= 375
    dark = browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")
    small = "[...document.querySelectorAll('button, select, input')].filter((e) => e.offsetWidth > 355).length"
    assert browser.js(small) == 0


def test_without_its_script_the_main_things_are_there(browser: Browser, comparison: Path) -> None:
    browser.open(comparison, 1200, scripts=False)
    document = browser.call("DOM.getDocument")["root"]["nodeId"]
    found = browser.call("DOM.querySelectorAll", nodeId=document, selector="#answers article")["nodeIds"]
    assert len(found) == 6
    marks = browser.call("DOM.querySelectorAll", nodeId=document, selector="#answers mark")["nodeIds"]
    assert marks
    text = browser.call("DOM.getOuterHTML", nodeId=document)["outerHTML"]
    assert "ppo.kl_coef=0.1 raises gold by" in text
    assert 'class="buttons needs-script" hidden' in text
