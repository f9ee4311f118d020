"""Writes the question answering sample: short passages on two people, one question each.

`python -m rlhf_lightning.tasks.qa.make_data` rewrites the committed files byte for byte.
"""

import itertools
import random
from pathlib import Path

from rlhf_lightning.tasks.generate import (
    Row,
    build_files,
    is_held_out,
    listed,
    other,
    pick,
    pick_distinct,
    pick_weighted,
    run,
    spoil_words,
)
from rlhf_lightning.tasks.qa.gold import REFUSAL, score_one

NAMES = listed("Anna Ben Clara David Emma Felix Grace Hugo Iris Jonas Karin Leo Maria Olga Peter Rosa")
RELATIONS = {
    "home": (
        "{name} lives in {value}.",
        "Where does {name} live?",
        "Oslo,Madrid,Lagos,Dublin,Geneva,Lima,Cairo,Boston",
    ),
    "job": (
        "{name} works as a {value}.",
        "What is the job of {name}?",
        "nurse,baker,pilot,farmer,lawyer,painter,dentist,driver",
    ),
    "pet": (
        "{name} has a {value}.",
        "What pet does {name} have?",
        "grey cat,black cat,white cat,grey dog,black dog,white dog,grey horse,black horse,white horse",
    ),
    "game": (
        "{name} plays {value}.",
        "What does {name} play?",
        "tennis,chess,football,golf,hockey,rugby,handball,cricket",
    ),
    "drink": (
        "{name} drinks {value}.",
        "What does {name} drink?",
        "green tea,black tea,cold tea,black coffee,cold milk,hot milk,apple juice,orange juice,cold water",
    ),
}
VALUES = {relation: listed(values) for relation, (_, _, values) in RELATIONS.items()}
UNANSWERABLE_SHARE = 0.2
SAME_RELATION_SHARE = 0.08
"""Share of passages that tell of the other person what is asked of the one."""
STYLES = {"span": 0.42, "sentence": 0.45, "hedged": 0.13}
GUESS_SHARE = 0.5
"""Share of the unanswerable questions that a demonstrator answers with a guess."""

Fact = tuple[str, str, str]
"""Who, which relation, which value."""


def combinations(row: Row) -> list[tuple[str, ...]]:
    """The combinations of slots in a row that tell train from held-out rows: values told of the same person."""
    told: dict[str, list[str]] = {}
    for sentence in row["context"].removesuffix(".").split(". "):
        name, rest = sentence.split(" ", 1)
        told.setdefault(name, []).extend(
            value for values in VALUES.values() for value in values if rest.endswith(f" {value}")
        )
    return [tuple(sorted(pair)) for values in told.values() for pair in itertools.combinations(values, 2)]


def draw_facts(rng: random.Random, name: str, relations: list[str], held_out: bool) -> list[Fact]:
    """Facts on a person, each pair of values on the wanted side of the hold-out; fewer where there is no such value."""
    values: list[str] = []
    for relation in relations:
        fitting = [
            value
            for value in VALUES[relation]
            if all(is_held_out(*sorted([value, earlier])) == held_out for earlier in values)
        ]
        if not fitting:
            break
        values.append(pick(rng, fitting))
    return [(name, relation, value) for relation, value in zip(relations, values, strict=False)]


def tell(fact: Fact) -> str:
    """The fact as a sentence."""
    name, relation, value = fact
    return RELATIONS[relation][0].format(name=name, value=value)


def draw_passage(rng: random.Random, held_out: bool) -> Row:
    """A passage with a question: the columns `context`, `question` and `answers`, and the fact asked for."""
    while True:
        name, second = pick_distinct(rng, NAMES, 2)
        asked, *others = pick_distinct(rng, list(RELATIONS), len(RELATIONS))
        answerable = rng.random() >= UNANSWERABLE_SHARE
        of_second = others[2 : 3 + int(rng.random() * 2)]
        if rng.random() < SAME_RELATION_SHARE:
            of_second = [asked, *of_second]
        first_facts = draw_facts(rng, name, [asked, others[0]] if answerable else others[:2], held_out)
        second_facts = draw_facts(rng, second, of_second, held_out)
        facts = first_facts + second_facts
        if len({value for *_, value in facts}) == 2 + len(of_second):
            break
    value = first_facts[0][2] if answerable else pick(rng, VALUES[asked])
    groups = [pick_distinct(rng, facts, len(facts)) for facts in (first_facts, second_facts)]
    told = [fact for group in pick_distinct(rng, groups, 2) for fact in group]
    return {
        "context": " ".join(tell(fact) for fact in told),
        "question": RELATIONS[asked][1].format(name=name),
        "answers": [value] if answerable else [],
        "asked": (name, asked, value),
        "told": told,
    }


def answer(fact: Fact, style: str) -> str:
    """An answer that states the fact in one of `STYLES`."""
    return {"span": fact[2], "sentence": tell(fact), "hedged": f"I think it is {fact[2]}"}[style]


def demonstrate(rng: random.Random, passage: Row) -> str:
    """What a demonstrator of the mixed crowd answers."""
    if not passage["answers"] and rng.random() >= GUESS_SHARE:
        return REFUSAL
    return answer(passage["asked"], pick_weighted(rng, STYLES))


def candidate(rng: random.Random, passage: Row) -> str:
    """An answer as a policy in training may give it: any style, often a refusal, another fact, or a slip."""
    name, relation, value = passage["asked"]
    if rng.random() < (0.15 if passage["answers"] else 0.4):
        return REFUSAL
    chance = rng.random()
    if chance < 0.2:
        value = other(rng, VALUES[relation], value)
    elif chance < 0.35:
        name, relation, value = pick(rng, passage["told"])
    elif chance < 0.4:
        name = other(rng, NAMES, name)
    text = answer((name, relation, value), pick_weighted(rng, STYLES))
    if rng.random() < 0.15:
        text = " ".join(spoil_words(rng, text.split()))
    if rng.random() < 0.03:
        text = " ".join(tell(fact) for fact in passage["told"])
    return text


def build() -> dict[str, list[Row]]:
    """Every file of the task: its name and its rows."""
    return build_files(
        "qa",
        draw=draw_passage,
        prompt=lambda passage: {"context": passage["context"], "question": passage["question"]},
        demonstration=lambda rng, passage: {"answer": demonstrate(rng, passage)},
        answer=lambda passage: {"answer": (passage["answers"] or [REFUSAL])[0]},
        candidate=candidate,
        gold=lambda passage, text: score_one(text, passage["answers"]),
        meta=lambda passage: {"answers": passage["answers"]},
        train=3000,
        preferences=2000,
        noise=1.2,
    )


if __name__ == "__main__":
    run(build, Path(__file__).parent)
