"""The arrival log, written and read through real shared memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ispeed.stream.log import ArrivalLog
from ispeed.stream.ring import Ring, Word

CAPACITY = 8


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring.create("raw", CAPACITY, 64, 1)
    yield made
    made.close()


def add(log: ArrivalLog, frame_id: int) -> None:
    log.add((frame_id % 5, 1, frame_id, 10 * frame_id, 20 * frame_id, 3, 64, 250.5, 6.0), 2 * frame_id)


def test_a_reader_of_its_own_sees_what_was_written(ring: Ring):
    log = ArrivalLog(ring)
    for frame_id in range(3):
        add(log, frame_id)
    reader = Ring.attach(os.dup(ring.fd), writable=False)
    first, records = ArrivalLog(reader).since(1, 10)
    assert first == 1
    assert records["frame_id"].tolist() == [1, 2]
    assert records[1].tolist() == (2, 1, 2, 20, 40, 3, 64, 250.5, 6.0, 4)
    assert ArrivalLog(reader).since(0, 2)[1]["frame_id"].tolist() == [0, 1]
    assert len(ArrivalLog(reader).since(3, 10)[1]) == 0
    del records
    reader.close()


def test_a_reader_that_was_lapped_is_told_where_it_goes_on(ring: Ring):
    log = ArrivalLog(ring)
    for frame_id in range(30):
        add(log, frame_id)
    first, records = log.since(5, 100)
    assert first == log.oldest == 30 - CAPACITY + 1
    assert records["frame_id"].tolist() == list(range(first, 30))


class Slow:
    """A log's entries, whose first reading takes so long that five more frames come."""

    def __init__(self, log: ArrivalLog) -> None:
        self.log, self.entries = log, log._entries

    def __getitem__(self, index):
        if self.log.count == CAPACITY:
            for frame_id in range(CAPACITY, CAPACITY + 5):
                add(self.log, frame_id)
        return self.entries[index]


def test_records_overwritten_while_they_are_read_are_read_again(ring: Ring, monkeypatch: pytest.MonkeyPatch):
    log = ArrivalLog(ring)
    for frame_id in range(CAPACITY):
        add(log, frame_id)

    monkeypatch.setattr(log, "_entries", Slow(log))
    first, records = log.since(0, 100)
    assert first == 6
    assert records["frame_id"].tolist() == list(range(6, 13))
    assert ring.words[Word.ARRIVED] == 13
    monkeypatch.undo()  # no cycle shall keep the ring's memory
