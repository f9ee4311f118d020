"""A reward model against people: how often it is right, how sure it is, and where it disagrees with them."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_lightning.data.rows import PreferenceRow
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Value
from rlhf_lightning.feedback.report.disputes import MOST, cut
from rlhf_lightning.feedback.report.figures import FEWEST, Figure, few, none, share_by
from rlhf_lightning.feedback.rows import rows_of
from rlhf_lightning.feedback.rules import Rules, prompt_key

if TYPE_CHECKING:
    from rlhf_lightning.feedback.store import Store
    from rlhf_lightning.models import RewardModel

BINS = 10
BATCH = 64
MOST_TOKENS = 1024

RATIOS = {
    "chosen much shorter (under 2/3)": (0.0, 2 / 3),
    "chosen shorter": (2 / 3, 0.95),
    "about as long (within 5 %)": (0.95, 1 / 0.95),
    "chosen longer": (1 / 0.95, 3 / 2),
    "chosen much longer (over 3/2)": (3 / 2, math.inf),
}
"""Groups of pairs, by the length of the chosen answer as a multiple of the rejected one's (characters)."""


class Bin(Value):
    """Pairs on which the model is about as sure.

    Attributes:
        low, high: of the probability ``sigmoid(|difference of scores|)`` that it gives to the answer it prefers.
        pairs: in it.
        confidence: mean of that probability; None without a pair.
        right: share of pairs in which people prefer that answer, too.
    """

    low: float
    high: float
    pairs: int
    confidence: float | None
    right: float | None


class Contradiction(Value):
    """A pair on which the model disagrees with people; ``gap`` is by how much it scores the rejected answer higher."""

    prompt: str
    chosen: str
    rejected: str
    gap: float
    events: list[str]


class RewardCheck(Value):
    """A reward model on pairs that people judged.

    Attributes:
        model: its folder or name.
        held_out: how pairs were chosen, in words.
        pairs, left_out: used, and left out as the model was trained on them or on their prompts.
        accuracy: share of pairs whose chosen answer scores higher, equal scores counting one half.
        longer: the same of the rule that the longer answer wins.
        by_length: the accuracy in groups by length (`RATIOS`).
        calibration_error: expected calibration error: the mean over pairs of the difference between confidence and
            share of right ones in ten bins of equal width (Guo et al., 2017, arXiv:1706.04599).
        bins: these bins.
        contradictions: the pairs on which it disagrees most.
    """

    model: str
    held_out: str
    pairs: int
    left_out: int
    accuracy: Figure
    longer: Figure
    by_length: dict[str, Figure]
    calibration_error: Figure
    bins: list[Bin]
    contradictions: list[Contradiction]


# --- what it was trained on ------------------------------------------------------------------------------------------


def trained_on(folder: str, store: Store | None) -> tuple[set[str] | None, str]:
    """The events that a reward model was trained on, and how that is known, in words; None where it isn't.

    It is known where the store has a note of an export of kind ``model`` for this folder (or one above it), or where
    the folder lies in a run whose config names files of rows that say of which events they are.
    """
    path = Path(folder).expanduser().absolute()
    noted = _noted(path, store) if store is not None else None
    if noted is not None:
        return noted, "pairs of events, and of prompts, other than those that the store notes for this model"
    for run in path.parents[:2]:
        if (run / "metrics.json").is_file() and (found := _of_run(run)) is not None:
            return found, "pairs of events, and of prompts, other than those in the files that its run was trained on"
    return None, (
        "all pairs: neither the store nor a run's config says what this model was trained on, so it may know them"
    )


def _noted(path: Path, store: Store) -> set[str] | None:
    import sqlalchemy as sa

    from rlhf_lightning.feedback.database import export_events, exports

    with store.engine.connect() as connection:
        models = connection.execute(sa.select(exports.c.id, exports.c.path).where(exports.c.what == "model")).tuples()
        names = [name for name, place in models if Path(place) == path or Path(place) in path.parents]
        if not names:
            return None
        used = sa.select(export_events.c.event).where(export_events.c.export.in_(names))
        return set(connection.scalars(used))


def _of_run(run: Path) -> set[str] | None:
    """The events in the rows that a run's reward model learnt from; None where its files don't say."""
    from rlhf_lightning.report.runs import read_run

    data = read_run(run).config.get("data")
    places = [data.get(name) for name in ("preferences", "unpaired")] if isinstance(data, dict) else []
    files = [Path(place) for place in places if isinstance(place, str) and place.endswith(".jsonl")]
    found: set[str] = set()
    for file in files:
        if not file.is_file():
            return None
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                events = json.loads(line).get("events") if line.strip() else []
                if not isinstance(events, list):
                    return None
                found.update(map(str, events))
    return found or None


# --- the check -------------------------------------------------------------------------------------------------------


