"""Which rows make up each batch of each rank: the same rows, in the same steps, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset, DistributedSampler


@dataclass(frozen=True)
class Portion:
    """The rows of a batch that one rank gets.

    A step's loss is the mean over all its rows, weighted, also where they are spread unequally over ranks and
    accumulated batches. Lightning averages over those, and knows nothing of weights: hence the two factors.

    Attributes:
        rows: positions in the data set.
        real: how many of them count; those behind only fill up.
        share: factor that turns this portion's mean loss into one whose mean over ranks is that of the batch.
        scale: likewise for ranks and all the batches that are accumulated into one step.
    """

    rows: list[int]
    real: int
    share: float = 1.0
    scale: float = 1.0


class Rows(Dataset):
    """Rows that are fetched a portion at a time."""

    def __init__(self, rows: Sequence) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, portion: Portion) -> tuple[list, Portion]:
        """The rows themselves, and the portion that asked for them."""
        return [self.rows[i] for i in portion.rows], portion


def shuffled(n: int, seed: int, epoch: int) -> list[int]:
    """A random order of n rows; each epoch has its own."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


def portions(
    order: Sequence[int],
    batch_size: int,
    rank: int,
    world: int,
    weights: Sequence[float] | None = None,
    accumulate: int = 1,
    equal: bool = False,
) -> list[Portion]:
    """Cut an order into batches of ``batch_size * world`` rows, and take a rank's portion of each.

    Args:
        order: positions of the rows.
        batch_size: rows a batch and rank.
        rank, world: which of how many.
        weights: of each row in the loss; None is 1.
        accumulate: batches an optimizer step.
        equal: give all ranks equally many rows of a batch.

    Returns:
        One portion a batch: none is empty. A rank that has no row of its own, or with ``equal`` fewer than others, gets
        rows that don't count.
    """
    total = batch_size * world
    batches = [order[start : start + total] for start in range(0, len(order), total)]

    def weight(rows: Sequence[int]) -> float:
        return float(len(rows)) if weights is None else float(sum(weights[i] for i in rows))

    made = []
    for start in range(0, len(batches), accumulate):
        step = batches[start : start + accumulate]
        whole = sum(map(weight, step)) or 1.0
        for batch in step:
            own = list(batch[rank::world])
            mine = weight(own)
            share, scale = mine * world / (weight(batch) or 1.0), mine * world * accumulate / whole
            least = -(-len(batch) // world) if equal else 1
            made.append(Portion(own + [batch[0]] * (least - len(own)), len(own), share, scale))
    return made


class TrainOrder(DistributedSampler):
    """The portions of a training epoch, from the first that is still to come.

    Both the order and the place within it follow from the Trainer's progress, which is part of every checkpoint: so a
    resumed training goes on with exactly the rows that would have come. (A `DistributedSampler`, as Lightning wraps
    every other one in a sampler that would deal out its batches anew.)

    Args:
        n: rows of the data set.
        batch_size: rows a batch and rank.
        seed: of their order, which is another one in each epoch (`shuffled`).
        rank, world: which of how many.
        weights: of each row in the loss.
        accumulate: batches an optimizer step.
        drop_last: leave out a last batch that is not full.
        done: tells how many batches of the epoch have been had when it starts.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        weights: Sequence[float] | None = None,
        accumulate: int = 1,
        drop_last: bool = False,
        done: Callable[[], int] = lambda: 0,
    ) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.rank, self.world, self.weights, self.accumulate = rank, world, weights, accumulate
        self.drop_last, self.done = drop_last, done
        self.epoch = 0

    def __len__(self) -> int:
        total = self.batch_size * self.world
        return self.n // total if self.drop_last else -(-self.n // total)

    def __iter__(self) -> Iterator[Portion]:  # type: ignore[override]
        # A generator: nothing here is run before the first batch is wanted, and by then progress has been restored.
        order = shuffled(self.n, self.seed, self.epoch)
        made = portions(order, self.batch_size, self.rank, self.world, self.weights, self.accumulate)
        yield from made[self.done() : len(self)]


class EvalOrder(DistributedSampler):
    """All rows once, in their order; every rank gets equally many batches of equally many, as sharded models need."""

    def __init__(self, n: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.n, self.batch_size, self.rank, self.world = n, batch_size, rank, world

    def __len__(self) -> int:
        return -(-self.n // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[Portion]:  # type: ignore[override]
        yield from portions(range(self.n), self.batch_size, self.rank, self.world, equal=True)
