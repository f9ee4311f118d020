"""`dry_run=true`: all that comes before the first step, shown, and an estimate of what the run will take."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf_lightning.callbacks.progress import about
from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.models import RewardModel
from rlhf_lightning.pipeline.costs import Cost, Measured, libraries
from rlhf_lightning.pipeline.options import processes
from rlhf_lightning.pipeline.run import Run, say
from rlhf_lightning.pipeline.stages import reward_spec
from rlhf_lightning.report.screen import show, standard_output
from rlhf_lightning.report.summary import clean
from rlhf_lightning.state import ROWS

if TYPE_CHECKING:
    from rich.table import Table

LOOKED_AT = 2000
"""Rows of a part whose lengths are taken: of more, the first so many."""

SHOWN = 3
"""Rows shown as the model will see them."""


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens of so many texts, and how many of them are over the limit."""

    median: int
    most: int
    longest: int
    limit: int
    over: int

    @classmethod
    def of(cls, lengths: Sequence[int], limit: int) -> Lengths:
        """Sum up; ``most`` is what 95 % of them don't exceed.

        >>> Lengths.of([1, 2, 3, 4, 100], limit=50)
        Lengths(median=3, most=100, longest=100, limit=50, over=1)
        """
        ordered = sorted(lengths)
        most = ordered[-(-95 * len(ordered) // 100) - 1]
        over = sum(n > limit for n in ordered)
        return cls(round(statistics.median_high(ordered)), most, ordered[-1], limit, over)


def dry_run(prepare: Callable[[Path], Run], directory: Path) -> None:
    """Show what a run would do, and what it would take. Nothing is trained, and nothing of it stays on the disk.

    Args:
        prepare: reads the data, loads the models and checks everything, for a run in the folder that it is given.
        directory: where the run would be.

    Raises:
        UserError: for whatever the run itself would refuse before its first step.
    """
    with tempfile.TemporaryDirectory() as place:
        run = prepare(Path(place))
        if run.policy is not None:
            codec = run.policy.codec
        else:
            codec = RewardModel.load(reward_spec(run), **run.limits, fresh_head=True).codec
        show(standard_output(), rows_table(run.data, codec))
        for text in as_seen(run.data, codec):
            say(text)
        costs = Measured(run).costs()
        if costs:
            show(standard_output(), costs_table(costs))
            for text in totals(run, costs, directory):
                say(text)
    say("Dry run: everything is in order. Nothing was trained, and nothing is kept.")


# --- rows ------------------------------------------------------------------------------------------------------------


def rows_table(data: TaskData, codec: Codec) -> Table:
    """Rows of each part, and the lengths of prompts and completions in tokens before anything is cut."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="Lengths in tokens", title_justify="left")
    table.add_column("part", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("", no_wrap=True)
    for title in ("median", "95 %", "longest", "limit", "longer"):
        table.add_column(title, justify="right")
    for name in ROWS:
        rows = getattr(data, name)
        for what, told in _lengths(rows[:LOOKED_AT], codec).items():
            first = (name, str(len(rows))) if what == "prompts" else ("", "")
            numbers = (told.median, told.most, told.longest, told.limit, told.over)
            table.add_row(*first, what, *map(str, numbers))
    return table


def _lengths(rows: Sequence[Any], codec: Codec) -> dict[str, Lengths]:
    if not rows:
        return {}
    whole = replace(codec, max_prompt=10**9, max_completion=10**9)
    found = {"prompts": Lengths.of([len(whole.encode_prompt(row.prompt).ids) for row in rows], codec.max_prompt)}
    texts = [(row, text) for row in rows for text in _completions(row)]
    if texts and codec.kind != "encoder":
        lengths = [len(whole.encode_completion(row.prompt, text)) for row, text in texts]
        found["completions"] = Lengths.of(lengths, codec.max_completion)
    return found


def _completions(row: Any) -> list[str]:
    """What a row holds for a model to say."""
    if hasattr(row, "chosen"):
        return [row.chosen, row.rejected]
    return [row.completion] if hasattr(row, "completion") else []


def as_seen(data: TaskData, codec: Codec) -> list[str]:
    """The first rows as the model will see them: what their token ids spell, special tokens included."""
    rows: Sequence[Any] = data.train or data.preferences or data.unpaired or data.prompts or data.test
    told = []
    for number, row in enumerate(rows[:SHOWN], start=1):
        prompt = codec.encode_prompt(row.prompt)
        cut = f", shortened to {codec.max_prompt} tokens" if prompt.truncated else ""
        told.append(f"Row {number} as the model sees it: prompt ({len(prompt.ids)} tokens{cut})")
        told.append(clean(codec.tokenizer.decode(prompt.ids)))
        for text in _completions(row):
            ids = codec.encode_completion(row.prompt, text)
            said = text if codec.kind == "encoder" else codec.tokenizer.decode(ids)
            told.append(f"  -> {clean(said)}   ({len(ids)} tokens)")
    return told


# --- how it is told --------------------------------------------------------------------------------------------------


def size(count: float) -> str:
    """Bytes as people say them.

    >>> size(2_400_000), size(3.2e9), size(15_000)
    ('2.4 MB', '3.2 GB', '0.015 MB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.3g} GB"
    return f"{count / 1e6:.3g} MB" if count >= 1e5 else f"{count / 1e6:.2g} MB"


def costs_table(costs: Sequence[Cost]) -> Table:
    """One column a stage."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="What it takes, about", title_justify="left")
    table.add_column("", no_wrap=True)
    for cost in costs:
        table.add_column(cost.stage, justify="right")
    told: dict[str, Callable[[Cost], str]] = {
        "length": lambda cost: cost.steps,
        "parameters": lambda cost: f"{cost.parameters:,}",
        "of them trained": lambda cost: f"{cost.trained:,}",
        "weights": lambda cost: size(cost.weights),
        "gradients": lambda cost: size(cost.gradients),
        "optimizer state": lambda cost: size(cost.optimizer),
        "activations": lambda cost: size(cost.activations),
        "memory in all": lambda cost: size(cost.peak),
        "time": lambda cost: about(cost.seconds),
    }
    for name, words in told.items():
        table.add_row(name, *map(words, costs))
    return table


def totals(run: Run, costs: Sequence[Cost], directory: Path) -> list[str]:
    """The whole run: memory, time and disk, and what the estimates are made of."""
    peak = max(cost.peak for cost in costs)
    gpu = torch.cuda.is_available() and run.cfg["trainer"]["accelerator"] != "cpu"
    base = 0 if gpu else libraries(run)
    seconds = sum(cost.seconds for cost in costs)
    keep = run.cfg["checkpoint"]["keep"]
    disk = sum(cost.disk for cost in costs) + max(cost.passing for cost in costs)
    above = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    devices = processes(run.cfg["trainer"])
    return [
        f"Memory: about {size(peak + base)}{' a process' if devices > 1 else ''} at its peak: weights (with the KL's "
        "reference and the reward model) + gradients + optimizer state + what the largest batch keeps for the backward "
        f"pass{f' + {size(base)} of the libraries' if base else ''}.",
        f"Time: about {about(seconds)}, from passes and answers of the models as they are now, without a step; a "
        "policy that has learnt to stop answers faster.",
        f"Disk: about {size(disk)} (models, {keep} checkpoint{'s' * (keep > 1)} and one in the making); "
        f"{size(shutil.disk_usage(above).free)} are free there.",
    ]
