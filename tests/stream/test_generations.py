"""The generation protocol: no accepted read is torn or of another frame, whatever the timing.

A scheduler steps one writer (three frames into two slots) and one reader through every interleaving. The same
scheduler must catch protocols that are broken on purpose, or it would prove nothing.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from ispeed.stream.frame import FrameHeader
from ispeed.stream.reader import Frame, FrameOverwritten
from ispeed.stream.ring import Ring
from ispeed.stream.subscribe import Subscriber

SLOTS, WRITES = 2, 3
HALVES = (0, 1)  # the pixels of a frame, in two steps: they must be of the same frame


@dataclass
class World:
    """What writer and reader share, and what the reader made of it."""

    ring: Ring
    announced: list[int] = field(default_factory=list)
    accepted: list[tuple[int, list[int]]] = field(default_factory=list)
    rejected: int = 0


Process = Callable[[World], Iterator[None]]


def writer(world: World) -> Iterator[None]:
    """The develop stage and the publisher. Each `yield` ends one step that is atomic to other processes."""
    for number in range(WRITES):
        slot = number % SLOTS
        world.ring.begin_write(slot, number)
        yield
        for half in HALVES:
            world.ring.slot(slot)[half] = number + 1
            yield
        world.ring.end_write(slot, number)
        yield
        world.announced.append(number)
        yield


def writer_done_too_early(world: World) -> Iterator[None]:
    """Broken: the generation is even again before the pixels are whole."""
    for number in range(WRITES):
        slot = number % SLOTS
        world.ring.begin_write(slot, number)
        yield
        world.ring.slot(slot)[0] = number + 1
        yield
        world.ring.end_write(slot, number)
        yield
        world.announced.append(number)
        yield
        world.ring.slot(slot)[1] = number + 1
        yield


def writer_without_odd(world: World) -> Iterator[None]:
    """Broken: nothing says that a slot is being overwritten."""
    for number in range(WRITES):
        slot = number % SLOTS
        for half in HALVES:
            world.ring.slot(slot)[half] = number + 1
            yield
        world.ring.end_write(slot, number)
        yield
        world.announced.append(number)
        yield


def reader_of(which: int) -> Process:
    """A subscriber that looks at the newest (-1) or the oldest (0) frame announced, through the real Frame."""

    def reader(world: World) -> Iterator[None]:
        if not world.announced:
            return
        frame = _frame(world, world.announced[which])
        yield
        if frame.overwritten:
            world.rejected += 1
            return
        yield
        seen = []
        for half in HALVES:
            seen.append(int(frame.array[half]))
            yield
        try:
            frame.check()
        except FrameOverwritten:
            world.rejected += 1
            return
        world.accepted.append((frame.sequence, seen))

    return reader


def reader_without_last_check(world: World) -> Iterator[None]:
    """Broken: it trusts what it read."""
    if not world.announced:
        return
    frame = _frame(world, world.announced[-1])
    yield
    if frame.overwritten:
        return
    yield
    seen = []
    for half in HALVES:
        seen.append(int(frame.array[half]))
        yield
    world.accepted.append((frame.sequence, seen))


def _frame(world: World, number: int) -> Frame:
    header = FrameHeader(slot=number % SLOTS, sequence=number, generation=2 * number + 2)
    return Frame(header, world.ring.slot(header.slot), world.ring.generations)


def count_steps(process: Process, world: World) -> int:
    """Steps of a process that is never interrupted, its last `next` included."""
    return sum(1 for _ in process(world)) + 1


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring.create("srgb", SLOTS, len(HALVES), 1)
    yield made
    made.close()


def every_interleaving(ring: Ring, write: Process, read: Process) -> Iterator[World]:
    """Runs write and read in each possible order of their steps, each from the same beginning."""
    world = World(ring)
    writes = count_steps(write, world)
    del world.announced[:-1]  # the last frame is whole and stays: the reader takes its longest way
    reads = count_steps(read, world)
    for places in itertools.combinations(range(writes + reads), reads):
        for slot in range(SLOTS):
            ring.generations[slot] = 0
            ring.slot(slot)[:] = 0
        world = World(ring)
        processes = write(world), read(world)
        chosen = set(places)
        for step in range(writes + reads):
            next(processes[step in chosen], None)
        yield world


def torn(world: World) -> bool:
    """Whether a read was accepted that is not its frame, whole."""
    return any(seen != [number + 1] * len(HALVES) for number, seen in world.accepted)


@pytest.mark.parametrize("which", [0, -1], ids=["oldest", "newest"])
def test_every_accepted_read_is_whole(ring: Ring, which: int) -> None:
    worlds = list(every_interleaving(ring, writer, reader_of(which)))
    assert len(worlds) == math.comb(16 + 5, 5)
    assert not any(torn(world) for world in worlds)
    # It neither rejects everything nor accepts everything, and every frame gets through some time.
    assert {number for world in worlds for number, _ in world.accepted} == {0, 1, 2} if which else {0}
    assert any(world.rejected for world in worlds)


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (writer_done_too_early, reader_of(-1)),
        (writer_without_odd, reader_of(0)),
        (writer, reader_without_last_check),
    ],
    ids=["even before the pixels", "never odd", "no last check"],
)
def test_the_scheduler_catches_a_broken_protocol(ring: Ring, write: Process, read: Process) -> None:
    assert any(torn(world) for world in every_interleaving(ring, write, read))


def test_real_processes_under_stress(runtime_dir: Path, source: ModuleType) -> None:
    """Two slots, a writer that never waits, and a reader that reads while it writes."""
    accepted = rejected = 0
    with source.RemoteSource(width=320, height=240, slots=SLOTS) as writing, Subscriber(timeout_ms=20000) as frames:
        writing.do("await", descriptors=1)
        writing.run(fps=1e6)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            frame = frames.receive()
            first, last = frame.array[:120].copy(), frame.array[120:].copy()
            if (accepted + rejected) % 4 == 0:  # now and then, wait until it is gone: that must be noticed
                while not frame.overwritten:
                    pass
                with pytest.raises(FrameOverwritten):
                    frame.copy()
            try:
                frame.check()
            except FrameOverwritten:
                rejected += 1
                continue
            accepted += 1
            assert source.whole(first, frame.sequence)
            assert source.whole(last, frame.sequence)
        writing.halt()
    assert accepted > 0
    assert rejected > 0
