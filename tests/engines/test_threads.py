"""The threads that share a frame."""

from __future__ import annotations

import threading
import time

import pytest

from ispeed.engines._threads import StripePool


@pytest.fixture
def pool():
    pool = StripePool(3)
    yield pool
    pool.close()


def test_each_piece_is_done_once_before_run_returns(pool: StripePool):
    for pieces in (1, 2, 3, 50):
        done: list[int] = []
        pool.run(lambda number, thread, done=done: done.append(number), pieces)
        assert sorted(done) == list(range(pieces))


def test_pieces_run_at_the_same_time_on_different_threads(pool: StripePool):
    together = threading.Barrier(3, timeout=10)
    seen: set[int] = set()

    def piece(number: int, thread: int) -> None:
        together.wait()  # breaks, and fails, unless three pieces are under way
        seen.add(thread)

    pool.run(piece, 3)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("failing", range(6))
def test_failure_reaches_the_caller_after_all_have_stopped(pool: StripePool, failing: int):
    under_way: set[int] = set()

    def piece(number: int, thread: int) -> None:
        if number == failing:
            raise RuntimeError(f"piece {number}")
        under_way.add(number)
        time.sleep(0.002)
        under_way.discard(number)

    with pytest.raises(RuntimeError, match=f"piece {failing}"):
        pool.run(piece, 6)
    assert not under_way
    done: list[int] = []
    pool.run(lambda number, thread: done.append(number), 4)
    assert len(done) == 4


def test_close_ends_the_threads():
    before = threading.active_count()
    pool = StripePool(4)
    assert threading.active_count() == before + 3
    pool.close()
    pool.close()
    assert threading.active_count() == before
