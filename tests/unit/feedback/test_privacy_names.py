"""Names, by a stand-in with Presidio's interface everywhere, and by Presidio itself where it and a model are there."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.privacy import names
from rlhf_lightning.feedback.privacy.pii import find, scrub


class StandIn:
    """Finds the names it knows, as ``presidio_analyzer.AnalyzerEngine.analyze`` reports them."""

    known: ClassVar = {
        "Anna Berg's": "PERSON",
        "Anna Berg": "PERSON",
        "Oslo": "LOCATION",
        "张三": "PERSON",
        "EMAIL_1": "PERSON",
    }

    def __init__(self, language: str) -> None:
        self.language = language

    def analyze(self, text: str, language: str, entities: list[str]) -> list[SimpleNamespace]:
        assert language == self.language
        assert len(text) <= names.PIECE
        return [
            SimpleNamespace(entity_type=kind, start=m.start(), end=m.end(), score=0.85)
            for name, kind in self.known.items()
            for m in re.finditer(name, text)
            if kind in entities
        ]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_analyzer", StandIn)


@pytest.mark.usefixtures("stand_in")
def test_names_are_replaced_and_uncertain() -> None:
    text = "Anna Berg (anna@example.com) lives in Oslo. Anna Berg's phone is 512-555-0134"
    assert [f.kind for f in find(text, names=True) if not f.certain] == ["PERSON", "PLACE", "PERSON"]
    once = scrub([text, "我叫张三"], names=True)
    assert once.texts == [
        "[PERSON_1] ([EMAIL_1]) lives in [PLACE_1]. [PERSON_1]'s phone is [PHONE_1]",
        "我叫[PERSON_2]",
    ]
    assert scrub(once.texts, names=True).texts == once.texts
    assert [f.kind for f in find(text)] == ["EMAIL", "PHONE"]


@pytest.mark.usefixtures("stand_in")
def test_a_long_text_is_read_in_pieces_that_cut_no_name() -> None:
    text = "Anna Berg lives in Oslo. " * 5000
    found = find(text, names=True)
    assert len(found) == 10_000
    assert {f.text for f in found} == {"Anna Berg", "Oslo"}


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names._analyzer.cache_clear()
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"rlhf-lightning\[pii\]"):
        find("Anna Berg", names=True)


def test_presidio_itself() -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra pii is not installed")
    spacy = pytest.importorskip("spacy")
    if not spacy.util.is_package(names.MODELS["en"]):
        names._analyzer.cache_clear()
        with pytest.raises(UserError, match="python -m spacy download en_core_web_sm"):
            find("Anna Berg", names=True)
        pytest.skip("spaCy's English model is not installed")
    found = find("My name is Katherine Miller and I live in Boston.", names=True)
    assert [(f.kind, f.text) for f in found] == [("PERSON", "Katherine Miller"), ("PLACE", "Boston")]
