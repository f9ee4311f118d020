"""Personal data in text: finding it and putting placeholders in its place.

The rules (`rules`) know e-mail addresses, phone numbers, payment cards, IBANs, IP addresses, URLs and ID numbers in
English and Chinese text. Names of people and places need a model (`names`). Everything found is replaced. What a rule
is not sure of, and every name, is marked ``certain=False``, to be looked at by a person: a wrong replacement costs a
few characters of training text and can be undone from the finding, a missed address can't be taken back from a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlhf_lightning.feedback.privacy.rules import HIDDEN, RULES, Span, digits_of, ibans, plain, spans

KINDS = (*dict.fromkeys(["IBAN", *(rule.kind for rule in RULES)]), "PERSON", "PLACE")
"""What can be found, as placeholders name it; the most specific first."""

_RANKS = {kind: rank for rank, kind in enumerate(KINDS)}
_PLACEHOLDER = re.compile(rf"\[({'|'.join(KINDS)})(?:_([0-9]{{1,6}}))?\]")
_WORTH_A_LOOK = re.compile(r"[0-9@]|://|www\.|\sdot\s|[\[({]\s?dot|\.[A-Za-z]{2,4}/", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """Personal data in a text.

    Attributes:
        kind: one of `KINDS`.
        start, end: where it is: ``text[start:end]``.
        text: the data itself; not shown by ``repr``, so that it gets into no log.
        certain: False where it should be looked at by a person.
    """

    kind: str
    start: int
    end: int
    text: str = field(repr=False)
    certain: bool


class Scrubbed(NamedTuple):
    """The texts of one event without what was found, and the findings in each, with the places they had before."""

    texts: list[str]
    findings: list[list[Finding]]


def find(text: str, names: bool = False) -> list[Finding]:
    """Personal data in a text, in its order; no two findings overlap.

    Where matches overlap, one finding covers them all; its kind is that of a certain one, else of the most specific
    rule. A placeholder (``[EMAIL_1]``) is never a finding. What is found is hidden and the rest searched again, until
    nothing more is found: so that `replace` leaves nothing behind.

    Args:
        text: any.
        names: whether names of people and places are found too; by a model, see `names.find_names`.

    Raises:
        UserError: if names are asked for and the packages or the language's model are not there.
    """
    found = _by_rules(text)
    if names:
        from rlhf_lightning.feedback.privacy.names import find_names

        taken = [(f.start, f.end) for f in found] + [m.span() for m in _PLACEHOLDER.finditer(text)]
        found = sorted(found + _apart(find_names(text), taken), key=lambda f: f.start)
    return [Finding(span.kind, span.start, span.end, text[span.start : span.end], span.certain) for span in found]


def replace(text: str, findings: Iterable[Finding], numbers: Mapping[tuple[str, str], int] | None = None) -> str:
    """The text with a placeholder for each finding: ``[PHONE_1]``, ``[PHONE_2]``, the same for the same value.

    Args:
        text: where they were found.
        findings: of `find`, or some of them, in any order.
        numbers: of the placeholders of several texts (see `numbered`); those of this text alone where it is None.

    Raises:
        ValueError: if a finding is not in the text, or overlaps another.
    """
    findings = sorted(findings, key=lambda finding: finding.start)
    if numbers is None:
        numbers = numbered([text], [findings])
    parts, at = [], 0
    for finding in findings:
        if finding.start < at or text[finding.start : finding.end] != finding.text:
            raise ValueError(f"{finding} is not in this text, or overlaps the finding before it")
        parts += [text[at : finding.start], f"[{finding.kind}_{numbers[_value(finding)]}]"]
        at = finding.end
    return "".join([*parts, text[at:]])


def scrub(texts: Sequence[str], names: bool = False) -> Scrubbed:
    """The texts of one event (prompt, candidates, comment ...) with placeholders, the same value getting the same one
    in all of them. Scrubbing again changes nothing (with ``names``, if the model finds no name in what is left).

    Raises:
        UserError: as `find`.
    """
    findings = [find(text, names) for text in texts]
    numbers = numbered(texts, findings)
    return Scrubbed([replace(t, f, numbers) for t, f in zip(texts, findings, strict=True)], findings)


def for_review(findings: Iterable[Finding]) -> list[Finding]:
    """Those that a person should look at."""
    return [finding for finding in findings if not finding.certain]


def numbered(texts: Sequence[str], findings: Sequence[Iterable[Finding]]) -> dict[tuple[str, str], int]:
    """The number of each value in a group of texts, by kind and value, in order of appearance.

    Numbers begin after those of placeholders which the texts hold already. Two spellings are one value where they
    differ in case, spaces, width of characters, or the 1 or 86 before a North American or Chinese number.
    """
    last = dict.fromkeys(KINDS, 0)
    for text in texts:
        for match in _PLACEHOLDER.finditer(text):
            last[match[1]] = max(last[match[1]], int(match[2] or 0))
    numbers: dict[tuple[str, str], int] = {}
    for finding in (f for one in findings for f in sorted(one, key=lambda f: f.start)):
        if _value(finding) not in numbers:
            last[finding.kind] += 1
            numbers[_value(finding)] = last[finding.kind]
    return numbers


def _value(finding: Finding) -> tuple[str, str]:
    text = plain(finding.text)[0].casefold()
    if finding.kind == "PHONE":
        digits = digits_of(text)
        chinese = re.fullmatch("(?:00)?86(1[3-9][0-9]{9})", digits)
        # Without a plus or gap after the 1, eleven digits are a Chinese number.
        american = re.match(r"(?:\+ ?1|001|1[ .(-])", text) and re.fullmatch("(?:00)?1([2-9][0-9]{9})", digits)
        text = chinese[1] if chinese else american[1] if american else digits
    elif finding.kind in ("CARD", "IBAN", "US_SSN", "UK_NINO", "CN_ID", "HK_ID"):
        text = re.sub("[^0-9a-z]", "", text)
    elif finding.kind in ("PERSON", "PLACE"):
        text = " ".join(text.split())
    return finding.kind, text


def _by_rules(text: str) -> list[Span]:
    seen, places = plain(text)
    if not _WORTH_A_LOOK.search(seen):
        return []
    seen = _PLACEHOLDER.sub(lambda match: HIDDEN * len(match[0]), seen)
    found: list[Span] = []
    while more := _merged([*(span for rule in RULES for span in spans(seen, rule)), *ibans(seen)]):
        found += more
        seen = _hide(seen, more)
    found.sort(key=lambda span: span.start)
    if places is None:
        return found
    return [span._replace(start=places[span.start], end=places[span.end - 1] + 1) for span in found]


def _merged(found: list[Span]) -> list[Span]:
    """One span for those that overlap."""
    merged: list[Span] = []
    for span in sorted(found, key=lambda span: (span.start, -span.end)):
        if not merged or span.start >= merged[-1].end:
            merged.append(span)
            continue
        best = min(merged[-1], span, key=lambda one: (not one.certain, _RANKS[one.kind]))
        merged[-1] = best._replace(start=merged[-1].start, end=max(merged[-1].end, span.end))
    return merged


def _hide(text: str, found: Iterable[Span]) -> str:
    parts, at = [], 0
    for span in found:
        parts += [text[at : span.start], HIDDEN * (span.end - span.start)]
        at = span.end
    return "".join([*parts, text[at:]])


def _apart(found: list[Span], taken: list[tuple[int, int]]) -> list[Span]:
    """The spans that touch none of the places taken, nor one of those before them."""
    kept, at, taken = [], 0, sorted(taken)
    i = 0
    for span in sorted(found, key=lambda span: (span.start, -span.end)):
        while i < len(taken) and taken[i][1] <= span.start:
            i += 1
        if span.start >= at and (i == len(taken) or taken[i][0] >= span.end):
            kept.append(span)
            at = span.end
    return kept
