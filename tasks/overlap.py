"""Word overlap that the gold rewards of the sample tasks share."""

from collections.abc import Sequence


def ordered_overlap(words: Sequence[str], target: Sequence[str], weights: Sequence[float]) -> tuple[float, float]:
    """Best in-order alignment of `words` with `target`: a weighted longest common subsequence.

    Args:
        words: the completion, split into units (words or characters).
        target: what a perfect completion would be, split in the same way.
        weights: the worth of each unit of `target`, one number a unit, none negative.

    Returns:
        `(recall, precision)`: the share of the target's weight that was found, and the share of `words` that the
        alignment uses. Both are 0 where `words` is empty.
    """
    if not words:
        return 0.0, 0.0
    # best[j] = (weight found, units used) of the best alignment of the words so far with target[:j]
    best = [(0.0, 0)] * (len(target) + 1)
    units = set(target)
    for word in words:
        if word not in units:
            continue
        diagonal = left = best[0]
        for j, (unit, weight) in enumerate(zip(target, weights, strict=True), start=1):
            above = best[j]
            if above > left:
                left = above
            if unit == word:
                left = max(left, (diagonal[0] + weight, diagonal[1] + 1))
            best[j], diagonal = left, above
    found, used = best[-1]
    return min(1.0, found / sum(weights)), used / len(words)
