"""Cores on the processor, through OpenVINO and ONNX Runtime: the picture, the inputs, the slots, the lanes."""

from __future__ import annotations

import mmap
import os
import select
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, cpu, pack
from ispeed.engines.core import read_core
from ispeed.engines.cpu import CpuEngine
from ispeed.engines.cpu_onnxruntime import OnnxRuntimeEngine
from ispeed.engines.graph_reference import graft_reference

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

NOTHING_GIVEN = np.full((1, 3), np.nan, np.float32)
FORMAT = RawFormat(64, 48, "BayerRG8")
MATRIX = ((1.6, -0.4, -0.2), (-0.3, 1.5, -0.2), (-0.1, -0.5, 1.6))


def exact(core, **options) -> CpuEngine:
    """In float32, for comparison by codes."""
    return CpuEngine(core, precision="fp32", **options)


BOTH = pytest.mark.parametrize("kind", [exact, OnnxRuntimeEngine], ids=["openvino", "onnxruntime"])


def picture(srgb, slot: int, fmt: RawFormat) -> np.ndarray:
    return srgb.slot(slot).reshape(fmt.height, fmt.width, 3)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


@BOTH
@pytest.mark.parametrize(
    ("pixel_format", "size"),
    [("BayerRG8", (64, 48)), ("BayerGR10", (13, 7)), ("BayerGB12p", (30, 9)), ("BayerBG10p", (36, 21))],
)
def test_the_picture_is_the_reference_up_to_one_code(
    kind, core_file, closing, rings, small: SimpleNamespace, pixel_format: str, size: tuple[int, int]
):
    full = 1 << int(pixel_format[7:].rstrip("p"))
    fmt = RawFormat(*size, pixel_format, full // 32, full * 0.9)
    frames = small.frames(fmt, 2)
    raw, srgb = rings(fmt, frames)
    engine = closing(kind(core_file(), white_balance=(1.7, 1, 0.8), defects=[(0, 0), (5, 4)]))
    engine.prepare(fmt, 1, raw, srgb)
    for k, samples in enumerate(frames):
        ticket = engine.develop([k], [k], NOTHING_GIVEN)
        ticket.wait()
        assert ticket.done
        np.testing.assert_allclose(ticket.white_balance, [[1.7, 1, 0.8]], rtol=1e-6)
        expected = small.reference(samples, fmt, (1.7, 1, 0.8), defects=[(0, 0), (5, 4)])
        assert small.off_by(picture(srgb, k, fmt), expected) <= 1


@BOTH
@pytest.mark.parametrize("tone", ["srgb", "linear"])
def test_linear_cores_get_colour_matrix_and_tone(kind, core_file, closing, rings, small: SimpleNamespace, tone: str):
    frames = small.frames(FORMAT, 1)
    raw, srgb = rings(FORMAT, frames)
    engine = closing(kind(core_file(output="linear"), white_balance=(1, 1, 1), colour_matrix=MATRIX, tone=tone))
    engine.prepare(FORMAT, 1, raw, srgb)
    engine.develop([0], [0], NOTHING_GIVEN).wait()
    expected = small.reference(frames[0], FORMAT, output="linear", colour_matrix=MATRIX, tone=tone)
    assert small.off_by(picture(srgb, 0, FORMAT), expected) <= 1


def test_bf16_is_what_the_processor_has_and_stays_close(core_file, closing, rings, small: SimpleNamespace):
    frames = small.frames(FORMAT, 1)
    raw, srgb = rings(FORMAT, frames)
    engine = closing(CpuEngine(core_file(), white_balance=(1.7, 1, 0.8)))
    if engine.info.precision != "bf16":
        pytest.skip("this processor has no instructions for bf16")
    engine.prepare(FORMAT, 1, raw, srgb)
    engine.develop([0], [0], NOTHING_GIVEN).wait()
    assert psnr(picture(srgb, 0, FORMAT), small.reference(frames[0], FORMAT, (1.7, 1, 0.8))) > 45


@pytest.mark.parametrize("kind", [CpuEngine, OnnxRuntimeEngine])
def test_int8_cores_run_as_they_are(kind, core_file, closing, rings, small: SimpleNamespace):
    frames = small.frames(FORMAT, 1)
    raw, srgb = rings(FORMAT, frames)
    engine = closing(kind(core_file(precision="int8"), white_balance=(1.7, 1, 0.8)))
    assert engine.info.precision == "int8"
    engine.prepare(FORMAT, 1, raw, srgb)
    engine.develop([0], [0], NOTHING_GIVEN).wait()
    assert 40 < psnr(picture(srgb, 0, FORMAT), small.reference(frames[0], FORMAT, (1.7, 1, 0.8))) < 65


@pytest.mark.parametrize("apart", [1.5, -1.0])
def test_integers_that_come_out_wrong_are_not_used(
    apart: float,
    core_file,
    closing,
    rings,
    small: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    """Of which this processor may have none: a limit that nothing keeps stands for it."""
    monkeypatch.setattr(cpu, "_INTEGERS_APART", apart)
    frames = small.frames(FORMAT, 1)
    raw, srgb = rings(FORMAT, frames)
    engine = closing(CpuEngine(core_file(precision="int8"), white_balance=(1.7, 1, 0.8)))
    with caplog.at_level("WARNING", logger="ispeed.engines.cpu"):
        engine.prepare(FORMAT, 1, raw, srgb)
    engine.develop([0], [0], NOTHING_GIVEN).wait()
    assert 40 < psnr(picture(srgb, 0, FORMAT), small.reference(frames[0], FORMAT, (1.7, 1, 0.8))) < 65
    if apart < 0:
        assert "small runs in floating point, more slowly" in caplog.text


@BOTH
def test_info_says_what_it_is(kind, core_file, closing):
    path = core_file()
    info = closing(kind(path)).info
    core = read_core(path).info
    assert (info.name, info.inputs, info.weights_sha256) == ("small", ("wb_r", "wb_g", "wb_b"), core.sha256)
    assert (info.backend, info.precision) == ({exact: "openvino"}.get(kind, "onnxruntime"), "fp32")
    assert info.max_batch == 1
    assert closing(kind(read_core(path))).info == info


@BOTH
def test_gains_come_from_the_frame_then_from_a_grey_world(kind, core_file, closing, rings, small: SimpleNamespace):
    fmt = RawFormat(64, 48, "BayerGB12")
    grey = np.full((48, 64), 900)
    grey[0::2, 0::2], grey[1::2, 1::2] = 1000, 1000  # green
    grey[0::2, 1::2], grey[1::2, 0::2] = 500, 250  # blue, red
    raw, srgb = rings(fmt, [grey, grey])
    engine = closing(kind(core_file()))
    engine.prepare(fmt, 1, raw, srgb)
    for slot, given, gains in [(0, (3, 2, 5), (1.5, 1, 2.5)), (1, (np.nan,) * 3, (4, 1, 2))]:
        ticket = engine.develop([slot], [slot], np.array([given], np.float32))
        ticket.wait()
        np.testing.assert_allclose(ticket.white_balance, [gains], rtol=1e-6)
        assert small.off_by(picture(srgb, slot, fmt), small.reference(grey, fmt, gains)) <= 1


@BOTH
def test_an_engine_goes_on_from_the_gains_of_an_earlier_one(kind, core_file, closing, rings, small: SimpleNamespace):
    raw, srgb = rings(FORMAT, [np.full((48, 64), 100)])  # grey already: an estimate that begins here would give 1
    engine = closing(kind(core_file()))
    engine.prepare(FORMAT, 1, raw, srgb)
    engine.resume((2.0, 1.0, 3.0))
    ticket = engine.develop([0], [0], NOTHING_GIVEN)
    ticket.wait()
    np.testing.assert_allclose(ticket.white_balance, [[2, 1, 3]], rtol=0.01)


@BOTH
@pytest.mark.parametrize(("given", "seen"), [(6.0, 6.0), (np.nan, 0.0)])
def test_inputs_are_found_by_name_and_nan_is_neutral(
    kind, core_file, closing, rings, small: SimpleNamespace, given: float, seen: float
):
    inputs = ("gain_db", "wb_b", "exposure_us", "wb_r", "wb_g")
    frames = small.frames(FORMAT, 1)
    raw, srgb = rings(FORMAT, frames)
    engine = closing(kind(core_file(inputs)))
    assert engine.info.inputs == inputs
    engine.prepare(FORMAT, 1, raw, srgb)
    ticket = engine.develop([0], [0], np.array([[given, 0.7, np.nan, 1.6, 1.0]], np.float32))
    ticket.wait()
    np.testing.assert_allclose(ticket.white_balance, [[1.6, 1, 0.7]], rtol=1e-6)
    expected = small.reference(frames[0], FORMAT, (seen, 0.7, 0, 1.6, 1), inputs)
    assert small.off_by(picture(srgb, 0, FORMAT), expected) <= 1


@BOTH
@pytest.mark.parametrize("output", ["srgb", "linear"])
@pytest.mark.parametrize("matrix", [MATRIX, None])
def test_a_core_that_is_told_the_colour_matrix_applies_it_itself(
    kind, make_matrix_core, closing, rings, small: SimpleNamespace, output, matrix
):
    made = make_matrix_core(output=output)
    frames = small.frames(FORMAT, 1)
    raw, srgb = rings(FORMAT, frames)
    engine = closing(kind(made.path, colour_matrix=matrix))
    engine.prepare(FORMAT, 1, raw, srgb)
    engine.develop([0], [0], np.full((1, 10), np.nan, np.float32)).wait()
    told = (0, *np.asarray(np.eye(3) if matrix is None else matrix).ravel())
    # the reference leaves the tail's matrix out as well, so that one applied twice would show
    expected = graft_reference(pack(frames[0], FORMAT), FORMAT, made.run, made.core.info, told, colour_matrix=matrix)
    assert small.off_by(picture(srgb, 0, FORMAT), expected) <= 1
    with pytest.raises(UserError, match="cannot be inverted"):
        kind(made.path, colour_matrix=np.ones((3, 3)))
    if output == "srgb":
        with pytest.raises(UserError, match="coloured has learned its tone; leave the tone out"):
            kind(made.path, tone="linear")


@BOTH
def test_a_core_without_inputs_says_gains_of_one(kind, core_file, closing, rings, small: SimpleNamespace):
    frames = small.frames(FORMAT, 1)
    raw, srgb = rings(FORMAT, frames)
    engine = closing(kind(core_file(())))
    engine.prepare(FORMAT, 1, raw, srgb)
    ticket = engine.develop([0], [0], np.empty((1, 0), np.float32))
    ticket.wait()
    assert ticket.white_balance.tolist() == [[1, 1, 1]]
    assert small.off_by(picture(srgb, 0, FORMAT), small.reference(frames[0], FORMAT, (), ())) <= 1
    with pytest.raises(UserError, match="takes no white-balance gains"):
        kind(core_file(()), white_balance=(2, 1, 2))


@BOTH
def test_every_byte_of_the_slot_is_written_and_no_other(kind, core_file, closing, rings, small: SimpleNamespace):
    fmt = RawFormat(30, 21, "BayerBG8")  # padded and cropped on every side
    raw, srgb = rings(fmt, small.frames(fmt, 3))
    before = raw.memory.copy()
    engine = closing(kind(core_file(), white_balance=(1, 1, 1)))
    engine.prepare(fmt, 1, raw, srgb)
    assert np.all(srgb.memory == 0xA5), "preparing wrote into a slot"
    shown = []
    for poison in (0x00, 0xFF):
        srgb.memory[:] = 0xA5
        srgb.slot(1)[:] = poison
        engine.develop([2], [1], NOTHING_GIVEN).wait()
        shown.append(srgb.slot(1).copy())
        assert np.all(srgb.memory[[0, 2]] == 0xA5)
        assert srgb.untouched()
    np.testing.assert_array_equal(shown[0], shown[1])
    np.testing.assert_array_equal(raw.memory, before)


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_lanes_in_flight_keep_order_and_content(core_file, closing, rings, small: SimpleNamespace, mode: str):
    frames = small.frames(FORMAT, 12)
    raw, srgb = rings(FORMAT, frames)
    engine = closing(exact(core_file(), mode=mode))
    assert engine.completion_fd is None
    engine.prepare(FORMAT, 1, raw, srgb)
    lanes = engine.info.lanes
    assert lanes == 1 if mode == "latency" else lanes >= 1
    gains = [(1 + k / 8, 1, 2 - k / 8) for k in range(12)]
    for first in range(0, 12, lanes):
        group = range(first, min(first + lanes, 12))
        # from slot k into slot 11 - k, so that none can pass for another
        flights = [engine.develop([k], [11 - k], np.array([gains[k]], np.float32)) for k in group]
        for k, ticket in zip(group, flights, strict=True):
            ticket.wait()
            np.testing.assert_allclose(ticket.white_balance, [gains[k]], rtol=1e-6)
    for k, samples in enumerate(frames):
        assert small.off_by(picture(srgb, 11 - k, FORMAT), small.reference(samples, FORMAT, gains[k])) <= 1


def test_threads_limit_the_lanes(core_file, closing, rings, small: SimpleNamespace):
    raw, srgb = rings(FORMAT, small.frames(FORMAT, 1))
    engine = closing(CpuEngine(core_file(), threads=1))
    engine.prepare(FORMAT, 1, raw, srgb)
    assert engine.info.lanes == 1


def test_completion_fd_becomes_readable_when_a_frame_is_done(core_file, closing, rings, small: SimpleNamespace):
    raw, srgb = rings(FORMAT, small.frames(FORMAT, 1))
    engine = closing(CpuEngine(core_file()))
    engine.prepare(FORMAT, 1, raw, srgb)
    assert engine.completion_fd is not None
    poll = select.poll()
    poll.register(engine.completion_fd, select.POLLIN)
    assert not poll.poll(0)
    ticket = engine.develop([0], [0], NOTHING_GIVEN)
    assert poll.poll(10_000)
    assert ticket.done
    assert os.eventfd_read(engine.completion_fd) == 1
    assert not poll.poll(0)


def test_a_failure_is_raised_by_the_frame_and_ends_the_engine(core_file, closing, rings, small: SimpleNamespace):
    raw, srgb = rings(FORMAT, small.frames(FORMAT, 2))
    engine = closing(exact(core_file(("gain_db",), fails_at_run_time=True)))
    engine.prepare(FORMAT, 1, raw, srgb)
    engine.develop([0], [0], np.zeros((1, 1), np.float32)).wait()
    ticket = engine.develop([1], [1], np.ones((1, 1), np.float32))
    poll = select.poll()
    poll.register(engine.completion_fd, select.POLLIN)
    assert poll.poll(10_000), "a failure must wake who polls, like a picture"
    with pytest.raises(RuntimeError, match="Exception from"):
        ticket.wait()
    with pytest.raises(RuntimeError, match="failed before"):
        engine.develop([0], [0], np.zeros((1, 1), np.float32))
    engine.close()


@BOTH
def test_closing_lets_go_of_the_rings_and_may_be_repeated(kind, core_file, closing, small: SimpleNamespace):
    memory = mmap.mmap(-1, 4 * FORMAT.payload_size)

    def ring(offset: int, size: int) -> SimpleNamespace:
        return SimpleNamespace(slots=1, slot=lambda _: np.frombuffer(memory, np.uint8, size, offset))

    engine = closing(kind(core_file()))
    engine.prepare(FORMAT, 1, ring(0, FORMAT.payload_size), ring(FORMAT.payload_size, 3 * FORMAT.payload_size))
    ticket = engine.develop([0], [0], NOTHING_GIVEN)
    engine.close()  # with a frame in flight
    assert ticket.done
    engine.close()
    memory.close()  # raises BufferError while a view is alive
    with pytest.raises(RuntimeError, match="not prepared"):
        engine.develop([0], [0], NOTHING_GIVEN)


@BOTH
def test_preparing_again_changes_the_format(kind, core_file, closing, rings, small: SimpleNamespace):
    engine = closing(kind(core_file(), white_balance=(1, 1, 1)))
    for fmt in (FORMAT, RawFormat(20, 10, "BayerGR12p")):
        frames = small.frames(fmt, 1)
        raw, srgb = rings(fmt, frames)
        engine.prepare(fmt, 1, raw, srgb)
        engine.develop([0], [0], NOTHING_GIVEN).wait()
        assert small.off_by(picture(srgb, 0, fmt), small.reference(frames[0], fmt)) <= 1


@BOTH
def test_nothing_piles_up(kind, core_file, rings, small: SimpleNamespace):
    raw, srgb = rings(FORMAT, small.frames(FORMAT, 1))
    path = core_file()

    def use() -> tuple[int, int]:
        engine = kind(path)
        engine.prepare(FORMAT, 1, raw, srgb)
        engine.develop([0], [0], NOTHING_GIVEN).wait()
        engine.close()
        del engine
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    # The runtimes keep what their engines share, and their threads, like others of this process, come and go: only what
    # every use leaves behind is a leak.
    uses = 12
    before = use()
    for _ in range(uses):
        after = use()
    assert all(now - then < uses / 2 for then, now in zip(before, after, strict=True)), (before, after)


def test_a_signal_does_no_harm_after_engines_have_come_and_gone(core_file):
    """OpenVINO gives its thread a stack for signals, and must not leave it with one that is gone."""
    program = f"""
import faulthandler, gc, pathlib, signal  # faulthandler asks for a stack of its own for every signal
faulthandler.enable()
from ispeed.engines.cpu import CpuEngine
path = pathlib.Path({str(core_file())!r})
first, second = CpuEngine(path), CpuEngine(path)
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda *what: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


LOOK_FOR_BOUND_THREADS = """
import os, sys, threading
from pathlib import Path
import numpy as np
from ispeed.engines import RawFormat
from ispeed.engines.cpu import CpuEngine
from ispeed.engines.cpu_onnxruntime import OnnxRuntimeEngine
from ispeed.engines.slots import Slots

fmt = RawFormat(512, 384, "BayerRG8")
raw, srgb = Slots(1, fmt.payload_size), Slots(1, fmt.width * fmt.height * 3)
engine = {"openvino": CpuEngine, "onnxruntime": OnnxRuntimeEngine}[sys.argv[1]](
    Path(sys.argv[2]), precision="fp32", threads=1
)
engine.prepare(fmt, 1, raw, srgb)
enough, developed, bound = threading.Event(), 0, set()

def develop():
    global developed
    while not enough.is_set():
        engine.develop([0], [0], np.full((1, 3), np.nan, np.float32)).wait()
        developed += 1

developing = threading.Thread(target=develop)
developing.start()
looked = 0
while looked < 300 or developed < 20:
    for thread in map(int, os.listdir("/proc/self/task")):
        try:
            if os.sched_getaffinity(thread) != os.sched_getaffinity(0):
                bound.add(thread)
        except ProcessLookupError:  # it has ended
            pass
    looked += 1
enough.set()
developing.join()
engine.close()
print(len(bound))
"""


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is all that there is")
def test_threads_may_run_on_every_core(runtime, core_file):
    """Two processes that bind theirs to the same cores are as slow as one. OpenVINO binds only while it computes.

    In a process of its own: the runtimes share threads between models, and other tests' may have bound them.
    """
    command = [sys.executable, "-c", LOOK_FOR_BOUND_THREADS, runtime, str(core_file())]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout == "0\n"
