"""Rings: reserved, sealed, shared, and gone when nobody uses them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ispeed.engines.errors import UserError
from ispeed.stream.frame import HEADER_SIZE, RECORD_SIZE
from ispeed.stream.ring import PAGE, Owner, Ring, RingLayout, Word, require_memory


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring.create("srgb", 4, 5000, 0xABCD)
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    return f"ispeed-test-{uuid.uuid4().hex[:8]}"


@given(st.sampled_from(["raw", "srgb"]), st.integers(2, 600), st.integers(1, 1 << 24))
def test_parts_of_a_layout_do_not_overlap(kind: str, slots: int, payload: int) -> None:
    la = RingLayout.plan(kind, slots, payload)
    parts = [
        (la.words_offset, 64 * 8),
        (la.table_offset, slots * 8),
        (la.generations_offset, slots * 8),
        (la.queue_offset, la.queue_capacity * (RECORD_SIZE + 8)) if kind == "raw" else (la.headers_offset, 256 * slots),
        (la.data_offset, slots * la.slot_stride),
    ]
    end = PAGE
    for offset, size in parts:
        assert offset >= end
        end = offset + size
    assert la.total == end
    assert la.slot_stride >= payload
    assert la.slot_stride % PAGE == la.data_offset % PAGE == 0
    if kind == "raw":
        assert la.queue_capacity >= slots
        assert la.queue_capacity & (la.queue_capacity - 1) == 0
    assert RingLayout(**la.to_json()) == la


@pytest.mark.parametrize(("kind", "slots", "payload"), [("rgb", 4, 10), ("raw", 1, 10), ("raw", 4, 0)])
def test_impossible_layouts_are_refused(kind: str, slots: int, payload: int) -> None:
    with pytest.raises(ValueError, match="no ring"):
        RingLayout.plan(kind, slots, payload)


def test_two_maps_share_everything(ring: Ring) -> None:
    other = Ring.attach(os.dup(ring.fd), writable=True)
    assert other.layout == ring.layout
    ring.slot(3)[:] = 7
    ring.words[Word.PUBLISHED] = 2**64 - 1
    ring.table[1] = 5 << 8 | Owner.GRANTED
    other.begin_write(2, 10)
    assert (other.slot(3) == 7).all()
    assert other.slot(3).size == 5000
    assert other.words[Word.PUBLISHED] == 2**64 - 1
    assert other.table[1] == 5 << 8 | Owner.GRANTED
    assert ring.generations[2] == 21
    other.end_write(2, 10)
    assert ring.holds(2, 22)
    assert not ring.holds(2, 21)
    other.close()


def test_slots_lie_where_the_layout_says(ring: Ring) -> None:
    ring.slot(2)[:4] = [1, 2, 3, 4]
    assert os.pread(ring.fd, 4, ring.slot_offset(2)) == b"\1\2\3\4"
    assert ring.slot(2).ctypes.data % PAGE == 0
    assert ring.header_offset(1) - ring.header_offset(0) == HEADER_SIZE
    assert ring.slot(2) is ring.slot(2), "engines register the memory once"


def test_a_read_only_map_cannot_be_written(ring: Ring) -> None:
    other = Ring.attach(os.dup(ring.fd), writable=False)
    with pytest.raises(ValueError, match="read-only"):
        other.slot(0)[0] = 1
    with pytest.raises(TypeError, match="read-only"):
        other.words[0] = 1
    other.close()


def test_the_size_is_sealed_and_reserved(ring: Ring) -> None:
    for size in (0, ring.layout.total + PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(ring.fd, size)
    assert os.fstat(ring.fd).st_blocks * 512 >= ring.layout.total


@pytest.mark.parametrize("damage", ["short", "magic", "version", "kind", "total", "size"])
def test_what_is_no_ring_is_not_attached(ring: Ring, damage: str) -> None:
    head = bytearray(os.pread(ring.fd, 256, 0))
    at = {"magic": 0, "version": 8, "kind": 12, "total": 72}.get(damage)
    if at is not None:
        head[at] ^= 0x10
    fd = os.memfd_create("other")
    os.write(fd, b"x" if damage == "short" else head)
    if damage != "size":  # that one is whole, but the file ends after its header
        os.ftruncate(fd, 10 if damage == "short" else ring.layout.total)
    with pytest.raises(ValueError, match="ring"):
        Ring.attach(fd, writable=False)
    os.close(fd)


def test_memory_that_is_not_there_is_refused_with_a_sentence() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(UserError, match="--slots"):
        Ring.create("raw", 4096, 1 << 40, 1)
    with pytest.raises(UserError, match="MiB are free"):
        require_memory(1 << 50)
    require_memory(1 << 20)
    assert os.listdir("/proc/self/fd") == before


def test_reservation_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def full(fd: int, offset: int, size: int) -> None:  # a tmpfs that is full, which this machine's is not
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = os.listdir("/proc/self/fd")
    for given_name in (None, name):
        with pytest.raises(UserError, match="No space left on device"):
            Ring.create("srgb", 4, 100, 1, given_name)
    assert os.listdir("/proc/self/fd") == before
    assert not os.path.exists(f"/dev/shm/{name}")


def test_a_named_ring_is_the_users_alone_and_in_use_once(name: str) -> None:
    ring = Ring.create("srgb", 2, 100, 1, name)
    assert ring.path is not None
    assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="--shm-name"):
        Ring.create("srgb", 2, 100, 1, name)
    ring.unlink()
    ring.unlink()
    assert not ring.path.exists()
    ring.slot(0)[:] = 1  # the memory stays with those who map it
    ring.close()


def test_a_killed_runs_named_ring_is_replaced_and_its_readers_keep_it(name: str) -> None:
    code = f"""
import os
from ispeed.stream import Ring
ring = Ring.create("srgb", 2, 100, 1, {name!r})
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    stale = Ring.attach(os.open(f"/dev/shm/{name}", os.O_RDWR), writable=True)
    stale.slot(0)[:] = 9
    ring = Ring.create("srgb", 2, 100, 2, name)
    assert ring.slot(0).max() == 0
    assert (stale.slot(0) == 9).all()
    for one in (ring, stale):
        one.close()
    ring.unlink()


def test_arrays_outlive_a_closed_ring() -> None:
    ring = Ring.create("srgb", 2, 100, 1)
    ring.slot(1)[:] = 42
    view = ring.slot(1)
    fd = ring.fd
    ring.close()
    assert (view == 42).all()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_memory_goes_with_its_last_user() -> None:
    ring = Ring.create("srgb", 2, 1 << 20, 1)
    inode = os.fstat(ring.fd).st_ino
    ring.close()
    with open("/proc/self/maps") as maps:
        assert not any(f" {inode} " in line and "ispeed" in line for line in maps)


def test_views_are_one_byte_per_element(ring: Ring) -> None:
    assert ring.slot(0).dtype == np.uint8
    assert ring.slot(0).shape == (5000,)
