"""The order of the training items: a function of the seed alone, so training can resume at any step."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from plda.data.datasets import Item
from plda.randomness import derive_seed


class BatchSampler(Sampler[list[Item]]):
    """The batches of a training run from step `start`, each a list of (epoch, position).

    A run of `epochs` epochs has `steps` steps; it ends at step `stop`, earlier if `stop_after` is set.

    Every epoch is a permutation of all items, drawn from (seed, epoch); an incomplete last batch is left out.
    With several processes, each takes every `world`-th item of the same batch, so the batches do not depend
    on the number of processes.
    """

    def __init__(
        self,
        items: int,
        batch_size: int,
        epochs: int,
        seed: int,
        *,
        stop_after: int | None = None,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._items, self.batch_size, self._seed = items, min(batch_size, items), seed
        self._start, self._rank, self._world = start, rank, world
        self.steps_per_epoch = items // self.batch_size
        self.steps = epochs * self.steps_per_epoch
        self.stop = self.steps if stop_after is None else stop_after * self.steps_per_epoch

    def __len__(self) -> int:
        return self.stop - self._start

    def __iter__(self) -> Iterator[list[Item]]:
        permutation: list[int] = []
        drawn = -1
        for step in range(self._start, self.stop):
            epoch, batch = divmod(step, self.steps_per_epoch)
            if epoch != drawn:
                random = torch.Generator().manual_seed(derive_seed(self._seed, epoch))
                permutation, drawn = torch.randperm(self._items, generator=random).tolist(), epoch
            first = batch * self.batch_size
            chosen = permutation[first : first + self.batch_size]
            yield [(epoch, position) for position in chosen[self._rank :: self._world]]
