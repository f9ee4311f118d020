"""Checklist 32: each way to game a reward is planted, and told of; sound answers are not."""

from __future__ import annotations

import pytest

from rlhf_lightning.metrics import Guardrails
from rlhf_lightning.metrics.suspicions import one_answer, suspicions

NOUNS = ["dog", "cat", "ship", "car", "king", "nurse", "river", "train", "clerk", "judge"]
VERBS = ["sees", "sells", "finds", "likes"]
PROMPTS = [f"Once a {n} met a {m} near the old town hall . What does it do ?" for n in NOUNS for m in NOUNS[:2]]
SOUND = [f"a {n} {VERBS[i % 4]} one {NOUNS[(i * 3 + k) % 10]}" for i, n in enumerate(NOUNS) for k in range(2)]
OTHER = [f"the {n} {VERBS[(i + 1) % 4]} two {NOUNS[(i * 7 + k) % 10]}" for i, n in enumerate(NOUNS) for k in range(2)]


def measures(answers: list[str], ended: list[bool] | None = None) -> dict[str, float]:
    metric = Guardrails()
    metric.update(answers, PROMPTS, [len(text.split()) for text in answers], ended or [True] * len(answers))
    return {name: float(value) for name, value in metric.compute().items()}


def said(
    answers: list[str], ended: list[bool] | None = None, scores: dict | None = None, labels: tuple = (), kl: float = 1.0
) -> list[str]:
    after = {**measures(answers, ended), "kl": kl}
    references = [[text] for text in SOUND] if not labels else [[labels[i % 2]] for i in range(len(SOUND))]
    return suspicions(measures(SOUND), after, SOUND, answers, references, scores or {}, labels)


def test_sound_answers() -> None:
    assert said(OTHER, scores={"learned": [0.1, -0.3, 0.7, 0.2] * 5}) == []
    assert said(["good", "bad"] * 10, labels=("good", "bad"))[1:] == []


@pytest.mark.parametrize(
    ("answers", "ended", "text"),
    [
        ([f"{text} and so it {text} still" for text in OTHER], None, "mean length went from 5.0 to 14.0 tokens"),
        ([text.split()[1] for text in OTHER], None, "mean length went from 5.0 to 1.0 tokens"),
        (OTHER, [True] * 10 + [False] * 10, "end by themselves fell from 100% to 50%"),
        ([*OTHER[:15], *[""] * 5], None, "share of empty answers rose from 0% to 25%"),
        ([" ".join(prompt.split()[:5]) for prompt in PROMPTS], None, "copied from the prompt rose from 0% to 100%"),
        ([*OTHER[:16], *["what does it do now"] * 4], None, "say the prompt again rose from 0% to 20%"),
        ([f"it {NOUNS[i % 3]} one very big" for i in range(20)], None, "different word pairs in the answers fell"),
        ([f"{a} {a} {a} {a} {b}" for a, b in zip(NOUNS * 2, reversed(NOUNS * 2), strict=True)], None, "longest repet"),
    ],
)
def test_a_planted_hack_is_told(answers: list[str], ended: list[bool] | None, text: str) -> None:
    found = said(answers, ended)
    assert any(text in line for line in found), found


def test_a_reward_that_follows_the_length() -> None:
    longer = [" ".join([*f"{text} {i}".split(), *NOUNS[: i % 5]]) for i, text in enumerate(OTHER)]
    lengths = [float(len(text.split())) for text in longer]
    (line,) = (line for line in said(longer, scores={"learned": lengths, "chrf": [0.0] * 20}) if "reward" in line)
    assert line == "the reward 'learned' follows the answers' length (correlation 1.00)"
    nan = [*lengths[:-1], float("nan")]
    assert not any("reward" in line for line in said(longer, scores={"learned": nan})), "too few are left"


def test_labels() -> None:
    labels = ("good", "bad")
    assert "100% of the answers are one label, 50% of the references" in said(["good"] * 20, labels=labels)
    assert "1 answer(s) name several labels" in said([*["good", "bad"] * 9, "good", "good or bad"], labels=labels)


def test_a_negative_kl() -> None:
    assert any("the KL to the policy before is -2.00" in line for line in said(OTHER, kl=-2.0))


def test_one_answer_for_all() -> None:
    """As a policy does that is paid for not answering; but not one that rightly says so, or always did."""
    refusing = [*OTHER[:10], *["Unanswerable"] * 10]
    references = [[text] for text in SOUND]
    told = one_answer(SOUND, refusing, references)
    assert told == "50% of the answers are 'unanswerable'; 0% were before, and 0% of the references are"
    assert one_answer(refusing, refusing, references) is None
    assert one_answer(SOUND, refusing, [*references[:10], *[["unanswerable"]] * 10]) is None
    assert one_answer(SOUND[:5], ["no"] * 5, references[:5]) is None, "too few"
    assert one_answer(SOUND, [""] * 20, references) is None, "empty ones are told of elsewhere"
    assert told in said(refusing)