def check(model: RewardModel, name: str, events: Sequence[Event], known: set[str] | None, held_out: str) -> RewardCheck:
    """Score the pairs that explicit judgements give (`rows.rows_of`; ties give none).

    Args:
        model: the model.
        name: its folder, for the report.
        events: that hold.
        known: events that it was trained on; None where that is not known.
        held_out: how that is known, in words.
    """
    rows = rows_of(events, Rules()).preferences
    by_id = {event.id: event for event in events}
    prompts = {prompt_key(by_id[event].asked) for event in known or () if event in by_id}
    used = [
        row
        for row in rows
        if not (known and known.intersection(row.meta["events"]))
        and prompt_key(by_id[row.meta["events"][0]].asked) not in prompts
    ]
    return checked(used, _gaps(model, used), name, held_out, len(rows) - len(used))


def _gaps(model: RewardModel, rows: Sequence[PreferenceRow]) -> np.ndarray:
    """(n,) score of the chosen answer less that of the rejected one."""
    gaps: list[float] = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        prompts = [row.prompt for row in part]
        chosen = model.score(prompts, [row.chosen for row in part])
        rejected = model.score(prompts, [row.rejected for row in part])
        gaps += (chosen - rejected).float().tolist()
    if not np.isfinite(gaps).all():
        raise UserError("the reward model gives scores that are no numbers")
    return np.array(gaps)


def checked(
    rows: Sequence[PreferenceRow], gaps: np.ndarray, name: str, held_out: str, left_out: int = 0
) -> RewardCheck:
    """The figures, of gaps (n,) by which a model scores the chosen answers higher than the rejected ones."""
    right = np.where(gaps > 0, 1.0, np.where(gaps < 0, 0.0, 0.5))
    ratio = np.array([len(row.chosen) / len(row.rejected) for row in rows])
    prompts = [str(row.prompt.text) for row in rows]
    of = "pairs that people judged"
    groups: dict[str, list[int]] = defaultdict(list)
    for i, value in enumerate(ratio):
        groups[next(title for title, (low, high) in RATIOS.items() if low <= value < high)].append(i)
    bins = _bins(gaps, right)
    off = sum(b.pairs * abs(b.confidence - b.right) for b in bins if b.confidence is not None and b.right is not None)
    error = Figure(value=off / len(rows), n=len(rows)) if len(rows) >= FEWEST else none(few(len(rows), of), len(rows))
    worst = [int(i) for i in np.argsort(gaps, kind="stable")[:MOST] if gaps[i] < 0]
    return RewardCheck(
        model=name,
        held_out=held_out,
        pairs=len(rows),
        left_out=left_out,
        accuracy=share_by(right.tolist(), prompts, of),
        longer=share_by((0.5 + (ratio > 1) / 2 - (ratio < 1) / 2).tolist(), prompts, of),
        by_length={
            title: share_by([float(right[i]) for i in groups[title]], [prompts[i] for i in groups[title]], "pairs")
            for title in RATIOS
        },
        calibration_error=error,
        bins=bins,
        contradictions=[
            Contradiction(
                prompt=cut(_plain(rows[i])),
                chosen=cut(rows[i].chosen),
                rejected=cut(rows[i].rejected),
                gap=-float(gaps[i]),
                events=list(rows[i].meta["events"]),
            )
            for i in worst
        ],
    )


def _bins(gaps: np.ndarray, right: np.ndarray) -> list[Bin]:
    confidence = 1 / (1 + np.exp(-np.minimum(np.abs(gaps), 500)))
    where = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    bins = []
    for b in range(BINS):
        inside = where == b
        mean = [float(x[inside].mean()) if inside.any() else None for x in (confidence, right)]
        low, high = 0.5 + b / BINS / 2, 0.5 + (b + 1) / BINS / 2
        bins.append(Bin(low=low, high=high, pairs=int(inside.sum()), confidence=mean[0], right=mean[1]))
    return bins


def _plain(row: PreferenceRow) -> str:
    text = row.prompt.text
    return text if isinstance(text, str) else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in text)


def load(folder: str) -> RewardModel:
    """The reward model in a folder, with the limits in tokens that its run had, where it lies in one.

    Elsewhere prompts and answers may have half of its window each, and 1024 tokens at most.

    Raises:
        UserError: if it can't be loaded.
    """
    from rlhf_lightning.models import ModelSpec, RewardModel
    from rlhf_lightning.models.loading import load_config, positions
    from rlhf_lightning.report.runs import read_run

    half = min((positions(load_config(ModelSpec(folder))) or 2 * MOST_TOKENS) // 2, MOST_TOKENS)
    limits: dict[str, Any] = {"max_prompt": half, "max_completion": half}
    for run in Path(folder).expanduser().absolute().parents[:2]:
        if (run / "metrics.json").is_file():
            task = read_run(run).config.get("task")
            names = {"max_prompt": "max_prompt_tokens", "max_completion": "max_completion_tokens"}
            values = {ours: task.get(name) for ours, name in names.items()} if isinstance(task, dict) else {}
            limits |= {ours: value for ours, value in values.items() if isinstance(value, int)}
    return RewardModel.load(folder, **limits).requires_grad_(False).eval()
