"""Writes the summarization sample: short business reports and their one-line headlines.

`python -m rlhf_lightning.tasks.summarization.make_data` rewrites the committed files byte for byte.
"""

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
from rlhf_lightning.tasks.summarization.gold import headlines, read_facts, score_one

COMPANIES = listed(
    "Norvik Halden Brightway Corvex Lumina Mertens Pelago Quantor Rivona Solaris Tarvis Umbra Vantage Westmark Zelco Alpina Delmar Fenwick Garland Hexcom"
)
PLACES = listed(
    "Oslo Madrid Lagos Dublin Geneva Lima Cairo Boston Kyoto Prague Nairobi Vienna Lisbon Toronto Warsaw Athens Delhi Sydney Berlin Havana"
)
NUMBERS = listed("12 20 25 30 40 45 50 60 75 80 90 120 150 200 250 300 400 500 600 800")
EVENTS = [
    ("cuts", "jobs"),
    ("hires", "engineers"),
    ("opens", "shops"),
    ("closes", "branches"),
    ("recalls", "cars"),
    ("orders", "buses"),
    ("sells", "flats"),
    ("builds", "homes"),
    ("trains", "nurses"),
    ("plants", "trees"),
    ("buys", "trucks"),
    ("repairs", "bridges"),
    ("rents", "offices"),
    ("tests", "drones"),
]
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed("March April May June July October November December")
PEOPLE = listed("Berg Costa Dietz Evans Fischer Grant Hoang Ivanov Jensen Kumar")

OPENINGS = [
    "{who} told reporters in {place} on {day} that it would {verb} {number} {what} by {month}.",
    "On {day}, {who} announced a plan for {place}. The company will {verb} {number} {what} by {month}.",
    "There was news from {who} for people in {place} on {day}. The firm wants to {verb} {number} {what}.",
    "{person}, the head of {who}, came to {place} on {day}. The company is going to {verb} {number} {what}.",
]
CLOSINGS = [
    "Last year the number was {other_number}.",
    "A rival in {other_place} has a similar plan.",
    "{speaker} of the local union called it a surprise.",
    "{second_speaker}, who speaks for the city, hopes for more.",
    "The mayor welcomed the decision.",
    "Shares rose slightly after the news.",
    "More details are expected next week.",
]
STYLES = {
    "good": 0.3,
    "to": 0.1,
    "no_number": 0.08,
    "no_place": 0.36,
    "bare": 0.02,
    "officials": 0.07,
    "reported": 0.07,
}
"""How the demonstrators write: the first two are what annotators like best."""


Report = tuple[str, dict[str, str]]
"""The text and the facts that it tells."""


def combinations(row: Row) -> list[tuple[str, ...]]:
    """The combinations of slots in a row that tell train from held-out rows: who does what."""
    facts = read_facts(row["facts"])
    return [(facts["who"], facts["verb"])]


def draw_report(rng: random.Random, held_out: bool) -> Report:
    """A report and its facts."""
    while True:
        verb, what = pick(rng, EVENTS)
        who = pick(rng, COMPANIES)
        if is_held_out(who, verb) == held_out:
            break
    place, other_place = pick_distinct(rng, PLACES, 2)
    number, other_number = pick_distinct(rng, NUMBERS, 2)
    person, speaker, second_speaker = pick_distinct(rng, PEOPLE, 3)
    facts = {"who": who, "verb": verb, "number": number, "what": what, "place": place}
    text = " ".join([pick(rng, OPENINGS), *pick_distinct(rng, CLOSINGS, 2)])
    document = text.format(
        **facts | {"verb": verb.removesuffix("s")},
        day=pick(rng, DAYS),
        month=pick(rng, MONTHS),
        person=person,
        speaker=speaker,
        second_speaker=second_speaker,
        other_place=other_place,
        other_number=other_number,
    )
    return document, facts


def headline(facts: dict[str, str], style: str) -> str:
    """A headline on the facts in one of `STYLES`."""
    who, verb, number, what, place = facts.values()
    if style in ("good", "to"):
        return headlines(facts)[style == "to"]
    return {
        "no_number": f"{who} {verb} {what} in {place}",
        "no_place": f"{who} {verb} {number} {what}",
        "bare": f"{who} {verb} {what}",
        "officials": f"Officials said that {who} {verb} {number} {what}",
        "reported": f"It was reported that {who} {verb} {what} in {place}",
    }[style]


def candidate(rng: random.Random, report: Report) -> str:
    """A headline as a policy in training may write it: any style, with wrong facts or slips in some."""
    document, facts = report
    facts = dict(facts)
    if rng.random() < 0.35:
        slot, values = pick(rng, [("who", COMPANIES), *[("number", NUMBERS), ("place", PLACES)] * 2])
        facts[slot] = other(rng, values, facts[slot])
    if rng.random() < 0.07:
        facts["verb"], facts["what"] = other(rng, EVENTS, (facts["verb"], facts["what"]))
    if rng.random() < 0.04:
        return " ".join(document.split()[: 6 + int(rng.random() * 10)])
    text = headline(facts, pick_weighted(rng, STYLES))
    if rng.random() < 0.2:
        text = " ".join(spoil_words(rng, text.split()))
    return text


def build() -> dict[str, list[Row]]:
    """Every file of the task: its name and its rows."""
    return build_files(
        "summarization",
        draw=draw_report,
        prompt=lambda report: {"document": report[0]},
        demonstration=lambda rng, report: {"reference": headline(report[1], pick_weighted(rng, STYLES))},
        answer=lambda report: {"references": headlines(report[1])},
        candidate=candidate,
        gold=lambda report, text: score_one(text, report[1]),
        meta=lambda report: {"facts": " ".join(report[1].values())},
        train=2350,
        preferences=1550,
        noise=0.9,
    )


if __name__ == "__main__":
    run(build, Path(__file__).parent)
