"""What several people say of the same thing, as rows: each by itself, or merged into one."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rlhf_lightning.data.rows import PreferenceRow, SFTRow, UnpairedRow
from rlhf_lightning.feedback.pairs import TIED, Opinion, Says
from rlhf_lightning.feedback.rules import Dropped, Merge, Origin, Ties, prompt_key

BAD = "both are bad"
SETTLED = "settled by an adjudicator"
SPLIT = "as many say one thing as another"


# --- pairs -----------------------------------------------------------------------------------------------------------


def pair_rows(opinions: Sequence[Opinion], merge: Merge, ties: Ties) -> Iterator[PreferenceRow | UnpairedRow | Dropped]:
    """Rows of comparisons.

    Where comparisons are merged, those of the same two texts, prompt and aspect become one row; its weight is the mean
    of theirs. An adjudicator's alone decides. By majority the four answers (one, the other, a tie, both bad) are
    counted; if none has the most votes, it is a tie. For probabilities a tie, or both bad, is half a vote for either
    (``soft``) or a class of its own whose probability is halved (``dawid_skene``). That both are bad makes negatives of
    them where most say so.

    Args:
        opinions: of any prompts and people.
        merge: how (`Rules.merge`).
        ties: what becomes of ties (`Rules.ties`).
    """
    if merge == "each":
        for one in opinions:
            yield from _row(one, one.says, one.probability, ties)
        return
    groups: dict[Hashable, list[Opinion]] = defaultdict(list)
    for one in opinions:
        turned = _turned(one)
        groups[prompt_key(one.origin.asked), turned.first, turned.second, one.origin.aspect].append(turned)
    open_groups: dict[Hashable, list[Opinion]] = {}
    for key, group in groups.items():
        verdicts = [one for one in group if one.settled]
        if verdicts:
            last = verdicts[-1]
            yield from _row(last, last.says, last.probability, ties)
            others = tuple(event for one in group if one is not last for event in one.origin.events)
            if others:
                yield Dropped(others, SETTLED)
        else:
            open_groups[key] = group
    chances = _chances(open_groups, merge)
    for key, group in open_groups.items():
        says, probability = chances[key]
        share = sum(one.says == says for one in group) / len(group)
        yield from _row(_joined(group, says), says, probability, ties, share)


def _turned(one: Opinion) -> Opinion:
    """The same opinion with the texts in their own order, so that those of all people can be compared."""
    if one.first <= one.second:
        return one
    flipped: dict[Says, Says] = {"first": "second", "second": "first"}
    return replace(one, first=one.second, second=one.first, says=flipped.get(one.says, one.says))


def _joined(group: Sequence[Opinion], says: Says) -> Opinion:
    agreeing = [one.margin for one in group if one.says == says]
    return replace(
        group[0],
        origin=Origin.joined(one.origin for one in group),
        weight=statistics.fmean(one.weight for one in group),
        margin=statistics.fmean(agreeing) if agreeing else 0.0,
        group=None,
    )


def _chances(groups: Mapping[Hashable, Sequence[Opinion]], merge: Merge) -> dict[Hashable, tuple[Says, float]]:
    """By group what most say, and the probability that its first text is better."""
    from rlhf_lightning.feedback.statistics.consensus import majority, soft_probabilities

    most: dict[Hashable, Says] = {}
    for key, group in groups.items():
        label = majority(one.says for one in group).label
        most[key] = label if label is not None else "tie"  # type: ignore[assignment]
    if merge == "majority":
        return {key: (says, {"first": 1.0, "second": 0.0}.get(says, 0.5)) for key, says in most.items()}
    if merge == "soft":
        chance = {}
        for key, group in groups.items():
            first = sum(one.probability for one in group)
            chance[key] = float(soft_probabilities([first, len(group) - first])[0])
    else:
        votes = {
            key: [(one.origin.annotators[0], "tie" if one.says == "both_bad" else one.says) for one in group]
            for key, group in groups.items()
        }
        chance = {
            key: shares["first"] + shares.get("tie", 0.0) / 2
            for key, shares in _dawid_skene(votes, ["first", "second"]).items()
        }
    return {key: (most[key], chance[key]) for key in groups}


def _dawid_skene(
    votes: Mapping[Hashable, Sequence[tuple[str, str]]], classes: Sequence[str] = ()
) -> dict[Hashable, dict[str, float]]:
    """Probability of each answer to each question, of votes ``(person, answer)``; ``classes`` may have no vote."""
    from rlhf_lightning.feedback.statistics.consensus import dawid_skene

    if not votes:
        return {}
    answers = list(dict.fromkeys([*classes, *(answer for said in votes.values() for _, answer in said)]))
    people = list(dict.fromkeys(person for said in votes.values() for person, _ in said))
    number = {name: i for i, name in enumerate(people)}
    flat = [(i, number[who], answers.index(answer)) for i, said in enumerate(votes.values()) for who, answer in said]
    items, raters, labels = (list(column) for column in zip(*flat, strict=True))
    fit = dawid_skene(items, raters, labels, classes=len(answers))
    return {
        key: dict(zip(answers, map(float, shares), strict=True))
        for key, shares in zip(votes, fit.posterior, strict=True)
    }


def _row(
    one: Opinion, says: Says, probability: float, ties: Ties, share: float = 1.0
) -> Iterator[PreferenceRow | UnpairedRow | Dropped]:
    """The rows of one opinion, or of one that several made; ``share`` of them say what most say."""
    origin, meta = one.origin, one.origin.meta
    if says == "both_bad":
        for text in (one.first, one.second):
            yield UnpairedRow(origin.prompt, text, False, share, meta)
    if abs(probability - 0.5) > 1e-9:
        chosen, rejected = (one.first, one.second) if probability > 0.5 else (one.second, one.first)
        sure = max(probability, 1 - probability)
        yield PreferenceRow(origin.prompt, chosen, rejected, one.weight, one.margin, sure, one.group, meta)
    elif says == "both_bad":
        yield Dropped(origin.events, BAD)
    elif ties == "half":
        yield PreferenceRow(origin.prompt, one.first, one.second, one.weight, 0.0, 0.5, one.group, meta)
    else:
        yield Dropped(origin.events, TIED)


# --- thumbs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thumb:
    """One person's thumb up or down for one completion."""

    origin: Origin
    text: str
    up: bool
    settled: bool = False


