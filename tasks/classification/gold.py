"""The hidden gold reward of the classification sample: the right label and no word more."""

import torch

KINDS = {"tech": "headline", "sports": "headline", "positive": "review", "negative": "review"}
"""The labels, and the kind of text that each is for."""
SAME_KIND = 0.15
"""Gold of the wrong label of the right kind: `positive` for a negative review."""


def score_one(completion: str, topic: str) -> float:
    """Gold of one label: 1 if it is `topic`, a little if it fits the kind of text, divided by the number of words."""
    words = completion.lower().split()
    if not words or words[0] not in KINDS:
        return 0.0
    if words[0] == topic:
        return 1.0 / len(words) ** 2
    return SAME_KIND / len(words) ** 2 if KINDS[words[0]] == KINDS[topic] else 0.0


def score(prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict]) -> torch.Tensor:
    """Gold of each completion, `(b,)` in [0, 1], from the column `topic` of its row."""
    return torch.tensor([score_one(text, row["topic"]) for text, row in zip(completions, meta, strict=True)])
