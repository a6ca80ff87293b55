"""The fused kernel against its NumPy reference, and the reference against the truth."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ispeed.engines import PIXEL_FORMATS, RawFormat, UserError, open_engine
from ispeed.engines.reference import classic_reference, demosaic, srgb_curve

BAYER = [name for name in PIXEL_FORMATS if name != "Mono8"]
MATRIX = ((1.6, -0.4, -0.2), (-0.3, 1.5, -0.2), (-0.1, -0.5, 1.6))
GAINS = (1.8, 1.0, 1.4)
NOTHING_GIVEN = np.zeros((1024, 3), np.float32)


def noise(fmt: RawFormat, count: int, seed: int = 1) -> list[npt.NDArray[np.integer]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 1 << fmt.depth, (fmt.height, fmt.width)) for _ in range(count)]


def psnr(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    error = np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


@pytest.fixture
def develop(rings) -> Callable[..., tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]]:
    """Develops samples one by one; returns sRGB [N, H, W, 3], the payloads, and the gains [N, 3]."""

    def run(fmt: RawFormat, frames: list[npt.NDArray[np.integer]], params=NOTHING_GIVEN, **options):
        raw, srgb = rings(fmt, frames)
        engine = open_engine("classic", **options)
        try:
            engine.prepare(fmt, 1, raw, srgb)
            gains = []
            for k in range(raw.slots):
                ticket = engine.develop([k], [k], params[k : k + 1])
                ticket.wait()
                gains.append(ticket.white_balance[0].copy())
        finally:
            engine.close()
        assert raw.untouched()
        assert srgb.untouched()
        shown = np.stack([srgb.slot(k).reshape(fmt.height, fmt.width, 3) for k in range(srgb.slots)])
        return shown, [raw.slot(k) for k in range(raw.slots)], np.stack(gains)

    return run


def check(shown: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> None:
    assert np.abs(shown.astype(int) - expected).max() <= 2
    assert psnr(shown, expected) >= 50


def formats_and_sizes() -> Iterator[tuple[str, int, int]]:
    for name in PIXEL_FORMATS:
        step = {"0p": 4, "2p": 2}.get(name[-2:], 1)  # packed rows end on whole bytes
        for width, height in [(2, 2), (4, 2), (8, 3), (76, 53), (37, 29), (3, 5)]:
            if width % step == 0:
                yield name, width, height


@pytest.mark.parametrize(("name", "width", "height"), list(formats_and_sizes()))
def test_kernel_agrees_with_the_reference(develop, name: str, width: int, height: int):
    fmt = RawFormat(width, height, name, black_level=7.5, white_level=230)
    # many frames of the small sizes, so that the mean error means something
    shown, raws, _ = develop(fmt, noise(fmt, 1 + 400 // fmt.width), white_balance=GAINS, colour_matrix=MATRIX)
    check(shown, np.stack([classic_reference(raw, fmt, GAINS, MATRIX) for raw in raws]))


@pytest.mark.parametrize("name", ["BayerRG8", "BayerGR12", "BayerGB10p", "BayerBG12p"])
@pytest.mark.parametrize("size", [(4, 4), (44, 31)])
def test_defects_clamping_and_linear_tone_agree_with_the_reference(develop, name: str, size: tuple[int, int]):
    fmt = RawFormat(*size, name)
    width, height = size
    options = {
        "defects": [(0, 0), (1, 0), (width - 1, height - 1), (2, height // 2), (3, height // 2)],
        "clamp_outliers": True,
        "tone": "linear",
    }
    shown, raws, _ = develop(fmt, noise(fmt, 4), white_balance=GAINS, **options)
    check(shown, np.stack([classic_reference(raw, fmt, GAINS, **options) for raw in raws]))


@pytest.mark.parametrize("name", ["Mono8", "BayerGR8", "BayerGR12p"])
def test_a_dead_and_a_hot_pixel_vanish(develop, name: str):
    fmt = RawFormat(32, 20, name)
    flat = np.full((20, 32), 1 << fmt.depth - 2)
    spoilt = flat.copy()
    spoilt[7, 10], spoilt[12, 21] = 0, (1 << fmt.depth) - 1
    (clean,), _, _ = develop(fmt, [flat], white_balance=(1, 1, 1))
    (untreated,), _, _ = develop(fmt, [spoilt], white_balance=(1, 1, 1))
    assert not np.array_equal(untreated, clean)
    (mended,), _, _ = develop(fmt, [spoilt], white_balance=(1, 1, 1), defects=[(10, 7), (21, 12)])
    np.testing.assert_array_equal(mended, clean)
    if name != "Mono8":
        (clamped,), _, _ = develop(fmt, [spoilt], white_balance=(1, 1, 1), clamp_outliers=True)
        np.testing.assert_array_equal(clamped, clean)


@pytest.mark.parametrize("name", ["BayerRG12", "BayerGR12", "BayerGB12", "BayerBG12"])
def test_demosaic_is_close_to_the_truth(develop, name: str):
    fmt = RawFormat(96, 64, name)
    y, x = np.mgrid[0:64, 0:96]
    waves = [0.5 + 0.3 * np.sin(x / 9 + phase) * np.cos(y / 7 - phase) for phase in (0.0, 0.4, 0.9)]
    truth = np.stack(waves, axis=-1)
    mosaic = np.empty((64, 96))
    for place, colour in enumerate(fmt.cfa):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        mosaic[at] = truth[at][..., "RGB".index(colour)]
    (shown,), _, _ = develop(fmt, [np.round(mosaic * 4095).astype(np.uint16)], white_balance=(1, 1, 1))
    assert psnr(shown, srgb_curve(truth) * 255) > 45
    assert psnr(demosaic(mosaic, fmt.cfa) * 255, truth * 255) > 45


def test_greys_follow_the_srgb_curve_within_half_a_code(develop):
    fmt = RawFormat(4, 4, "BayerRG16")
    levels = np.unique(np.concatenate([np.arange(0, 700, 7), np.linspace(0, 65535, 800).astype(int)]))
    shown, _, _ = develop(fmt, [np.full((4, 4), level) for level in levels], white_balance=(1, 1, 1))
    exact = srgb_curve(levels / 65535) * 255
    assert np.abs(shown - exact[:, None, None, None]).max() <= 0.5 + 0.5  # half a code of the curve, half of rounding
    assert np.all(np.diff(shown[:, 0, 0, 0].astype(int)) >= 0)


def test_grey_samples_stay_grey(develop):
    fmt = RawFormat(16, 16, "BayerBG10")
    (shown,), _, _ = develop(fmt, [np.full((16, 16), 300)], white_balance=(1, 1, 1))
    assert np.unique(shown).tolist() == [round(float(srgb_curve(300 / 1023)) * 255)]


def test_black_is_black_and_burnt_out_is_white(develop):
    fmt = RawFormat(16, 16, "BayerGR12", black_level=256, white_level=4000)
    frames = [np.full((16, 16), level) for level in (0, 256, 4000, 4095)]
    shown, _, _ = develop(fmt, frames, white_balance=(2, 1, 1.5))
    assert [np.unique(frame).tolist() for frame in shown] == [[0], [0], [255], [255]]


@pytest.mark.parametrize("name", ["BayerRG8", "BayerBG12p", "Mono8"])
def test_threads_give_the_same_picture_as_one(develop, name: str):
    fmt = RawFormat(64, 301, name)
    frames = noise(fmt, 2)
    one, _, _ = develop(fmt, frames, threads=1)
    three, _, _ = develop(fmt, frames, threads=3)
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_gives_the_same_as_frame_by_frame(develop, rings, threads: int):
    fmt = RawFormat(40, 70, "BayerGB8")
    frames = noise(fmt, 5)
    alone, _, gains = develop(fmt, frames)
    raw, srgb = rings(fmt, frames)
    engine = open_engine("classic", threads=threads)
    try:
        engine.prepare(fmt, 4, raw, srgb)
        assert np.all(srgb.memory == 0xA5)
        first = engine.develop([0, 1, 2, 3], [4, 3, 2, 1], NOTHING_GIVEN[:4])
        first.wait()
        np.testing.assert_array_equal(first.white_balance, gains[:4])
        second = engine.develop([4], [0], NOTHING_GIVEN[:1])
        second.wait()
        np.testing.assert_array_equal(second.white_balance, gains[4:])
        with pytest.raises(ValueError, match="1 to 4"):
            engine.develop([0] * 5, [0] * 5, NOTHING_GIVEN[:5])
        with pytest.raises(ValueError, match="1 to 4"):
            engine.develop([0, 1], [0], NOTHING_GIVEN[:2])
    finally:
        engine.close()
    together = np.stack([srgb.slot(4 - k) for k in range(5)]).reshape(alone.shape)
    np.testing.assert_array_equal(together, alone)


def cast(fmt: RawFormat, red: int, green: int, blue: int) -> npt.NDArray[np.integer]:
    """A flat frame of one colour."""
    samples = np.empty((fmt.height, fmt.width), np.uint16)
    for place, colour in enumerate(fmt.cfa):
        samples[place // 2 :: 2, place % 2 :: 2] = {"R": red, "G": green, "B": blue}[colour]
    return samples


@pytest.mark.parametrize("name", BAYER)
def test_grey_world_reads_every_format(develop, name: str):
    fmt = RawFormat(64, 48, name, black_level=8)
    _, _, gains = develop(fmt, [cast(fmt, 58, 108, 33)])
    np.testing.assert_allclose(gains[0], [2, 1, 4], rtol=1e-6)


def test_grey_world_leaves_out_clipped_samples(develop):
    fmt = RawFormat(64, 48, "BayerRG8")
    samples = cast(fmt, 50, 100, 25)
    samples[:24] = 255
    _, _, gains = develop(fmt, [samples])
    np.testing.assert_allclose(gains[0], [2, 1, 4], rtol=1e-6)


def test_gains_of_the_camera_win_over_the_grey_world_and_those_of_the_user_over_both(develop):
    fmt = RawFormat(16, 16, "BayerGR8")
    frames = [cast(fmt, 50, 100, 25)] * 3
    params = np.array([[0, 0, 0], [1.5, 1, 2.5], [np.nan, 1, 1]], np.float32)
    _, _, gains = develop(fmt, frames, params)
    np.testing.assert_allclose(gains, [[2, 1, 4], [1.5, 1, 2.5], [2, 1, 4]], rtol=1e-6)
    _, _, gains = develop(fmt, frames, params, white_balance=(1.2, 1, 1.3))
    np.testing.assert_allclose(gains, [[1.2, 1, 1.3]] * 3, rtol=1e-6)


@pytest.mark.parametrize("before_prepare", [True, False])
def test_resumed_gains_go_on(rings, before_prepare: bool):
    fmt = RawFormat(16, 16, "BayerRG8")
    raw, srgb = rings(fmt, [cast(fmt, 50, 100, 25)])
    engine = open_engine("classic")
    try:
        if before_prepare:
            engine.resume((1.0, 1.0, 1.0))
        engine.prepare(fmt, 1, raw, srgb)
        if not before_prepare:
            engine.resume((1.0, 1.0, 1.0))
        ticket = engine.develop([0], [0], NOTHING_GIVEN[:1])
        assert 1.0 < ticket.white_balance[0, 0] < 1.02  # a small step towards 2, not a jump
    finally:
        engine.close()


def test_raw_slots_may_be_read_only(rings):
    fmt = RawFormat(16, 16, "BayerRG12")
    raw, srgb = rings(fmt, noise(fmt, 1))
    raw.memory.flags.writeable = False
    engine = open_engine("classic", white_balance=GAINS)
    try:
        engine.prepare(fmt, 1, raw, srgb)
        engine.develop([0], [0], NOTHING_GIVEN[:1]).wait()
    finally:
        engine.close()
    check(srgb.slot(0), classic_reference(raw.slot(0), fmt, GAINS).reshape(-1))


def test_an_engine_can_be_prepared_again_and_leaves_no_thread(rings):
    before = threading.active_count()
    engine = open_engine("classic", threads=2, white_balance=GAINS)
    for fmt in (RawFormat(16, 80, "BayerRG8"), RawFormat(20, 64, "Mono8"), RawFormat(8, 64, "BayerBG10p")):
        raw, srgb = rings(fmt, noise(fmt, 1))
        engine.prepare(fmt, 1, raw, srgb)
        engine.develop([0], [0], NOTHING_GIVEN[:1]).wait()
        check(srgb.slot(0), classic_reference(raw.slot(0), fmt, GAINS).reshape(-1))
    engine.close()
    engine.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("flat_field", [None, {name: [[1, 1.5], [2, 1]] for name in ("R", "Gr", "Gb", "B")}])
@pytest.mark.parametrize("threads", [1, 2])
def test_developing_allocates_nothing_of_a_frames_size(rings, threads: int, flat_field: dict | None):
    fmt = RawFormat(640, 400, "BayerRG12p")
    raw, srgb = rings(fmt, noise(fmt, 2))
    engine = open_engine("classic", threads=threads, flat_field=flat_field)
    try:
        engine.prepare(fmt, 1, raw, srgb)
        engine.develop([0], [0], NOTHING_GIVEN[:1])
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for k in range(20):
            engine.develop([k % 2], [k % 2], NOTHING_GIVEN[:1]).wait()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        engine.close()
    assert peak - before < 16_384  # a row has 1920 bytes, a frame 768,000
    assert after - before < 4096


def test_wrong_preparations_are_refused(rings):
    fmt, mono = RawFormat(16, 16, "BayerRG12"), RawFormat(16, 16, "Mono8")
    raw, srgb = rings(fmt, noise(fmt, 1))
    engine = open_engine("classic", clamp_outliers=True)
    with pytest.raises(UserError, match="batch of 5"):
        engine.prepare(fmt, 5, raw, srgb)
    with pytest.raises(UserError, match="only in Bayer frames"):
        engine.prepare(mono, 1, raw, srgb)
    with pytest.raises(ValueError, match="raw slot needs 512 bytes"):
        engine.prepare(fmt, 1, rings(mono, noise(mono, 1))[0], srgb)
    with pytest.raises(ValueError, match="sRGB slot needs 768 writable bytes"):
        engine.prepare(fmt, 1, raw, raw)
    engine.close()
    engine = open_engine("classic", defects=[(16, 0)])
    with pytest.raises(UserError, match="outside the 16x16 frame"):
        engine.prepare(fmt, 1, raw, srgb)
    engine.close()


def test_a_real_frame_comes_out_like_the_reference(develop, data_dir: Path):
    fmt = RawFormat(512, 512, "BayerRG12")
    samples = np.fromfile(data_dir / "paired/rhid/val/raw/2075_9.raw", "<u2").reshape(512, 512)
    shown, raws, gains = develop(fmt, [samples], colour_matrix=MATRIX)
    check(shown[0], classic_reference(raws[0], fmt, gains[0].tolist(), MATRIX))
    assert 20 < shown.mean() < 235
