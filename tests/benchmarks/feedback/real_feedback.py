"""What public sets of human judgements give: rows, how often signs of use are right, and how raters agree.

usage: real_feedback.py --data SHARED_DATA
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit"))

from helpers import real_judgements as sets

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.implicit import implicit_accuracy, leans
from rlhf_lightning.feedback.rows import rows_of, split_rows
from rlhf_lightning.feedback.rules import Rules
from rlhf_lightning.feedback.statistics.agreement import alpha_interval


def tell(name: str, events: list[Event], by: str = "prompt", **rules: object) -> None:
    """How many rows events give, and how long that takes."""
    began = time.perf_counter()
    rows = rows_of(events, Rules(**rules))  # type: ignore[arg-type]
    seconds = time.perf_counter() - began
    rest, held = split_rows(rows, 0.1, by)  # type: ignore[arg-type]
    kinds = dict(Counter(event.kind for event in events))
    print(
        f"{name} {rules or ''}: {kinds} events -> {len(rows.preferences)} pairs, {len(rows.sft)} sft ({seconds:.1f} s)"
    )
    print(f"  gave no row: {dict(Counter(rows.unused.values()))}")
    print(f"  held out by {by}: {len(held)} of {len(rest) + len(held)}")


def ifllm(data: Path) -> None:
    """Dwell against the explicit preference."""
    events = list(sets.ifllm(data / "ifllm_implicit"))
    tell("ifllm", events, by="person")
    tell("ifllm, signs alone", [event for event in events if event.kind == "implicit"], by="person", implicit=True)
    for title, raw in (("raw dwell", True), ("dwell by character and person", False)):
        one = implicit_accuracy(events, raw_dwell=raw)["dwell"]
        print(f"  {title}: {one.agreed} of {one.n} = {one.share:.3f} ({one.low:.3f} to {one.high:.3f})")
        first = [lean.better == pair[0] for pair, lean in _first(events, raw)]
        print(f"    of all leans, to the first answer: {np.mean(first):.3f} of {len(first)}")
    wins = [event.payload.winner == 0 for event in events if event.kind == "pairwise"]  # type: ignore[union-attr]
    longer = [
        (len(e.candidates[0].text) > len(e.candidates[1].text)) == (e.payload.winner == 0)  # type: ignore[union-attr]
        for e in events
        if e.kind == "pairwise"
    ]
    print(f"  the first answer is preferred: {np.mean(wins):.3f} of {len(wins)}; the longer one: {np.mean(longer):.3f}")


def _first(events: list[Event], raw: bool) -> list:
    """Leans of dwell with the texts in the order in which they were shown."""
    shown = {(e.annotator.id, tuple(sorted(c.text.strip() for c in e.candidates))): e for e in events}
    found = []
    for (person, _, *texts), signs in leans(events, raw).items():
        event = shown[person, tuple(sorted(texts))]
        found += [(([c.text.strip() for c in event.candidates]), lean) for lean in signs]
    return found


def mlqe(data: Path) -> None:
    """Ratings by several people, and corrections."""
    folder = data / "mlqe_pe_enzh"
    corrections, ratings = list(sets.mlqe_corrections(folder)), list(sets.mlqe_ratings(folder))
    tell("mlqe corrections", corrections, by="document")
    tell("mlqe ratings", ratings, by="document")
    tell("mlqe ratings", ratings, by="document", merge="soft")
    every = [row for part in sets.SPLITS for row, _ in sets.mlqe_rows(folder, part)]
    known = [row for part in ("dev", "test") for row, _ in sets.mlqe_rows(folder, part)]
    for title, column, rows, most in (
        ("all scores, whoever gave them", "scores", every, 6),
        ("the same, as z-scores within rater", "z_scores", every, 6),
        ("three known raters", "scores", known, 3),
        ("the same, as z-scores within rater", "z_scores", known, 3),
    ):
        table = np.full((len(rows), most), np.nan)
        for i, row in enumerate(rows):
            values = json.loads(row[column])[:most]
            table[i, : len(values)] = values
        alpha = alpha_interval(table, "interval", draws=200)
        print(f"  alpha, {title}: {alpha.value:.3f} ({alpha.low:.3f} to {alpha.high:.3f}), {len(rows)} translations")
    table = np.array([json.loads(row["scores"])[:3] for row in known], dtype=float)
    print(f"  correlations of the three: {np.corrcoef(table.T)[np.triu_indices(3, 1)].round(3)}")


def truthfulqa(data: Path) -> None:
    """True over false answers."""
    events = list(sets.truthfulqa(data / "truthfulqa"))
    tell("truthfulqa", events)
    rows = rows_of(events).preferences
    print(f"  the longer answer is chosen: {np.mean([len(row.chosen) > len(row.rejected) for row in rows]):.3f}")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("RLHF_SHARED_DATA")
    parser.add_argument("--data", type=Path, default=default, required=default is None)
    data = Path(parser.parse_args().data)
    ifllm(data)
    mlqe(data)
    truthfulqa(data)


if __name__ == "__main__":
    main()
