"""What a dry run tells: lengths, and estimates held against what they estimate."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from helpers.tiny_models import demonstrations
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from rlhf_lightning.data.rows import PreferenceRow, Prompt
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.pipeline.costs import Cost, kept, length, state_share
from rlhf_lightning.pipeline.dry_run import Lengths, as_seen, costs_table, rows_table


def test_what_a_layer_keeps_for_the_backward_pass() -> None:
    layer = nn.Linear(8, 4)
    x = torch.ones(10, 8, requires_grad=True)
    with kept([layer]) as found:
        layer(x).relu().sum()
    assert found[0] == 10 * 8 * 4 + 10 * 4 * 4  # the input, and relu's result; not the weights


def test_memory_that_is_shared_counts_once() -> None:
    x = torch.ones(10, 8, requires_grad=True)
    with kept([]) as found:
        (x * x).sum()
        (x.view(8, 10) * x.view(8, 10)).sum()
    assert found[0] == 10 * 8 * 4


def test_numbers_that_optimizers_keep() -> None:
    def share(name: str, **options: object) -> float:
        return state_share({"_target_": f"torch.optim.{name}", "_partial_": True, **options})

    assert 2 <= share("AdamW") < 2.01  # and the step's number
    assert share("SGD", momentum=0.9) == 1
    assert share("SGD") == 0
    assert share("Adafactor") < 0.1


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 500))
def test_lengths(lengths: list[int], limit: int) -> None:
    told = Lengths.of(lengths, limit)
    assert told.longest == max(lengths)
    assert told.over == len([n for n in lengths if n > limit])
    assert told.median <= told.most <= told.longest
    assert sum(n <= told.most for n in lengths) >= 0.95 * len(lengths)
    assert told.most in lengths


@pytest.mark.parametrize(
    ("limits", "most", "told"),
    [
        ({"max_epochs": 2}, None, (10, 2, "6 steps: 2 epochs of 5 batches, 2 a step")),
        ({"max_epochs": 2, "accumulate_grad_batches": 5}, None, (10, 2, "2 steps: 2 epochs of 5 batches, 5 a step")),
        ({"max_epochs": -1, "max_steps": 4}, None, (7, 1.4, "4 steps: 1.4 epochs of 5 batches, 2 a step")),
        ({"accumulate_grad_batches": 1}, None, (5, 1, "5 steps: 1 epoch of 5 batches")),
        ({"max_epochs": -1, "max_steps": 4}, 2, (8, 4, "4 steps: 4 epochs of 2 batches, 2 a step")),
        ({"max_epochs": 3, "check_val_every_n_epoch": 3}, 0.5, (6, 1, "3 steps: 3 epochs of 2 batches, 2 a step")),
    ],
)
def test_how_long_a_training_is(limits: dict, most: float | None, told: tuple) -> None:
    known = {"max_epochs": 1, "max_steps": -1, "accumulate_grad_batches": 2, "check_val_every_n_epoch": 1}
    assert length(5, {**known, **limits}, most) == told


def test_rows_are_told_before_they_are_cut_and_shown_after(make_policy) -> None:
    codec = make_policy(max_prompt=4, max_completion=3).codec
    rows = demonstrations()
    pairs = [PreferenceRow(Prompt("a"), "on the mat", "a")]
    data = TaskData(train=rows, preferences=pairs)
    table = rows_table(data, codec)
    cells = {next(iter(row)): row[1:] for row in zip(*(column.cells for column in table.columns), strict=True)}
    whole = make_policy(max_prompt=80, max_completion=16).codec
    lengths = [len(whole.encode_prompt(row.prompt).ids) for row in rows]
    assert cells["train"][0] == str(len(rows))
    assert cells["train"][4:] == (str(max(lengths)), "4", str(sum(n > 4 for n in lengths)))
    assert cells["preferences"][0] == "1"
    assert list(table.columns[2].cells) == ["prompts", "completions"] * 2
    told = as_seen(data, codec)
    ids = codec.encode_prompt(rows[0].prompt).ids
    assert f"({len(ids)} tokens" in told[0]
    assert told[1] == codec.tokenizer.decode(ids)
    assert len([line for line in told if line.startswith("Row")]) == 3


def test_the_tables_fit_a_terminal_of_80_columns(make_policy) -> None:
    codec = make_policy(max_prompt=64, max_completion=24).codec
    pairs = [PreferenceRow(Prompt("a"), "on the mat", "a")] * 1000
    data = TaskData(train=demonstrations(), preferences=pairs, preferences_test=pairs)
    words = "3,600 steps: 100 rounds of 1024 responses"
    cost = Cost("sft", words, 7_000_000_000, 7_000_000_000, *[10**11] * 4, 3600.0, 10**11, 0)
    costs = [replace(cost, stage=stage) for stage in ("sft", "reward", "ppo")]
    for table in (rows_table(data, codec), costs_table(costs)):
        console = Console(width=80, file=io.StringIO())
        console.print(table)
        assert "…" not in console.file.getvalue()
        assert max(map(len, console.file.getvalue().splitlines())) <= 80
    assert "7,000,000,000" in console.file.getvalue()
