"""Rings as the GPU sees them: page-locked in place, copied from and to byte by byte."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from ispeed.engines.cuda.device import OutOfDeviceMemory
from ispeed.engines.cuda.driver import driver, gpu
from ispeed.engines.cuda.graph import try_capture
from ispeed.engines.cuda.memory import RegisteredRing, lock_pages, unlock_pages

pytestmark = pytest.mark.gpu

SLOTS, SIZE = 6, 1_966_080  # 1280x1024 in 12p


def test_the_probe_describes_the_gpu():
    found = gpu()
    assert found.memory > 1 << 30
    major, minor = found.compute_capability.split(".")
    assert int(major) >= 5
    assert minor.isdigit()


def through(device, source: RegisteredRing, target: RegisteredRing) -> None:
    """Copies every frame into device memory and from there into the other ring."""
    stream, event = device.stream(), device.event()
    buffer = device.buffer(SLOTS * SIZE)
    for index in range(SLOTS):
        stream.upload(buffer, index * SIZE, source.frame(index))
    for index in range(SLOTS):
        stream.download(buffer, index * SIZE, target.frame(SLOTS - 1 - index))
    stream.record(event)
    event.synchronize()
    buffer.free()


def test_a_mapped_memfd_is_locked_in_place_and_copied_byte_by_byte(device, mapped):
    raw, srgb = mapped(SLOTS, SIZE), mapped(SLOTS, SIZE)
    random = np.random.default_rng(1)
    for index in range(SLOTS):
        raw.slot(index)[:] = random.integers(0, 256, SIZE, np.uint8)
    before = raw.memory.copy()
    source, target = RegisteredRing(device, raw, SIZE), RegisteredRing(device, srgb, SIZE)
    assert source.locked
    assert target.locked
    through(device, source, target)
    for index in range(SLOTS):
        assert np.array_equal(srgb.slot(SLOTS - 1 - index), raw.slot(index))
    assert np.array_equal(raw.memory, before)
    source.close()
    target.close()


def test_a_real_ring_is_locked_in_place(device):
    ring_module = pytest.importorskip("ispeed.stream.ring", reason="the pipeline's packages are not here")
    raw, srgb = (ring_module.Ring.create(kind, SLOTS, SIZE, 7) for kind in ("raw", "srgb"))
    for index in range(SLOTS):
        raw.slot(index)[:] = index + 1
    source, target = RegisteredRing(device, raw, SIZE), RegisteredRing(device, srgb, SIZE)
    assert source.locked
    assert target.locked
    through(device, source, target)
    assert [int(srgb.slot(index)[-1]) for index in range(SLOTS)] == list(range(SLOTS, 0, -1))
    for ring in (source, target):
        ring.close()
    for ring in (raw, srgb):
        ring.close()


def test_memory_can_be_locked_again_once_it_was_unlocked(device, mapped):
    ring = mapped(SLOTS, SIZE)
    for _ in range(3):
        registered = RegisteredRing(device, ring, SIZE)
        assert registered.locked
        registered.close()


def test_memory_that_the_driver_refuses_to_lock_is_no_error(device, mapped, caplog):
    ring = mapped(SLOTS, SIZE)
    memory = ring.memory[: 1 << 20]
    assert lock_pages(memory)
    assert not lock_pages(memory)  # it is locked already
    assert "cannot be page-locked" in caplog.text
    unlock_pages(memory)


def test_more_memory_than_there_is_is_an_error_that_says_so(device):
    with pytest.raises(OutOfDeviceMemory):
        device.buffer(2 * gpu().memory)
    free, total = device.memory()
    assert 0 < free <= total
    assert total <= gpu().memory


def test_a_capture_by_the_driver_is_replayed():
    pytest.importorskip("pycuda.driver", exc_type=ImportError)
    from ispeed.engines.cuda.pycuda_device import PycudaDevice

    device = PycudaDevice()
    try:
        stream, buffer = device.stream(), device.buffer(4096)
        fresh, got = np.full(4096, 9, np.uint8), device.host_buffer(4096)
        source = device.host_buffer(4096)
        graph = try_capture(driver(), stream.handle, partial(stream.upload, buffer, 0, source))
        assert graph is not None
        source[:] = fresh  # what counts is what lies there when the graph runs
        graph.launch()
        stream.download(buffer, 0, got)
        stream.synchronize()
        assert np.array_equal(got, fresh)
        graph.free()
        buffer.free()
        del source, got, stream
    finally:
        device.close()