def thumb_rows(thumbs: Sequence[Thumb], merge: Merge) -> Iterator[UnpairedRow | Dropped]:
    """Rows of thumbs: one each, or one or two for all thumbs that a completion of a prompt got.

    Unpaired rows have no probability. A probability p that people like it is two rows instead, up with weight p and
    down with weight 1 - p, of which the log loss is the same.

    Args:
        thumbs: of any prompts and people.
        merge: how (`Rules.merge`).
    """
    if merge == "each":
        for one in thumbs:
            yield UnpairedRow(one.origin.prompt, one.text, one.up, 1.0, one.origin.meta)
        return
    groups: dict[Hashable, list[Thumb]] = defaultdict(list)
    for one in thumbs:
        groups[prompt_key(one.origin.asked), one.text, one.origin.aspect].append(one)
    chances = _thumb_chances(groups, merge)
    for key, group in groups.items():
        verdicts = [one for one in group if one.settled]
        up = float(verdicts[-1].up) if verdicts else chances[key]
        origin = verdicts[-1].origin if verdicts else Origin.joined(one.origin for one in group)
        others = tuple(event for one in group for event in one.origin.events if event not in origin.events)
        if others:
            yield Dropped(others, SETTLED)
        if up is None:
            yield Dropped(origin.events, SPLIT)
            continue
        for label, weight in ((True, up), (False, 1 - up)):
            if weight > 0:
                yield UnpairedRow(origin.prompt, group[0].text, label, weight, origin.meta)


