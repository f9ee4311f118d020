"""What the generators of the sample tasks share: seeded drawing, held-out combinations, simulated annotators, files.

Only `Random.random()` is used for drawing: its sequence is the one that Python promises to keep between versions, so
that the files come out the same everywhere.
"""

import argparse
import json
import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, Any]

ANNOTATORS: Mapping[str, float] = {"ada": 0.06, "bo": 0.18, "cy": 0.4}
"""The simulated annotators and the temperature of each: the higher, the oftener a judgement goes against gold."""

FILES = ("train", "validation", "test", "preferences", "preferences_test")

HELD_OUT_ONE_IN = 8
"""One combination of slot values in so many is kept out of train and preferences."""


def listed(text: str) -> list[str]:
    """The items of a list written as text: between commas if there are any, else between blanks."""
    return text.split("," if "," in text else None)


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One item, each equally likely."""
    return items[int(rng.random() * len(items))]


def pick_weighted(rng: random.Random, weights: Mapping[str, float]) -> str:
    """One key, likely in proportion to its weight."""
    left = rng.random() * sum(weights.values())
    for key, weight in weights.items():
        left -= weight
        if left < 0:
            return key
    return key


def pick_distinct(rng: random.Random, items: Sequence[T], count: int) -> list[T]:
    """`count` different items in random order."""
    pool = list(items)
    return [pool.pop(int(rng.random() * len(pool))) for _ in range(count)]


def other(rng: random.Random, items: Sequence[T], *not_these: T) -> T:
    """One item that is none of `not_these`."""
    return pick(rng, [item for item in items if item not in not_these])


def is_held_out(*values: str) -> bool:
    """Whether this combination of slot values belongs to validation and test, and so never to train or preferences."""
    return zlib.crc32("|".join(values).encode()) % HELD_OUT_ONE_IN == 0


def spoil_words(rng: random.Random, words: Sequence[str]) -> list[str]:
    """The words with one slip that a half-trained policy makes: one dropped, one doubled, cut short, or run on."""
    words = list(words)
    at = int(rng.random() * len(words))
    slip = pick(rng, ["drop", "double", "cut", "run_on", "swap"])
    if slip == "drop" and len(words) > 1:
        return words[:at] + words[at + 1 :]
    if slip == "double":
        return words[: at + 1] + words[at:]
    if slip == "cut" and len(words) > 2:
        return words[: max(1, at)]
    if slip == "swap" and len(words) > 2:
        at = min(at, len(words) - 2)
        return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
    return words + words[at:]


def judge(rng: random.Random, first: tuple[str, float], second: tuple[str, float], noise: float) -> Row:
    """One simulated comparison of two (text, gold) candidates.

    An annotator, drawn at random, prefers the first with the Bradley-Terry probability
    `sigmoid((gold_first - gold_second) / (noise * temperature))`.
    """
    annotator = pick(rng, list(ANNOTATORS))
    advantage = (first[1] - second[1]) / (noise * ANNOTATORS[annotator])
    sigmoid = (1 + math.tanh(advantage / 2)) / 2
    chosen, rejected = (first, second) if rng.random() < sigmoid else (second, first)
    return {"chosen": chosen[0], "rejected": rejected[0], "annotator": annotator}


def compare(
    rng: random.Random,
    propose: Callable[[], str],
    gold: Callable[[str], float],
    longer_is_better: bool | None,
    noise: float,
    min_gap: float = 0.1,
) -> Row:
    """Draws two candidates that differ in gold and lets an annotator judge them.

    Args:
        rng: the source of chance.
        propose: gives one candidate completion a call.
        gold: the gold score of a candidate, between 0 and 1.
        longer_is_better: which way the pair is to go, so that over many pairs length tells nothing. Where no such pair
            turns up, a pair of the other way is taken. None: any pair will do.
        noise: scales the annotators' temperatures.
        min_gap: the least difference in gold.
    """
    fallback = None
    for _ in range(60):
        pair = [(text, gold(text)) for text in (propose(), propose())]
        if abs(pair[0][1] - pair[1][1]) < min_gap:
            continue
        worse, better = sorted(pair, key=lambda candidate: candidate[1])
        longer = len(better[0]) - len(worse[0])
        if longer_is_better is None or longer * (1 if longer_is_better else -1) > 0:
            return judge(rng, pair[0], pair[1], noise)
        fallback = pair
    if fallback is None:
        raise ValueError("the candidates never differ in gold")
    return judge(rng, fallback[0], fallback[1], noise)


def build_files(
    task: str,
    *,
    draw: Callable[[random.Random, bool], T],
    prompt: Callable[[T], Row],
    demonstration: Callable[[random.Random, T], Row],
    answer: Callable[[T], Row],
    candidate: Callable[[random.Random, T], str],
    gold: Callable[[T, str], float],
    meta: Callable[[T], Row],
    train: int,
    preferences: int,
    noise: float,
    balance_length: bool = True,
) -> dict[str, list[Row]]:
    """Every file of a task: its name and its rows. No prompt comes twice.

    Args:
        task: name of the task; seeds the draws.
        draw: gives an example, of the held-out combinations or of the others.
        prompt: the columns of an example that the model is shown.
        demonstration: the columns that an ordinary demonstrator adds in train.
        answer: the columns with what is best, added in validation and test.
        candidate: a completion such as a policy in training might give.
        gold: the gold score of a completion.
        meta: the columns that the gold reward reads.
        train: how many demonstrations.
        preferences: how many comparisons to learn from.
        noise: scales the annotators' temperatures: tasks differ in how far apart two candidates are in gold.
        balance_length: of three comparisons, draw one where the longer candidate is the better, one where the shorter
            is, and one as it comes; so length tells nothing.
    """
    seen: set[tuple[str, ...]] = set()

    def examples(rng: random.Random, count: int, held_out: bool) -> list[T]:
        drawn: list[T] = []
        while len(drawn) < count:
            example = draw(rng, held_out)
            key = tuple(prompt(example).values())
            if key not in seen:
                seen.add(key)
                drawn.append(example)
        return drawn

    def comparisons(rng: random.Random, count: int, held_out: bool) -> list[Row]:
        rows = []
        for number, example in enumerate(examples(rng, count, held_out)):
            pair = compare(
                rng,
                propose=partial(candidate, rng, example),
                gold=partial(gold, example),
                longer_is_better=(True, False, None)[number % 3] if balance_length else None,
                noise=noise,
            )
            rows.append({**prompt(example), **pair, **meta(example)})
        return rows

    rngs = {name: random.Random(f"{task} {name}") for name in FILES}
    return {
        "train": [
            {**prompt(example), **demonstration(rngs["train"], example), **meta(example)}
            for example in examples(rngs["train"], train, held_out=False)
        ],
        **{
            name: [
                {**prompt(example), **answer(example), **meta(example)}
                for example in examples(rngs[name], count, held_out=True)
            ]
            for name, count in (("validation", 150), ("test", 250))
        },
        "preferences": comparisons(rngs["preferences"], preferences, held_out=False),
        "preferences_test": comparisons(rngs["preferences_test"], 250, held_out=True),
    }


def write_files(folder: Path, files: Mapping[str, Sequence[Row]]) -> None:
    """Writes each list of rows to `folder/<name>.jsonl`, with an `id` in front of each row."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as out:
            for number, row in enumerate(rows):
                out.write(json.dumps({"id": f"{name}-{number:04d}", **row}, ensure_ascii=False) + "\n")


def run(build: Callable[[], Mapping[str, Sequence[Row]]], folder: Path) -> None:
    """The command line of a generator: rewrites the files in `folder`, or in the one that `--out` names."""
    parser = argparse.ArgumentParser(description="Rewrites the sample data of this task.")
    parser.add_argument("--out", type=Path, default=folder, help="where to write (default: beside this script)")
    write_files(parser.parse_args().out, build())
