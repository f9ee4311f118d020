"""Judgements that belong together: the pairs of one ranking of several completions."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.data.rows import PreferenceRow, UnpairedRow
from rlhf_lightning.errors import UserError

Judged = PreferenceRow | UnpairedRow
"""What a reward is learnt from."""


def together(rows: Sequence[Judged]) -> list[list[Judged]]:
    """Rows as what batches are made of: all pairs of a ranking as one, every other row by itself.

    Args:
        rows: pairs, and completions with a thumb up or down.

    Returns:
        Each row once; rankings stand where the first of their pairs did.

    Raises:
        UserError: if a ranking has pairs of several prompts.
    """
    made: list[list[Judged]] = []
    rankings: dict[str, list[Judged]] = {}
    for row in rows:
        group = row.group if isinstance(row, PreferenceRow) else None
        if group is None:
            made.append([row])
        elif group not in rankings:
            rankings[group] = [row]
            made.append(rankings[group])
        elif row.prompt != rankings[group][0].prompt:
            raise UserError(
                f"the ranking {group!r} has pairs of several prompts; the completions of a ranking answer one: give "
                "each ranking a name of its own (task.format.group)"
            )
        else:
            rankings[group].append(row)
    return made


def ranks(pairs: Sequence[PreferenceRow]) -> dict[str, int]:
    """The order that the pairs of a ranking stand for.

    Args:
        pairs: all of the ranking's; of two tied completions none, or one of probability 0.5.

    Returns:
        For each completion how many are better: 0 is the best, tied ones have equally many.

    Raises:
        UserError: if they make no order, or have margins or probabilities, which an order doesn't.
    """
    if any(pair.margin or pair.probability not in (0.5, 1.0) for pair in pairs):
        raise UserError(
            f"{_named(pairs)} has pairs with a margin or a probability between 0.5 and 1, which "
            "reward.ranking=plackett_luce knows nothing of: choose reward.ranking=pairs"
        )
    better = {(pair.chosen, pair.rejected) for pair in pairs if pair.probability == 1}
    above = {text: 0 for pair in pairs for text in (pair.chosen, pair.rejected)}
    for _, worse in better:
        above[worse] += 1
    texts = list(above)
    apart = sum(above[a] != above[b] for i, a in enumerate(texts) for b in texts[i + 1 :])
    tied = [pair for pair in pairs if pair.probability == 0.5]
    # All of `better` go down, and there are as many of them as ways down: so each way down is one of them.
    ordered = all(above[a] < above[b] for a, b in better) and len(better) == apart
    if not ordered or any(above[pair.chosen] != above[pair.rejected] for pair in tied):
        raise UserError(
            f"the pairs of {_named(pairs)} make no order: each of its {len(texts)} completions must be compared with "
            "each other one, and none may beat itself in a circle. reward.ranking=pairs takes them as they are."
        )
    return above


def _named(pairs: Sequence[PreferenceRow]) -> str:
    return f"the ranking {pairs[0].group!r}"
