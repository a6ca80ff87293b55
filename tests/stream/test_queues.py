"""The queues in the raw ring: order, exact counts, and nothing half visible, also across processes that die."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ispeed.stream.frame import FrameRecord
from ispeed.stream.queues import GrantQueue, ReturnQueue
from ispeed.stream.ring import Ring, Word

SLOTS = 5  # the queues have eight places: they wrap often


@pytest.fixture(scope="module")
def shared_ring() -> Iterator[Ring]:
    ring = Ring.create("raw", SLOTS, 64, 1)
    yield ring
    ring.close()


@pytest.fixture
def ring(shared_ring: Ring) -> Ring:
    for word in range(64):
        shared_ring.words[word] = 0
    return shared_ring


def record(slot: int, grant: int = 0) -> FrameRecord:
    return FrameRecord(slot, 1, 1000 + grant, 2000 + grant, 3000 + grant, 1, 64, 250.5, math.pi, grant)


def test_records_come_out_whole_and_in_order(ring: Ring) -> None:
    other = Ring.attach(os.dup(ring.fd), writable=True)  # as develop sees it
    grab, develop = GrantQueue(ring), GrantQueue(other)
    sent = [record(i % SLOTS, i) for i in range(20)]
    got = []
    for one in sent:
        grab.put(one)
        got += develop.peek(4)
        develop.take(1)
    assert got == sent
    assert len(grab) == 0
    assert ring.words[Word.GRANT_HEAD] == ring.words[Word.GRANT_TAIL] == 20
    del develop
    other.close()


def test_peek_takes_nothing(ring: Ring) -> None:
    queue = GrantQueue(ring)
    for i in range(4):
        queue.put(record(i, i))
    assert [r.slot for r in queue.peek(2)] == [0, 1]
    assert [r.slot for r in queue.peek(10)] == [0, 1, 2, 3]
    assert len(queue) == 4
    queue.take(3)
    assert [r.slot for r in queue.peek(10)] == [3]


def test_returns_carry_their_epoch(ring: Ring) -> None:
    queue = ReturnQueue(ring)
    queue.put(4, 1)
    queue.put(0, 2**32 - 1)
    assert queue.take_all() == [(4, 1), (0, 2**32 - 1)]
    assert queue.take_all() == []


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["grant", "take", "return", "collect"]), st.integers(1, SLOTS)), max_size=60))
def test_queues_behave_like_deques(shared_ring: Ring, steps: list[tuple[str, int]]) -> None:
    for word in range(64):
        shared_ring.words[word] = 0
    grants, returns = GrantQueue(shared_ring), ReturnQueue(shared_ring)
    free, granted, held, back = deque(range(SLOTS)), deque[int](), deque[int](), deque[int]()
    for number, (step, count) in enumerate(steps):
        for _ in range(count):
            if step == "grant" and free:
                granted.append(free.popleft())
                grants.put(record(granted[-1], number))
            elif step == "take" and granted:
                assert grants.peek(1)[0].slot == granted[0]
                grants.take(1)
                held.append(granted.popleft())
            elif step == "return" and held:
                back.append(held.popleft())
                returns.put(back[-1], number)
            elif step == "collect":
                assert [slot for slot, _ in returns.take_all()] == list(back)
                free.extend(back)
                back.clear()
        assert len(grants) == len(granted)
        assert [r.slot for r in grants.peek(100)] == list(granted)


def test_what_a_killed_process_put_is_there_and_no_more(ring: Ring) -> None:
    """A grab process is killed after it wrote a record and before it moved the head."""
    code = f"""
import os
from ispeed.stream.frame import FrameRecord
from ispeed.stream.queues import GrantQueue
from ispeed.stream.ring import Ring, Word
ring = Ring.attach({ring.fd}, writable=True)
queue = GrantQueue(ring)
queue.put(FrameRecord(3, 0, 7, 8, 9, 1, 64, 1.0, 2.0, 0))
queue.write(FrameRecord(4, 0, 8, 9, 10, 1, 64, 1.0, 2.0, 1))
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", code], pass_fds=[ring.fd], check=False)
    assert ended.returncode == -signal.SIGKILL
    queue = GrantQueue(ring)
    assert [(r.slot, r.frame_id) for r in queue.peek(10)] == [(3, 7)]
    assert queue.unpublished() == 4
    queue.publish()
    assert [r.slot for r in queue.peek(10)] == [3, 4]
