"""What the script of a comparison's page works on: answers, drawn curves, the table as CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from rlhf_lightning.comparison.answers import held_out_rows
from rlhf_lightning.comparison.pictures import Panel
from rlhf_lightning.comparison.rows import Rows
from rlhf_lightning.comparison.significance import Tests
from rlhf_lightning.comparison.table import csv_text, short
from rlhf_lightning.report.results import Sample

MOST_ANSWERS = 300
"""Held-out rows that the page holds of each policy."""

MOST_TEXT = 2_500_000
"""Characters of prompts and answers that the page holds; of many runs it has fewer rows."""


def safe_json(value: Any) -> str:
    """JSON that can stand in a script element: it holds no ``<``, and no character that ends a line of JavaScript.

    >>> safe_json("</script>")
    '"\\\\u003c/script>"'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def page_data(rows: Rows, tests: Tests | None, panels: Sequence[Panel]) -> dict[str, Any]:
    """What the page's script works on: answers, drawn curves, the table as CSV."""
    answered = [(row, run) for row in rows.rows for run in row.runs if held_out_rows(run)]
    keep = _rows_kept([run.samples() for _, run in answered])
    sets: dict[tuple, int] = {}
    held: list[list[dict[str, Any]]] = []
    policies: list[dict[str, Any]] = []
    starts: list[dict[str, Any]] = []
    places: dict[tuple[int, str], int] = {}
    for row, run in answered:
        asked, samples = held_out_rows(run), run.samples()[:keep]
        if asked not in sets:
            sets[asked] = len(sets)
            held.append([{"id": s.id, "prompt": s.prompt, "references": s.references} for s in samples])
        seed = f", seed {run.results.seed}" if len(row.runs) > 1 else ""
        for policy in run.results.policies:
            made = {"set": sets[asked], **_texts(samples, policy.name)}
            if policy is run.results.policies[0] and policy is not run.final:
                if made in starts:  # most runs start from the same model
                    continue
                starts.append(made)
            places[id(run), policy.name] = len(policies)
            policies.append({"label": f"{short(row.name, 60)}{seed}, {policy.name}", **made})
    return {
        "sets": held,
        "held": [len(asked) for asked in sets],
        "policies": policies,
        "chosen": _chosen(rows, places),
        "directions": {name: way for _, run in answered for name, way in run.results.directions.items()},
        "curves": _curves(rows, panels),
        "table": csv_text(rows, tests),
    }


def _rows_kept(runs: Sequence[Sequence[Sample]]) -> int:
    """How many held-out rows of each run fit the page."""
    left = MOST_TEXT
    for i, at in enumerate(zip_longest(*runs)):
        left -= sum(len(s.prompt) + sum(map(len, s.completions.values())) for s in at if s is not None)
        if left < 0 or i == MOST_ANSWERS:
            return max(i, 1)
    return MOST_ANSWERS


def _texts(samples: Sequence[Sample], policy: str) -> dict[str, Any]:
    """A policy's answers, and their scores by reward."""
    names = dict.fromkeys(name for sample in samples for name in sample.scores.get(policy, {}))
    scores = {name: [_finite(s.scores.get(policy, {}).get(name)) for s in samples] for name in names}
    return {"texts": [s.completions.get(policy, "") for s in samples], "scores": scores}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _chosen(rows: Rows, places: dict[tuple[int, str], int]) -> tuple[int, int]:
    """The two policies that are shown at first: the final ones of the first and of the best row, or the last two.

    They are of one task; rows without answers, and rows whose objective is not a number, are not the best.
    """
    ends: dict[int, int] = {}
    for i, row in enumerate(rows.rows):
        final = row.runs[0].final
        if final and (id(row.runs[0]), final.name) in places and row.task == rows.rows[min([*ends, i])].task:
            ends[i] = places[id(row.runs[0]), final.name]
    if len(ends) < 2:
        return max(len(places) - 2, 0), max(len(places) - 1, 0)
    first, *others = ends
    name = rows.rows[first].objective or ""
    sign = -1 if rows.rows[first].direction(name) == "min" else 1
    means = {i: sign * sum(values) / len(values) for i in ends if (values := rows.rows[i].values(name))}
    means = {i: mean for i, mean in means.items() if math.isfinite(mean)}
    best = max(means, key=lambda i: means[i], default=first)  # the first of those that are as good
    return ends[first], ends[best if best != first else others[0]]


def _curves(rows: Rows, panels: Sequence[Panel]) -> list[dict[str, Any]]:
    return [
        {
            "stage": panel.stage,
            "name": panel.name,
            "part": "validation" if panel.validation else "training",
            "row": rows.rows[i].name,
            "steps": over.mean.steps,
            **{side: [_finite(v) for v in getattr(over, side).values] for side in ("mean", "low", "high")},
            "runs": over.runs,
        }
        for panel in panels
        for i, over in panel.rows.items()
    ]
