"""The figures of the quality gate, and the frames and pictures that it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ispeed.engines import RawFormat, pack
from ispeed.engines.core import Core, read_core
from ispeed.engines.errors import UserError
from ispeed.engines.gate import BelowGate, Gate
from ispeed.engines.half import rounded_to_half
from ispeed.engines.inputs import CCM
from ispeed.engines.opening import open_engine
from ispeed.engines.quality import Judge, Score, develop_all, grey_world, load_material, params, psnr, repacked
from ispeed.engines.reference import classic_reference


def test_psnr_by_hand() -> None:
    flat = np.full((4, 6, 3), 100, np.uint8)
    assert psnr([flat, flat], [flat + 5, flat]) == pytest.approx(10 * np.log10(255**2 / 12.5))
    assert psnr([flat], [flat]) == 99
    assert Score(30.0, 30.0, 50.0, 2).to_json(0.1)["drop_db"] == 0


@pytest.mark.parametrize("cfa", ["RG", "GR", "GB", "BG"])
def test_grey_world_finds_the_light(cfa: str) -> None:
    fmt = RawFormat(9, 7, f"Bayer{cfa}12", 64, 4095)
    light = {"R": 1000, "G": 2000, "B": 500}
    samples = np.array([[64 + light[fmt.cfa[y % 2 * 2 + x % 2]] for x in range(9)] for y in range(7)], np.uint16)
    assert grey_world(samples, fmt) == pytest.approx([2, 1, 4])
    samples[:] = 4095
    assert grey_world(samples, fmt) == pytest.approx([1, 1, 1]), "burnt-out frames tell nothing"


def test_gains_go_where_the_core_wants_them() -> None:
    gains, camera = np.array([2, 1, 3], np.float32), np.array([250, 6], np.float32)
    assert params(("gain_db", "wb_b", "wb_r"), gains, camera).tolist() == [[6, 3, 2]]
    assert params(("exposure_us", "wb_g", "gain_db"), gains, camera).tolist() == [[250, 1, 6]]
    assert params(("exposure_us", "gain_db"), gains, np.full(2, np.nan, np.float32)).tolist() == [[0, 0]]
    assert params(("iso", "gain_db"), gains, camera).tolist() == [[0, 6]], "of two columns the rest is not known"
    camera = np.array([250, 6, np.nan, 4, 50], np.float32)
    assert params(("iso", "focal_length_mm", "f_number"), gains, camera).tolist() == [[0, 50, 4]]
    matrix = np.array([[2, 0, 0.5], [0, 1, 0], [0.25, 0, 1]])
    assert params(("wb_r", *CCM), gains, camera, matrix).tolist() == [[2, *matrix.ravel().tolist()]]
    assert params(CCM, gains, camera).tolist() == [np.eye(3).ravel().tolist()]
    with pytest.raises(UserError, match="cannot be inverted"):
        params(CCM, gains, camera, np.ones((3, 3)))


def test_frames_come_with_the_exposure_and_gain_that_they_tell(frames_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.npy"
    np.save(other, np.load(frames_file)[:2])
    query = "format=BayerRG12&black=64&exposure_us=80&gain_db=12"
    material = load_material([str(frames_file), f"{other}?{query}"])
    assert np.isnan(material.camera[:6]).all()
    assert np.array_equal(material.camera[6:], [[80, 12, np.nan, np.nan, np.nan]] * 2, equal_nan=True)
    assert material.untold(("iso", "focal_length_mm", "ccm_rr")) == ("iso", "focal_length_mm")
    assert material.untold(("wb_r", "exposure_us", "gain_db")) == ("exposure_us", "gain_db")
    assert material.untold(("wb_r",)) == ()
    calibration, held_out = material.halves()
    assert [part.camera[-1, :2].tolist() for part in (calibration, held_out)] == [[80, 12]] * 2
    given = load_material([str(frames_file), f"{other}?{query}"], camera=(None, 6.0))
    assert given.camera[:, 1].tolist() == [6] * 8
    assert given.untold(("exposure_us", "gain_db")) == ("exposure_us",)
    full = load_material([f"{other}?{query}&iso=800"], camera=(None, None, None, 4.0, 50.0))
    assert full.camera.tolist() == [[80, 12, 800, 4, 50]] * 2


def test_a_core_that_is_told_the_gain_is_judged_with_it(told_core_file: Path, frames_file: Path) -> None:
    """Each frame with its own, as the engine itself is told it."""
    np.save(frames_file, np.load(frames_file)[[0, 0]])
    Path(f"{frames_file}.yaml").write_text("format: BayerRG12\nblack: 64\ngain_db: [0, 12]\n")
    core, material = read_core(told_core_file), load_material([str(frames_file)])
    none, some = Judge(core, material).fp32
    assert np.abs(some.astype(int) - none).mean() > 5
    told = material.frames, material.raw_format, material.gains, material.camera
    shown = develop_all(lambda: open_engine(str(told_core_file), precision="fp32", threads=1), *told)
    for picture, wanted in zip(shown, (none, some), strict=True):
        assert np.abs(picture.astype(int) - wanted).max() <= 1
    said: list[str] = []
    verdict = Gate(core, material, 0.1, None, said.append).by_engine(told_core_file, None, "fp32")
    assert verdict.score is not None
    assert verdict.score.to_fp32_db > 45


def test_default_reference_is_the_classic_engine_with_the_same_gains(frames_file: Path) -> None:
    material = load_material([str(frames_file)], white_balance=(2.0, 1.0, 1.5))
    assert material.gains.tolist() == [[2, 1, 1.5]] * 6
    expected = classic_reference(material.frames[3], material.raw_format, (2.0, 1.0, 1.5))
    assert np.abs(material.references[3].astype(int) - expected).max() <= 1
    assert "the classic engine's picture" in material.reference


def test_halves_share_no_frame(frames_file: Path) -> None:
    material = load_material([str(frames_file)])
    calibration, held_out = material.halves()
    assert [len(part.frames) for part in (calibration, held_out)] == [3, 3]
    assert calibration.frames[1] is material.frames[2]
    assert held_out.references[2] is material.references[5]
    assert np.array_equal(held_out.gains[1], material.gains[3])
    with pytest.raises(UserError, match="one frame only; give two or more"):
        material.only([0]).halves()


def test_frames_in_another_packing(frames_file: Path) -> None:
    material = load_material([str(frames_file)])
    other = repacked(material, RawFormat(48, 32, "BayerRG12p", 64, 4095))
    assert other is not None
    samples = np.load(frames_file)[4]
    assert np.array_equal(other.frames[4], pack(samples, other.raw_format))
    for unlike in (("BayerGR12p", 64), ("BayerRG10", 64), ("BayerRG12p", 0)):
        assert repacked(material, RawFormat(48, 32, *unlike)) is None


def test_references_from_files(frames_file: Path, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3)).astype(np.uint8)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{k:03d}.png")
    np.save(tmp_path / "pictures.npy", pictures)
    for path in (folder, tmp_path / "pictures.npy"):
        material = load_material([str(frames_file)], path)
        assert np.array_equal(material.references, pictures)
        assert material.reference == str(path)
    (folder / "005.png").unlink()
    for path, message in (
        (folder, "must hold 6 pictures of 48x32, uint8 RGB, one per frame"),
        (tmp_path / "absent.npy", "cannot be read"),
        (frames_file, "must hold 6 pictures"),
    ):
        with pytest.raises(UserError, match=message):
            load_material([str(frames_file)], path)


def test_frames_that_do_not_go_together(frames_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.npy"
    np.save(other, np.zeros((1, 32, 40), np.uint16))
    with pytest.raises(UserError, match=r"other.npy has another size, format or level than .*frames.npy"):
        load_material([str(frames_file), f"{other}?format=BayerRG12&black=64"])
    with pytest.raises(UserError, match="Mono8, which has no colours"):
        load_material([f"{other}?format=Mono8"])
    np.save(other, np.zeros((0, 32, 40), np.uint16))
    with pytest.raises(UserError, match="holds no frames"):
        load_material([f"{other}?format=BayerRG12"])


def test_gate_refuses_with_the_figure(core: Core, frames_file: Path, reference_file: Path) -> None:
    material = load_material([str(frames_file)], reference_file)
    said: list[str] = []
    verdict = Gate(core, material, 0.1, None, said.append).by_runtime(rounded_to_half(core.model), "fp16")
    assert verdict.score is not None
    assert verdict.score.frames == 6
    assert abs(verdict.score.drop_db) < 0.1
    assert 30 < verdict.score.fp32_db < 40
    assert verdict.score.to_fp32_db > 60
    spoilt = rounded_to_half(core.model)
    next(t for t in spoilt.graph.initializer if t.name.startswith("w2")).raw_data = bytes(12 * 8 * 9 * 4)
    with pytest.raises(BelowGate, match=r"small in fp16 loses \d+\.\d{3} dB .* where 0.1 dB are allowed"):
        Gate(core, material, 0.1, None, said.append).by_runtime(spoilt, "fp16")
    assert said == []


def test_a_far_reference_is_said(core: Core, frames_file: Path) -> None:
    said: list[str] = []
    material = load_material([str(frames_file)], white_balance=(4.0, 1.0, 0.5))
    Gate(core, material, 0.1, None, said.append).by_runtime(core.model, "fp32")
    assert len(said) == 1
    assert "makes the gate coarse" in said[0]


def test_judge_scores_fp32_as_itself(core: Core, frames_file: Path) -> None:
    judge = Judge(core, load_material([str(frames_file)]))
    score = judge.score(core.model)
    assert (score.drop_db, score.to_fp32_db) == (0, 99)
