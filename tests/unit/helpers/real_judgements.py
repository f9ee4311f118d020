"""Public sets of human judgements as events; each reader says what of the set it takes and what it leaves out."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.payloads import Pairwise

TIME = datetime(2025, 1, 1, tzinfo=timezone.utc)
SPLITS = ("train", "dev", "test")
KNOWN_RATERS = 3
"""Of mlqe_pe's dev and test sets the first so many scores are of the same people throughout: their z-scores are one
linear function of their scores in both. The other scores, and all of the training set's, are of changing people."""


def _event(name: str, item: str, asked: Asked, texts: list[str], person: str, payload: dict[str, Any], **more: Any):
    return Event(
        id=name,
        time=TIME,
        item=item,
        kind=payload["kind"],
        asked=asked,
        candidates=tuple(Candidate(text=text, **more) for text in texts),
        annotator=Annotator(id=person, role="user" if payload["kind"] == "implicit" else "annotator"),
        payload=payload,  # type: ignore[arg-type]
    )


def ifllm(folder: Path) -> Iterator[Event]:
    """IFLLM's queries with two answers: the preference of who asked, and for how many gaze samples each was looked at.

    Queries with one answer, and those without a preference, are left out. Counts of samples are dwell in the unit
    ``count``. The second file calls the first answer left: the lengths it gives are those of the texts, but for a few
    characters; where one is -1, that side was not recorded, and the dwell is left out.
    """
    with (folder / "all_metrics.csv").open(encoding="utf-8", newline="") as file:
        looks = {row["query_id"]: row for row in csv.DictReader(file)}
    with (folder / "query_logs_table.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            texts = [row["llm_response_1"], row["llm_response_2"]]
            if not all(texts) or row["preference"] not in ("1.0", "2.0"):
                continue
            name, person = row["query_ID"], row["user_id"]
            asked = Asked(text=row["user_query"], person=person, document=f"task-{row['task_id']}")
            winner = int(float(row["preference"])) - 1
            yield _event(
                f"said-{name}", name, asked, texts, person, {"kind": "pairwise", "outcome": "win", "winner": winner}
            )
            look = looks.get(name)
            if look is None or any(look[f"query_length_{side}"] == "-1" for side in ("left", "right")):
                continue
            for i, side in enumerate(("left", "right")):
                assert abs(int(look[f"query_length_{side}"]) - len(texts[i])) <= 5
                dwell = {"kind": "implicit", "signal": "dwell", "candidate": i, "unit": "count", "visible": 2}
                dwell |= {"position": i, "value": float(look[f"response_{side}"])}
                yield _event(f"look-{name}-{i}", name, asked, texts, person, dwell)


def mlqe_ratings(folder: Path) -> Iterator[Event]:
    """Every score of every translation, 0 to 100; who gave it is known for some (`KNOWN_RATERS`)."""
    for part in SPLITS:
        for number, (row, document) in enumerate(mlqe_rows(folder, part)):
            asked = Asked(
                text=f"{row['original']}\nTranslation:",
                document=document,
                meta={"source": row["original"]},
                language="en",
            )
            for place, score in enumerate(json.loads(row["scores"])):
                known = part != "train" and place < KNOWN_RATERS
                values = {"kind": "rating", "values": {"adequacy": [score]}, "low": 0, "high": 100}
                person = f"rater-{place}" if known else f"{part}-{number}-{place}"
                yield _event(
                    f"score-{part}-{number}-{place}", f"{part}-{number}", asked, [row["translation"]], person, values
                )


def mlqe_corrections(folder: Path) -> Iterator[Event]:
    """Every post-edited translation; both are as the set has them, cut into words."""
    for part in SPLITS:
        documents = [document for _, document in mlqe_rows(folder, part)]
        with tarfile.open(folder / "post-editing" / part / f"en-zh-{part}.tar.gz") as archive:
            source, machine, edited = (_lines(archive, f".{kind}") for kind in ("src", "mt", "pe"))
        for number, texts in enumerate(zip(source, machine, edited, documents, strict=True)):
            asked = Asked(text=f"{texts[0]}\nTranslation:", document=texts[3], meta={"source": texts[0]}, language="en")
            payload = {"kind": "correction", "text": texts[2]}
            name = f"{part}-{number}"
            yield _event(f"edit-{name}", name, asked, [texts[1]], "posteditor", payload)


def mlqe_rows(folder: Path, part: str) -> list[tuple[dict[str, str], str]]:
    """The rows of a part, each with the article it is from."""
    with tarfile.open(folder / "direct-assessments" / part / f"en-zh-{part}.tar.gz") as archive:
        table = "\n".join(_lines(archive, ".tsv"))
        documents = _lines(archive, ".doc_ids")[1:]
    rows = list(csv.DictReader(io.StringIO(table, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    return list(zip(rows, documents, strict=True))


def _lines(archive: tarfile.TarFile, end: str) -> list[str]:
    (name,) = [name for name in archive.getnames() if name.endswith(end)]
    file = archive.extractfile(name)
    assert file is not None
    return file.read().decode("utf-8").removesuffix("\n").split("\n")


def truthfulqa(folder: Path) -> Iterator[Event]:
    """Every question with its best answer over its best incorrect one, as the set's authors judge them."""
    with (folder / "TruthfulQA.csv").open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            asked = Asked(text=row["Question"], meta={"category": row["Category"]})
            texts = [row["Best Answer"], row["Best Incorrect Answer"]]
            said = Pairwise(outcome="win", winner=0, aspect="truth")
            yield _event(f"truth-{number}", f"{number}", asked, texts, "authors", said.model_dump())
