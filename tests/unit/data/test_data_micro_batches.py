"""How many rows go through a model at once, and which."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.micro_batches import by_parts, micro_batches, trimmed


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_every_row_once_within_the_budget(lengths: list[int], tokens: int) -> None:
    """All rows are there; no group holds more places than allowed, unless it is one long row; the longest first."""
    groups = [group.tolist() for group in micro_batches(torch.tensor(lengths), tokens)]
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= tokens
    assert [lengths[i] for group in groups for i in group] == sorted(lengths, reverse=True)


def test_by_hand() -> None:
    """Of 10, 3, 4, 9 and 2 tokens, 20 at once: 10 and 9 together, then 4, 3 and 2."""
    groups = micro_batches(torch.tensor([10, 3, 4, 9, 2]), 20)
    assert [group.tolist() for group in groups] == [[0, 3], [2, 1, 4]]


@pytest.mark.parametrize(("others", "sizes"), [(1, [5]), (2, [2, 3]), (4, [1, 1, 1, 2]), (5, [1] * 5)])
def test_as_many_groups_as_other_ranks(others: int, sizes: list[int], monkeypatch) -> None:
    """Where another rank needs more groups, the largest are halved until there are as many."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count, op: count.fill_(max(int(count), others)))
    groups = micro_batches(torch.tensor([5, 5, 5, 5, 5]), 100, in_step=True)
    assert sorted(map(len, groups)) == sizes
    assert sorted(torch.cat(groups).tolist()) == list(range(5))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_what_is_computed_in_parts_is_in_the_order_of_the_rows(lengths: list[int], tokens: int) -> None:
    """Also the gradient of each row, which is another for each."""
    rows = torch.arange(len(lengths), dtype=torch.float).requires_grad_()
    out = by_parts(
        lambda group: torch.stack([rows[group] ** 2, -rows[group]], 1), micro_batches(torch.tensor(lengths), tokens)
    )
    assert torch.equal(out.detach(), torch.stack([rows.detach() ** 2, -rows.detach()], 1))
    (out[:, 0] * torch.tensor(lengths)).sum().backward()
    assert rows.grad is not None
    assert torch.equal(rows.grad, 2 * rows.detach() * torch.tensor(lengths))


@pytest.mark.parametrize("left", [True, False])
def test_trimmed_drops_padding_alone(left: bool) -> None:
    """Every chosen row keeps all its tokens, in order; the longest of them has no padding left."""
    lengths, answers, rows = [3, 1, 5, 2], [1, 4, 2, 2], torch.tensor([3, 0])
    prompt_mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    prompt_mask = prompt_mask.flip(1) if left else prompt_mask
    response_mask = torch.arange(6) < torch.tensor(answers)[:, None]
    prompt_ids, response_ids = torch.arange(20).view(4, 5), torch.arange(24).view(4, 6)
    p, pm, r, rm = trimmed(prompt_ids, prompt_mask, response_ids, response_mask, rows, left)
    assert (p.shape, r.shape) == ((2, 3), (2, 2))
    for i, row in enumerate(rows.tolist()):
        assert torch.equal(p[i][pm[i]], prompt_ids[row][prompt_mask[row]])
        assert torch.equal(r[i][rm[i]], response_ids[row][response_mask[row]])
