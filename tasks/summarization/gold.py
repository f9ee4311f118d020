"""The hidden gold reward of the summarization sample: does the headline tell the facts, and nothing else?"""

import re

import torch
from rlhf_lightning.tasks.overlap import ordered_overlap

WEIGHTS = {"who": 0.2, "verb": 0.15, "number": 0.25, "what": 0.15, "place": 0.25}
"""The slots of the column `facts`, in its order, and the worth of telling each."""


def read_facts(facts: str) -> dict[str, str]:
    """The slots of a column `facts`, which holds their words in the order of `WEIGHTS`."""
    return dict(zip(WEIGHTS, facts.split(), strict=True))


def headlines(facts: dict[str, str]) -> list[str]:
    """The best headlines for these facts."""
    end = f"{facts['number']} {facts['what']} in {facts['place']}"
    infinitive = facts["verb"].removesuffix("s")
    return [f"{facts['who']} {facts['verb']} {end}", f"{facts['who']} to {infinitive} {end}"]


def score_one(completion: str, facts: dict[str, str]) -> float:
    """Gold of one headline: (weighted share of the facts told in order)² x (share of the words that tell them)²."""
    words = re.findall(r"\w+", completion)
    worth = {facts[slot]: weight for slot, weight in WEIGHTS.items()}
    worth[facts["verb"].removesuffix("s")] = WEIGHTS["verb"]
    scores = []
    for headline in headlines(facts):
        target = headline.split()
        recall, precision = ordered_overlap(words, target, [worth.get(word, 0.0) for word in target])
        scores.append((recall * precision) ** 2)
    return max(scores)


def score(prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict]) -> torch.Tensor:
    """Gold of each completion, `(b,)` in [0, 1], from the column `facts` of its row."""
    return torch.tensor(
        [score_one(text, read_facts(row["facts"])) for text, row in zip(completions, meta, strict=True)]
    )