def _thumb_chances(groups: Mapping[Hashable, Sequence[Thumb]], merge: Merge) -> dict[Hashable, float | None]:
    from rlhf_lightning.feedback.statistics.consensus import majority, soft_probabilities

    if merge == "dawid_skene":
        votes = {
            key: [(one.origin.annotators[0], "up" if one.up else "down") for one in group]
            for key, group in groups.items()
        }
        return {key: shares["up"] for key, shares in _dawid_skene(votes, ["up", "down"]).items()}
    chances: dict[Hashable, float | None] = {}
    for key, group in groups.items():
        ups = [one.up for one in group]
        if merge == "majority":
            label = majority(ups).label
            chances[key] = None if label is None else float(label)  # type: ignore[arg-type]
        else:
            chances[key] = float(soft_probabilities([sum(ups), len(ups) - sum(ups)])[0])
    return chances


# --- demonstrations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demonstration:
    """A completion that one person wrote, chose as a label, or rated.

    Attributes:
        origin: prompt and judgement.
        text: the completion.
        score: its rating as a share of the scale; None for what was written or chosen.
        closed: whether it is one of a closed set of labels, which several people vote on.
        settled: whether an adjudicator says it.
    """

    origin: Origin
    text: str
    score: float | None = None
    closed: bool = False
    settled: bool = False


def demonstration_rows(given: Sequence[Demonstration], merge: Merge, target: float) -> Iterator[SFTRow | Dropped]:
    """Rows to imitate: what people wrote, the label they chose, and what they rated best, if it is good enough.

    Labels of one prompt are merged to that of most, or by Dawid and Skene's model to the likeliest; ratings to their
    mean over people. What people wrote stays as it is. Completions that share the best rating are all imitated.

    Args:
        given: of any prompts and people.
        merge: how (`Rules.merge`).
        target: least rating (`Rules.target`).
    """
    labels: dict[Hashable, list[Demonstration]] = defaultdict(list)
    rated: dict[Hashable, list[Demonstration]] = defaultdict(list)
    for one in given:
        key = prompt_key(one.origin.asked)
        if one.closed and merge != "each":
            labels[key].append(one)
        elif one.score is not None:
            rated[key if merge != "each" else (key, one.origin.annotators)].append(one)
        else:
            yield SFTRow(one.origin.prompt, one.text, one.origin.meta)
    yield from _label_rows(labels, merge)
    for group in rated.values():
        yield from _best(group, target)


def _label_rows(groups: Mapping[Hashable, Sequence[Demonstration]], merge: Merge) -> Iterator[SFTRow | Dropped]:
    likely: dict[Hashable, dict[str, float]] = {}
    if merge == "dawid_skene":
        likely = _dawid_skene({key: [(d.origin.annotators[0], d.text) for d in group] for key, group in groups.items()})
    for key, group in groups.items():
        verdicts = [one for one in group if one.settled]
        chances = {verdicts[-1].text: 1.0} if verdicts else likely.get(key) or Counter(one.text for one in group)
        origin = verdicts[-1].origin if verdicts else Origin.joined(one.origin for one in group)
        others = tuple(event for one in group for event in one.origin.events if event not in origin.events)
        if others:
            yield Dropped(others, SETTLED)
        best = [text for text, chance in chances.items() if chance == max(chances.values())]
        if len(best) > 1:
            yield Dropped(origin.events, SPLIT)
        else:
            yield SFTRow(origin.prompt, best[0], origin.meta)


def _best(group: Sequence[Demonstration], target: float) -> Iterator[SFTRow | Dropped]:
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    origins: dict[str, list[Origin]] = defaultdict(list)
    for one in group:
        assert one.score is not None
        scores[one.text][one.origin.annotators[0]].append(one.score)
        origins[one.text].append(one.origin)
    means = {
        text: statistics.fmean(statistics.fmean(values) for values in people.values())
        for text, people in scores.items()
    }
    best = max(means.values())
    for text, mean in means.items():
        origin = Origin.joined(origins[text])
        if mean < best - 1e-9:
            yield Dropped(origin.events, "another one is rated better")
        elif mean < target - 1e-9:
            yield Dropped(origin.events, "rated too low to be imitated")
        else:
            yield SFTRow(origin.prompt, text, origin.meta)
