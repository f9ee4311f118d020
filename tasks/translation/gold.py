"""The hidden gold reward of the translation sample: is it the Chinese sentence that a careful translator writes?"""

import re

import torch
from rlhf_lightning.tasks.overlap import ordered_overlap

GRAMMAR = set("没会想了那本张把只条辆件台个盏匹")
"""Particles, auxiliaries and measure words; every other word is content."""
WEIGHTS = {"content": 2.0, "grammar": 1.5, "end": 0.25}
"""Worth of a word of each sort; `end` is the last one, punctuation and a question's particle."""
ENGLISH_ORDER = 0.4
"""Gold of the right words with place and time at the end."""


def translations(words: list[str]) -> list[str]:
    """The best translations, from the words in the order subject, time, the rest: the time may also stand first."""
    subject, time, *rest = words
    return ["".join([subject, time, *rest]), "".join([time, subject, *rest])]


def english_order(words: list[str]) -> str:
    """The same words with place and time behind the object, where English has them."""
    subject, time, *rest, end = words
    place = next(word for word in rest if word.startswith("在"))
    rest.remove(place)
    return "".join([subject, *rest, place, time, end])


def score_one(completion: str, words: list[str]) -> float:
    """Gold of one translation.

    The best, over the sentences that it may be meant for, of (weighted share of their characters found in order)³ x
    (share of its own characters in use)³; times `ENGLISH_ORDER` for the sentence in English order.
    """
    characters = re.sub(r"\s", "", completion)
    worth: dict[str, float] = {}
    for word in words:
        sort = "end" if word == words[-1] else "grammar" if word in GRAMMAR else "content"
        for character in word:
            worth[character] = max(worth.get(character, 0.0), WEIGHTS[sort] / len(word))
    best = 0.0
    for target, factor in [*((order, 1.0) for order in translations(words)), (english_order(words), ENGLISH_ORDER)]:
        if factor > best:
            recall, precision = ordered_overlap(characters, target, [worth[character] for character in target])
            best = max(best, factor * (recall * precision) ** 3)
    return best


def score(prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict]) -> torch.Tensor:
    """Gold of each completion, `(b,)` in [0, 1], from the column `words` of its row."""
    return torch.tensor([score_one(text, row["words"].split()) for text, row in zip(completions, meta, strict=True)])
