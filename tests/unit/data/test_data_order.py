import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.order import EvalOrder, TrainOrder, portions, shuffled


@given(st.integers(1, 300), st.integers(0, 3), st.integers(0, 3))
def test_an_order_is_a_permutation(n, seed, epoch):
    assert sorted(shuffled(n, seed, epoch)) == list(range(n))
    assert shuffled(n, seed, epoch) == shuffled(n, seed, epoch)


def test_shuffled_mixes_all():
    order = shuffled(100, 0, 0)
    assert order != list(range(100)) != shuffled(100, 0, 1)
    assert sum(abs(a - b) for a, b in itertools.pairwise(order)) > 1000


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=60),
    st.lists(st.floats(-5, 5), min_size=60, max_size=60),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_portions_average_to_the_weighted_mean_of_a_step(weights, losses, batch_size, world, accumulate):
    """What Lightning does with the scaled losses, over ranks and accumulated batches, against the mean itself."""
    order = list(range(len(weights)))
    made = [portions(order, batch_size, rank, world, weights, accumulate) for rank in range(world)]

    def mean(rows):
        total = sum(weights[i] for i in rows)
        return sum(weights[i] * losses[i] for i in rows) / total

    taken = []
    for start in range(0, len(made[0]), accumulate):
        step = [rank[start : start + accumulate] for rank in made]
        rows = sorted(i for rank in step for p in rank for i in p.rows[: p.real])
        by_lightning = sum(mean(p.rows) * p.scale / accumulate / world for rank in step for p in rank)
        assert by_lightning == pytest.approx(mean(rows), abs=1e-9)
        taken += rows
    assert sorted(taken) == order, "every row counts once"
    for batch in zip(*made, strict=True):
        rows = [i for p in batch for i in p.rows[: p.real]]
        assert sum(mean(p.rows) * p.share / world for p in batch) == pytest.approx(mean(rows), abs=1e-9)
        assert all(p.rows for p in batch), "no rank is without a row"


@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 4))
def test_evaluation_counts_every_row_once_in_equally_many_batches(n, batch_size, world):
    parts = [list(EvalOrder(n, batch_size, rank, world)) for rank in range(world)]
    assert sorted(i for part in parts for p in part for i in p.rows[: p.real]) == list(range(n))
    assert {len(part) for part in parts} == {len(EvalOrder(n, batch_size, 0, world))}
    assert all(len({len(portion.rows) for portion in batch}) == 1 for batch in zip(*parts, strict=True))
    if world == 1:
        assert [i for p in parts[0] for i in p.rows] == list(range(n))


def test_a_training_epoch_begins_where_it_was_left():
    done = 0
    order = TrainOrder(11, 2, seed=0, drop_last=True, done=lambda: done)
    order.set_epoch(4)
    whole = [p.rows for p in order]
    assert [i for rows in whole for i in rows] == shuffled(11, 0, 4)[:10]
    later = iter(order)  # as Lightning does: iterated before the progress is restored
    done = 3
    assert [p.rows for p in later] == whole[3:]
    assert len(order) == 5
