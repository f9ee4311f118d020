"""What people say of a run's policies, as `rlhf_lightning.report.human` keeps and shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.feedback.report.agreement import agreements
from rlhf_lightning.feedback.report.models import Match, duel, matches_of
from rlhf_lightning.report.human import Human, Preferred
from rlhf_lightning.report.runs import Run


def human_of(run: Run, events: Sequence[Event]) -> Human:
    """Win rates of each policy over those before it.

    Args:
        run: whose policies are compared. Candidates know them by their names.
        events: that hold; those that say that they are of another run are left out. What simulated annotators said
            counts only where nobody else said anything.
    """
    own = [event for event in events if event.asked.meta.get("run") in (None, run.path.name)]
    people = [event for event in own if event.annotator.role != "simulated"]
    policies = [policy.name for policy in run.results.policies]
    found = [_matches(policies, part) for part in (people, own)]
    matches, judged, simulated = (found[0], people, False) if found[0] else (found[1], own, True)

    preferred = []
    for other, policy in combinations(policies, 2):
        if two := matches.get((policy, other)):
            one = duel(policy, other, two)
            counts = (one.won, one.tied, one.lost, one.prompts, one.people)
            preferred.append(Preferred(policy, other, one.wins.value, one.wins.low, one.wins.high, *counts))
    used = {match.event.question for two in matches.values() for match in two}
    pairs = [event for event in judged if event.question in used and isinstance(event.payload, Pairwise)]
    alphas = [one.alpha for one in agreements(pairs) if one.aspect is None]
    alpha = alphas[0] if alphas else None
    if alpha is None:
        return Human(preferred, simulated=simulated and bool(preferred))
    return Human(preferred, alpha.value, alpha.low, alpha.high, simulated and bool(preferred))


def _matches(policies: Sequence[str], events: Sequence[Event]) -> dict[tuple[str, str], list[Match]]:
    """Comparisons of two policies, by both, the later policy before the earlier."""
    by_pair: dict[tuple[str, str], list[Match]] = defaultdict(list)
    for match in matches_of(events)[0]:
        if match.first in policies and match.second in policies:
            later, earlier = sorted((match.first, match.second), key=policies.index, reverse=True)
            by_pair[later, earlier].append(match)
    return by_pair
