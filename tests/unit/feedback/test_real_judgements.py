"""Real judgements as rows, against counts made of the files themselves; skipped where the sets are not there."""

import csv
import json
import math
from collections import Counter, defaultdict

import pytest
from helpers import real_judgements as sets

from rlhf_lightning.feedback.implicit import implicit_accuracy
from rlhf_lightning.feedback.rows import rows_of, split_rows
from rlhf_lightning.feedback.rules import Rules


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_real_ifllm(shared_data):
    folder = shared_data / "ifllm_implicit"
    events = list(sets.ifllm(folder))
    logged = [r for r in table(folder / "query_logs_table.csv") if r["llm_response_2"] and r["preference"]]
    rows = rows_of(events)
    assert len(rows.preferences) == len(logged) == 787
    chosen = {(r["user_query"], r["llm_response_1" if r["preference"] == "1.0" else "llm_response_2"]) for r in logged}
    assert {(row.prompt.text, row.chosen) for row in rows.preferences} == {(a, b.strip()) for a, b in chosen}

    # Accuracy of dwell, by a loop over the table.
    looks = {r["query_id"]: r for r in table(folder / "all_metrics.csv")}
    numbers = defaultdict(list)
    for row in logged:
        look = looks.get(row["query_ID"])
        if look and "-1" not in (look["query_length_left"], look["query_length_right"]):
            spent = [float(look["response_left"]), float(look["response_right"])]
            texts = [row["llm_response_1"].strip(), row["llm_response_2"].strip()]
            numbers[row["user_id"], row["user_query"], min(texts), max(texts)].append(
                (texts, spent, row["preference"] == "1.0")
            )
    raw, by_character = Counter(), Counter()
    for same in numbers.values():
        assert len(same) == 1, "nobody saw the same two answers twice"
        (texts, spent, first) = same[0]
        scores = [max(x, 1) / len(text) for x, text in zip(spent, texts, strict=True)]
        for count, (a, b) in ((raw, spent), (by_character, scores)):
            if a != b:
                count[(a > b) == first] += 1
    assert implicit_accuracy(events, raw_dwell=True)["dwell"][:2] == (raw[True], raw.total())
    found = implicit_accuracy(events)["dwell"]
    assert found[:2] == (by_character[True], by_character.total())
    assert found.low < 0.5 < found.high, "dwell alone is no better than chance here"
    assert not [r for r in rows_of(events, Rules(implicit=True)).preferences if r.meta["feedback"] == "implicit"]

    rest, held = split_rows(rows, 0.2, "person")
    assert not {r.meta["person_id"] for r in rest.all} & {r.meta["person_id"] for r in held.all}


def test_real_corrections(shared_data):
    folder = shared_data / "mlqe_pe_enzh"
    events = list(sets.mlqe_corrections(folder))
    rows = rows_of(events)
    assert len(rows.sft) == len(events) == 9000
    changed = [e for e in events if "".join(e.candidates[0].text.split()) != "".join(e.payload.text.split())]
    assert len(rows.preferences) + rows.dropped["the correction changes nothing"] == 9000
    # Those that differ in code points alone are fewer still.
    assert len(changed) - 20 <= len(rows.preferences) <= len(changed)
    rest, held = split_rows(rows, 0.1, "document")
    assert not {r.meta["document_id"] for r in rest.all} & {r.meta["document_id"] for r in held.all}


def test_real_ratings_of_known_raters(shared_data):
    """Who the first three of mlqe_pe's dev and test sets are shows in their z-scores: a line each, the same in both."""
    folder = shared_data / "mlqe_pe_enzh"
    rows = [row for part in ("dev", "test") for row, _ in sets.mlqe_rows(folder, part)]
    for place in range(sets.KNOWN_RATERS):
        points = sorted({(json.loads(r["scores"])[place], json.loads(r["z_scores"])[place]) for r in rows})
        (low, z_low), (high, z_high) = points[0], points[-1]
        assert all(
            math.isclose(z, z_low + (z_high - z_low) * (x - low) / (high - low), abs_tol=1e-6) for x, z in points
        )

    events = [e for e in sets.mlqe_ratings(folder) if e.annotator.id.startswith("rater-")]
    assert len(events) == 3 * 2000
    made = rows_of(events, Rules(merge="soft"))
    means = [sum(json.loads(r["scores"])[:3]) / 3 for r in rows]
    assert len(made.sft) == sum(mean >= 75 - 1e-9 for mean in means)
    assert not made.preferences, "each source has one translation"


def test_real_truthfulqa(shared_data):
    rows = rows_of(list(sets.truthfulqa(shared_data / "truthfulqa")))
    assert len(rows.preferences) == 790
    longer = sum(len(row.chosen) > len(row.rejected) for row in rows.preferences)
    assert longer / 790 == pytest.approx(0.619, abs=5e-4)
