"""Names of people and places in text, by Presidio over a spaCy model. Needs the extra `pii` and a model a language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from rlhf_lightning.data.files import needs
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.privacy.rules import Span

MODELS = {"en": "en_core_web_sm", "zh": "zh_core_web_sm"}
"""The spaCy model of each language."""

PIECE = 50_000
"""Characters analysed at once: spaCy refuses a million, and needs memory for each."""

_KINDS = {"PERSON": "PERSON", "LOCATION": "PLACE"}
_POSSESSIVE = re.compile(r"['’]s?\Z")
_CHINESE = re.compile("[\u3400-\u9fff]")


def find_names(text: str) -> list[Span]:
    """Names of people and places, none of them certain: a model guesses them.

    A text with Chinese characters is read by the Chinese model, any other by the English one. A long text is read in
    pieces that end at a line, sentence or space where there is one.

    Raises:
        UserError: if Presidio, or the language's model, is not installed. Neither is fetched.
    """
    if not text.strip():
        return []
    language = "zh" if _CHINESE.search(text) else "en"
    analyzer = _analyzer(language)
    found = []
    for start, piece in _pieces(text):
        for result in analyzer.analyze(text=piece, language=language, entities=list(_KINDS)):
            name = _POSSESSIVE.sub("", piece[result.start : result.end])
            if name.strip():
                at = start + result.start
                found.append(Span(_KINDS[result.entity_type], at, at + len(name), False))
    return sorted(found, key=lambda span: (span.start, -span.end))


@lru_cache
def _analyzer(language: str) -> Any:
    needs("presidio_analyzer", "pii")
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    model = MODELS[language]
    if not spacy.util.is_package(model):  # Presidio would fetch it
        raise UserError(f"finding names needs spaCy's model {model}: python -m spacy download {model}")
    engine = NlpEngineProvider(
        nlp_configuration={
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": language, "model_name": model}],
            "ner_model_configuration": {
                "model_to_presidio_entity_mapping": {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION"},
            },
        }
    ).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[language])


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    while start < len(text):
        end = min(start + PIECE, len(text))
        if end < len(text):
            ends = (text.rfind(mark, start + PIECE // 2, end) for mark in ("\n", "。", ". ", " ", "，"))
            end = next((at + 1 for at in ends if at >= 0), end)
        yield start, text[start:end]
        start = end
