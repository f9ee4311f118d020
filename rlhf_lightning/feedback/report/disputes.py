"""What people disagree on most: the questions to read, to settle, or to ask in other words."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.pairs import settles
from rlhf_lightning.feedback.payloads import Value
from rlhf_lightning.feedback.report.said import Alike, alike, answer, first_time

MOST = 12
"""Questions that the report shows."""

CUT = 700
"""Characters of a text that it shows."""


class Dispute(Value):
    """A question on which people disagree.

    Attributes:
        project, item, kind: of the question.
        disagreement: 1 less the mean likeness of each two judgements, 0 to 1.
        judgements: of it.
        prompt, candidates: the texts, cut to `CUT` characters; candidates are A, B, ... in the answers.
        answers: how many said what, the most frequent first.
        settled: what an adjudicator said, if one did.
    """

    project: str
    item: str
    kind: str
    disagreement: float
    judgements: int
    prompt: str
    candidates: list[str]
    answers: dict[str, int]
    settled: str | None


class Disputes(Value):
    """Where people disagree.

    Attributes:
        questions: that two people judged in a way that can be compared, or more.
        disputed: of these, those with any disagreement.
        most: those with most of it, at most `MOST`; of equal ones those with more judgements first.
    """

    questions: int
    disputed: int
    most: list[Dispute]


def disputes_of(events: Sequence[Event]) -> Disputes:
    """Find them among judgements that hold."""
    alone = first_time(events)
    settled = {event.question: answer(event) for event in events if settles(event)}
    said: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in alone:
        said[event.question, event.kind].append(event)
    pairs: dict[tuple[str, str], list[Alike]] = defaultdict(list)
    for pair in alike(alone):
        pairs[pair.one.question, pair.one.kind].append(pair)
    apart = {name: 1 - statistics.fmean(pair.likeness for pair in found) for name, found in pairs.items()}
    disputed = sorted((name for name in apart if apart[name] > 1e-9), key=lambda n: (-apart[n], -len(said[n]), n))
    most = [
        Dispute(
            project=said[question, kind][0].project,
            item=said[question, kind][0].item,
            kind=kind,
            disagreement=apart[question, kind],
            judgements=len(said[question, kind]),
            prompt=cut(said[question, kind][0].asked.plain),
            candidates=[cut(candidate.text) for candidate in said[question, kind][0].candidates],
            answers=dict(Counter(answer(event) for event in said[question, kind]).most_common()),
            settled=settled.get(question),
        )
        for question, kind in disputed[:MOST]
    ]
    return Disputes(questions=len(apart), disputed=len(disputed), most=most)


def cut(text: str) -> str:
    """A text as the report shows it."""
    return text if len(text) <= CUT else text[: CUT - 1].rstrip() + "…"
