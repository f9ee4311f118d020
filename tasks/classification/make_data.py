"""Writes the classification sample: news headlines (tech or sports) and review sentences (positive or negative).

`python -m rlhf_lightning.tasks.classification.make_data` rewrites the committed files byte for byte.
"""

import random
import re
from pathlib import Path

from rlhf_lightning.tasks.classification.gold import KINDS, score_one
from rlhf_lightning.tasks.generate import Row, build_files, is_held_out, listed, other, pick, run

ASPECTS = listed(
    "food service room staff soup pizza view music plot acting ending breakfast location pool garden waiter dessert coffee story lobby"
)
ADJECTIVES = {
    "positive": listed(
        "wonderful superb lovely excellent delightful perfect great pleasant brilliant amazing splendid fantastic impressive outstanding terrific marvelous"
    ),
    "negative": listed(
        "awful terrible dreadful poor disappointing horrible unpleasant mediocre annoying lousy bad shocking pathetic appalling unacceptable sad"
    ),
}
OPPOSITE = {"positive": "negative", "negative": "positive", "tech": "sports", "sports": "tech"}
SUBJECTS = {
    "tech": listed(
        "software firm,robot maker,phone giant,chip designer,search company,cloud startup,laptop brand,data company,app developer,drone maker,battery firm,web pioneer"
    ),
    "sports": listed(
        "football club,tennis star,rugby captain,olympic swimmer,basketball team,marathon champion,cycling coach,hockey league,golf legend,boxing champion,skiing team,cricket club"
    ),
}
VERBS = {
    "tech": listed("launches unveils tests updates presents develops patents reveals"),
    "sports": listed("wins loses enters hosts joins dominates celebrates misses"),
}
OBJECTS = {
    "tech": listed(
        "new phone,faster chip,mobile app,delivery robot,light laptop,smart sensor,web browser,tiny drone,video headset,solar battery,open software,digital camera"
    ),
    "sports": listed(
        "cup final,league match,city marathon,tennis open,relay race,local derby,summer playoffs,spring tournament,title fight,season opener,grand prix,charity game"
    ),
}
PLACES = listed("Oslo Madrid Lagos Dublin Geneva Lima Cairo Boston Kyoto Prague Nairobi Vienna")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MIXED_SHARE = 0.55
"""Share of texts that point both ways: a review with a turn, a headline of one field's people doing the other's things."""


Example = tuple[str, str, bool]
"""The text, its topic, and whether it points both ways."""


def draw_pair(rng: random.Random, first: list[str], second: list[str], held_out: bool) -> list[str]:
    """A combination of two slots on the wanted side of the hold-out."""
    while True:
        pair = [pick(rng, first), pick(rng, second)]
        if is_held_out(*pair) == held_out:
            return pair


def draw_review(rng: random.Random, held_out: bool) -> Example:
    """A review sentence of two clauses."""
    topic = pick(rng, list(ADJECTIVES))
    mixed = rng.random() < MIXED_SHARE
    first = draw_pair(rng, ASPECTS, ADJECTIVES[OPPOSITE[topic] if mixed else topic], held_out)
    second = draw_pair(rng, [aspect for aspect in ASPECTS if aspect != first[0]], ADJECTIVES[topic], held_out)
    start, end = f"the {first[0]} was {first[1]}", f"the {second[0]} was {second[1]}"
    if mixed:
        text = pick(rng, [f"{start}, but {end}.", f"although {start}, {end}."])
    else:
        text = pick(rng, [f"{start} and {end}.", f"{start}, and also {end}."])
    return text[0].upper() + text[1:], topic, mixed


def draw_headline(rng: random.Random, held_out: bool) -> Example:
    """A headline; its topic is what is done, whoever does it."""
    topic = pick(rng, list(VERBS))
    mixed = rng.random() < MIXED_SHARE
    subject, thing = draw_pair(rng, SUBJECTS[OPPOSITE[topic] if mixed else topic], OBJECTS[topic], held_out)
    tail = pick(rng, [f"in {pick(rng, PLACES)}", f"on {pick(rng, DAYS)}"])
    text = f"{subject} {pick(rng, VERBS[topic])} {thing} {tail}"
    return text[0].upper() + text[1:], topic, mixed


def draw(rng: random.Random, held_out: bool) -> Example:
    """A review or a headline, each as often."""
    return pick(rng, [draw_review, draw_headline])(rng, held_out)


def combinations(row: Row) -> list[tuple[str, ...]]:
    """The combinations of slots in a row that tell train from held-out rows: what is called how, or who deals with what."""
    text = row["text"].lower()
    clauses = re.findall(r"the (\w+) was (\w+)", text)
    subjects = [subject for side in SUBJECTS.values() for subject in side if text.startswith(subject)]
    return clauses or [(subjects[0], thing) for side in OBJECTS.values() for thing in side if thing in text]


def demonstrated(rng: random.Random, example: Example) -> str:
    """The label that an ordinary demonstrator gives: where the text points both ways, either."""
    _, topic, mixed = example
    return OPPOSITE[topic] if mixed and rng.random() < 0.5 else topic


def candidate(rng: random.Random, example: Example) -> str:
    """A label as a policy in training may write it: mostly of the right kind, now and then not a label at all."""
    text, topic, _ = example
    chance = rng.random()
    if chance < 0.84:
        return pick(rng, [topic, OPPOSITE[topic]])
    if chance < 0.95:
        return other(rng, list(KINDS), topic, OPPOSITE[topic])
    return pick(rng, [f"{topic} {topic}", f"{topic} {pick(rng, list(KINDS))}", text.split()[1].lower()])


def build() -> dict[str, list[Row]]:
    """Every file of the task: its name and its rows."""
    return build_files(
        "classification",
        draw=draw,
        prompt=lambda example: {"text": example[0]},
        demonstration=lambda rng, example: {"label": demonstrated(rng, example)},
        answer=lambda example: {"label": example[1]},
        candidate=candidate,
        gold=lambda example, label: score_one(label, example[1]),
        meta=lambda example: {"topic": example[1]},
        train=3000,
        preferences=2000,
        noise=1.5,
        balance_length=False,
    )


if __name__ == "__main__":
    run(build, Path(__file__).parent)
