"""A finished run's answers as questions: which of its last two policies answers a held-out prompt better?"""

from __future__ import annotations

from pathlib import Path

from rlhf_lightning.data.files import count_of
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.text import whole_text
from rlhf_lightning.report.runs import Run, find_runs


def run_of(folder: str | Path) -> Run:
    """The one run in a folder (``LATEST`` as in `find_runs`), or in the folders just below it.

    Raises:
        UserError: if there is not exactly one.
    """
    place = Path(folder)
    if place.is_dir() and not [*place.glob("metrics.json"), *place.glob("*/metrics.json")]:  # or it would look far
        raise UserError(f"{folder} is no run's folder: it holds no metrics.json, nor does a folder in it")
    runs = find_runs([folder])
    if len(runs) > 1:
        raise UserError(f"{folder} holds {len(runs)} runs: name the folder of one, such as {runs[0].path}")
    return runs[0]


def items_of_run(folder: str | Path) -> list[Item]:
    """A pair for each held-out prompt of a run: the answers of the last two policies that answered it.

    Prompts to which both gave the same answer are left out; how many says the ``equal`` of each item's meta.

    Args:
        folder: of one run (``LATEST`` as in `find_runs`).

    Raises:
        UserError: if there is not exactly one run, or it has nothing to compare.
    """
    run = run_of(folder)
    samples = run.samples()
    if not samples:
        raise UserError(f"{run.path} has no answers to compare: there is no samples.jsonl, or it is empty")
    names = [policy.name for policy in run.results.policies if any(policy.name in s.completions for s in samples)]
    if len(names) < 2:
        raise UserError(
            f"{run.path}: answers of two policies are needed, there are those of {', '.join(names) or 'none'}"
        )
    old, new = names[-2:]
    both = [sample for sample in samples if old in sample.completions and new in sample.completions]
    differing = [sample for sample in both if sample.completions[old] != sample.completions[new]]
    if not differing:
        raise UserError(f"{run.path}: {old} and {new} gave the same answer to all of {count_of(len(both), 'prompts')}")
    models = {policy.name: policy.model for policy in run.results.policies}
    items = []
    for sample in differing:
        meta = {
            "run": run.path.name,
            "row": sample.id,
            "references": [whole_text(text) for text in sample.references],
            "equal": len(both) - len(differing),
        }
        candidates = tuple(
            Candidate(text=whole_text(sample.completions[name]), model=name, settings={"folder": models[name]})
            for name in (old, new)
        )
        asked = Asked(text=whole_text(sample.prompt), meta=meta)
        items.append(Item(kind="pairwise", task=run.results.task, asked=asked, candidates=candidates))
    return items
