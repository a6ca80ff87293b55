"""The order of samples follows from seed and step, whoever draws them."""

from __future__ import annotations

import os
import signal
from itertools import islice

import pytest
import torch

from ispeed.engines import UserError
from ispeed.train.feed import Feed


class Numbers:
    """Samples that say which they are."""

    def __init__(self, length: int, broken: int | None = None) -> None:
        self.length, self.broken = length, broken
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == self.broken:
            raise UserError("the file x.png is cut off; copy it again")
        return {"index": torch.tensor(index), "epoch": self.epoch.clone()}

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)


def drawn(feed: Feed, step: int, count: int) -> list[tuple[list[int], list[int]]]:
    return [(batch["index"].tolist(), batch["epoch"].tolist()) for batch in islice(feed.batches(step), count)]


def test_an_epoch_takes_each_sample_once_in_an_order_of_its_own():
    batches = drawn(Feed(Numbers(12), 4, seed=3), 0, 6)
    first, second = ([index for indices, _ in part for index in indices] for part in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert [epochs[0] for _, epochs in batches] == [0, 0, 0, 1, 1, 1]
    assert drawn(Feed(Numbers(12), 4, seed=4), 0, 6) != batches


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
def test_from_any_step_on_the_same_follows(step: int):
    whole = drawn(Feed(Numbers(14), 4, seed=3), 0, 10)  # two samples of an epoch are left out
    assert drawn(Feed(Numbers(14), 4, seed=3), step, 10 - step) == whole[step:]


def test_workers_draw_the_same_from_epoch_to_epoch():
    alone = drawn(Feed(Numbers(8), 4, seed=3), 1, 4)
    assert drawn(Feed(Numbers(8), 4, seed=3, workers=1), 1, 4) == alone


def test_processes_share_out_each_batch():
    alone = drawn(Feed(Numbers(12), 4, seed=3), 2, 5)
    halves = [drawn(Feed(Numbers(12), 4, seed=3, rank=rank, world=2), 2, 5) for rank in (0, 1)]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert sorted(first[0] + second[0]) == sorted(whole[0])
        assert len(first[0]) == len(second[0]) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_one_sentence(workers: int):
    with pytest.raises(UserError) as caught:
        drawn(Feed(Numbers(8, broken=5), 4, seed=3, workers=workers), 0, 2)
    assert str(caught.value) == "the file x.png is cut off; copy it again"


class Deadly(Numbers):
    """Samples that end the process which draws them."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch complains again as it cleans up
def test_a_worker_that_is_killed_is_one_sentence():
    with pytest.raises(UserError, match="was killed, as when memory runs out"):
        drawn(Feed(Deadly(8), 4, seed=3, workers=1), 0, 1)


def test_drawing_leaves_the_random_state_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    drawn(Feed(Numbers(8), 4, seed=3), 0, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_that_cannot_be():
    with pytest.raises(UserError, match="3 samples for batches of 4"):
        Feed(Numbers(3), 4, seed=1)
    with pytest.raises(UserError, match="cannot be shared out among 3"):
        Feed(Numbers(9), 4, seed=1, world=3)
