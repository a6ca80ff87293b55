"""isp-invert as a user runs it: frames of photographs, the data set that they are, wrong input, and Ctrl-C."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from ispeed.engines import UserError
from ispeed.engines.raw_files import load_raw
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.cli import train
from ispeed.train.data.cfa import PHASES, mosaic
from ispeed.train.data.folder import PairFolder
from ispeed.train.data.pairs import RawPairs
from ispeed.train.data.profile import CameraProfile
from ispeed.train.data.raw_pair import RawPair
from ispeed.train.evaluation.frames import to_tensor
from ispeed.train.evaluation.opening import open_set
from ispeed.train.evaluation.settings import PairsSet
from ispeed.train.invert import RECORD, Inverter, make_invert_settings, make_inverter
from ispeed.train.invert_cli import NETWORK, main
from ispeed.train.models import BothISPs, InverseISP, InverseModule, make_network
from ispeed.train.models.param_net import OPTICS
from ispeed.train.sources import PairsSource

MATRIX = [[1.6, -0.4, -0.2], [-0.2, 1.5, -0.3], [0.0, -0.5, 1.5]]
PROFILE: dict[str, Any] = {"name": "small", "colour_matrix": MATRIX, "bits": 16, "iso": [100, 6400]}
HEIGHT, WIDTH = 28, 36

Invert = Callable[..., Path]


def lively(form: str = "inverse") -> torch.nn.Module:
    """A small network whose weights, of chance, show in what it gives, and so does what it is told."""
    torch.manual_seed(8)
    network = make_network("paramisp", form=form, width=4, ranges="high_speed")
    for part in [network.back, network.forth] if isinstance(network, BothISPs) else [network]:
        torch.nn.init.normal_(part.local.tail.weight, 0.0, 0.02)
        torch.nn.init.normal_(part.told.mix[-1].weight, 0.0, 0.5)
    return network.eval()


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return saved(tmp_path / "inverse.pt", "inverse")


def saved(path: Path, form: str) -> Path:
    options = {"form": form, "width": 4, "ranges": "high_speed"}
    save_checkpoint(path, Checkpoint(lively(form), "paramisp", options, run="none", data="chance", licence="CC0"))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A smooth one, and one of odd size in a folder of its own."""
    rng = np.random.default_rng(4)
    for name, height, width in (("a.png", HEIGHT, WIDTH), ("more/b c.png", HEIGHT + 3, WIDTH + 3)):
        y, x = np.mgrid[:height, :width]
        colours = [127 + 100 * np.sin(rng.uniform(0.05, 0.3) * y + rng.uniform(0.05, 0.3) * x) for _ in range(3)]
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.stack(colours, -1).astype(np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def camera(tmp_path: Path) -> Callable[..., Path]:
    """Writes a profile with changes."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "camera.yaml"
        path.write_text(yaml.safe_dump({**PROFILE, **changes}))
        return path

    return write


@pytest.fixture
def invert(tmp_path: Path, network: Path, photos: Path, camera: Callable[..., Path]) -> Invert:
    """Runs the command, which has to succeed, and gives the folder."""

    def run(*arguments: str, into: str = "frames", **profile: Any) -> Path:
        out = tmp_path / into
        given = [str(photos), "--camera", str(camera(**profile)), "--network", str(network), "-o", str(out)]
        assert main([*given, *arguments]) == 0
        return out

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_pairs(folder: Path) -> list[RawPair]:
    reader = PairFolder(folder)
    return [reader.load(file) for file in reader.files()]


# ---- what frames are ---------------------------------------------------------------------------------------


def test_what_is_read_back_is_what_the_network_gave(invert: Invert, network: Path):
    folder = invert("--no-noise")
    module = InverseModule(load_checkpoint(network).network).eval()
    sample = RawPairs(PairFolder(folder), multiple=4)[0]
    assert sample["target"].shape == (3, HEIGHT, WIDTH)
    assert sample["matrix"].flatten().tolist() == pytest.approx(sum(MATRIX, []))  # noqa: RUF017 - three rows
    assert (sample["camera"] > 0).all(), "exposure, gain and the others are told"
    told = [sample[name][None] for name in ("target", "gains", "matrix", "camera")]
    with torch.inference_mode():
        planes = module(*told)[0]
        untold = module(*told[:3], torch.zeros(1, 5))[0]
    step = 1 / (65535 * 63 / 64)
    assert (sample["planes"] - planes).abs().max() <= 0.51 * step
    assert (sample["planes"] - untold).abs().max() > 100 * step, "a parameter that is lost would not go unnoticed"


@pytest.mark.parametrize("cfa", PHASES)
def test_every_filter_array_samples_the_same_colours(cfa: str, invert: Invert, network: Path):
    pair = read_pairs(invert("--no-noise", "--count", "1", cfa=cfa, bits=12, black_level=0.1))[0]
    assert pair.raw_format.cfa == cfa
    assert (pair.raw_format.black_level, pair.raw_format.white_level) == (410, 4095)
    inverse = load_checkpoint(network).network
    assert pair.gains is not None
    assert pair.matrix is not None
    optics = torch.tensor([[getattr(pair, name) for name in OPTICS]])
    with torch.inference_mode():
        colours = inverse(
            to_tensor(pair.target.copy()),
            torch.from_numpy(pair.gains)[None],
            torch.from_numpy(pair.matrix)[None],
            optics,
        )
    wanted = 410 + mosaic(colours, cfa)[0].clamp(0, 1).numpy() * (4095 - 410)
    assert np.abs(pair.samples - wanted).max() < 0.51


def test_sizes_that_the_network_lacks_are_mirrored_and_cut(network: Path):
    inverter = inverter_of(network)
    shot = inverter.frame(np.zeros((16, 16, 3), np.uint8), 1).shot
    picture = torch.rand(1, 3, 18, 22, generator=torch.Generator().manual_seed(1))
    mirrored = torch.cat([picture, picture[..., [20, 19]]], 3)
    mirrored = torch.cat([mirrored, mirrored[:, :, [16, 15]]], 2)
    torch.testing.assert_close(inverter.colours(picture, shot), inverter.colours(mirrored, shot)[:, :, :18, :22])


def inverter_of(network: Path, profile: dict[str, Any] | None = None, **settings: Any) -> Inverter:
    made = CameraProfile(**{**PROFILE, **(profile or {})})
    return make_inverter(load_checkpoint(network), network, made, make_invert_settings(settings))


def test_noise_is_that_of_the_gain(network: Path):
    profile = {"full_well": 4000.0, "read_noise": 8.0, "base_iso": 100.0}
    picture = np.full((96, 128, 3), 120, np.uint8)
    for iso in (100.0, 400.0):
        clean, noisy = (
            inverter_of(network, profile, iso=iso, noise=noise).frame(picture, 7) for noise in (False, True)
        )
        assert clean.shot == noisy.shot
        fmt = clean.raw_format
        room = fmt.white_level - fmt.black_level
        signal = (clean.samples - fmt.black_level) / room
        residual = (noisy.samples.astype(float) - clean.samples) / room
        electron = iso / 100 / 4000
        expected = electron * signal + (8 * electron) ** 2
        assert float(np.mean(residual**2 / expected)) == pytest.approx(1, abs=0.1)
        assert abs(residual.mean()) < 6 * math.sqrt(expected.mean() / residual.size)


def test_noise_in_the_dark_is_not_cut_off(network: Path):
    profile = {"bits": 8, "black_level": 0.2, "read_noise": 40.0, "full_well": 2000.0, "base_iso": 100.0}
    frame = inverter_of(network, profile, iso=100.0).frame(np.zeros((64, 64, 3), np.uint8), 3)
    assert frame.raw_format.pixel_format == "BayerRG8"
    assert frame.raw_format.black_level == 51
    clean = inverter_of(network, profile, iso=100.0, noise=False).frame(np.zeros((64, 64, 3), np.uint8), 3).samples
    dark = clean == 51
    assert dark.sum() > 500
    below = (frame.samples[dark] < 51).mean()
    assert 0.3 < below < 0.5


def test_frames_follow_from_the_seed(invert: Invert):
    first, again, other = (
        contents(invert("--per-photo", "2", "--seed", seed, into=into))
        for seed, into in (("3", "x"), ("3", "y"), ("4", "z"))
    )
    assert first == again
    assert {"raw/a_1.png", "raw/a_1.png.yaml", "raw/more_b_c_2.png", "rgb/a_2.png", "pairs.json", RECORD} <= set(first)
    assert first["rgb/a_1.png"] == first["rgb/a_2.png"] == other["rgb/a_1.png"]
    assert len({first["raw/a_1.png"], first["raw/a_2.png"], other["raw/a_1.png"]}) == 3


# ---- the folder --------------------------------------------------------------------------------------------


def test_what_is_given_holds_for_all_frames(invert: Invert, capsys: pytest.CaptureFixture[str]):
    given = ["--exposure-us", "250", "--iso", "800", "--f-number", "2.8", "--focal-length-mm", "35"]
    folder = invert(*given, "--crop", "18", bits=14, base_iso=200.0)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert told[0].startswith("a: 18x18, 250 us, ISO 800, f/2.8, 35 mm, white balance ")
    assert told[-1] == f"{folder}: 2 frames of 2 photographs"
    for pair in read_pairs(folder):
        assert pair.samples.shape == (18, 18)
        assert pair.raw_format.white_level == 16383
        assert pair.camera() == pytest.approx((250, 20 * math.log10(4), 800, 2.8, 35))
    frames = load_raw(str(folder / "raw/a.png"))  # tells it to isp-build, too
    assert frames.camera[0].tolist() == pytest.approx([250, 20 * math.log10(4)])
    assert frames.optics[0].tolist() == pytest.approx([800, 2.8, 35])
    record = json.loads((folder / RECORD).read_text())
    assert record["settings"]["iso"] == 800
    assert record["profile"]["bits"] == 14
    assert len(record["network"]["sha256"]) == 64


def test_it_is_a_data_set_for_training_and_evaluation(invert: Invert):
    folder = invert("--per-photo", "2")
    source = PairsSource(source="pairs", data_set="folder", root=folder, crop=16, hold_out=0.5)
    opened = {held: source.open(1, held_out=held) for held in (False, True)}
    assert [len(each.samples) for each in opened.values()] == [2, 2]
    files = PairFolder(folder).files()
    assert [file.group for file in files] == ["a.png"] * 2 + ["more/b c.png"] * 2, (
        "frames of a photograph stay together"
    )
    sample = opened[False].samples[0]
    assert sample["planes"].shape == (4, 8, 8)
    frames = list(open_set(PairsSet(kind="pairs", name="made", data_set="folder", root=folder), 1).frames(""))
    assert len(frames) == 4
    for frame, pair in zip(frames, read_pairs(folder), strict=True):
        assert frame.camera == pair.camera()
        np.testing.assert_allclose(np.ravel(frame.matrix), np.ravel(MATRIX))
        np.testing.assert_allclose(frame.gains, pair.gains)
    assert read_pairs(folder)[2].target.shape == (HEIGHT + 2, WIDTH + 2, 3), "odd photographs lose a row and a column"


@pytest.mark.parametrize(("matrix", "says"), [([1] * 9, "cannot be inverted"), ([1, 0], "give nine finite numbers")])
def test_a_matrix_beside_frames_must_be_one(matrix: list[float], says: str, invert: Invert):
    folder = invert("--count", "1")
    notes = json.loads((folder / "pairs.json").read_text())
    (folder / "pairs.json").write_text(json.dumps({"a": {**notes["a"], "matrix": matrix}}))
    with pytest.raises(UserError, match=f"the matrix of a in .*pairs.json: .*{says}"):
        read_pairs(folder)


@pytest.mark.parametrize(("cfa", "bits", "plays"), [("GBRG", 14, "BayerGB16"), ("RGGB", 8, "BayerRG8")])
def test_the_simulated_camera_plays_it(cfa: str, bits: int, plays: str, invert: Invert, runtime_dir: Path):
    folder = invert("--count", "1", cfa=cfa, bits=bits)
    snapped = folder / "snapped.npy"
    command = [sys.executable, "-m", "ispeed.stream", "--camera", "0", "--scene", str(folder / "raw/a.png")]
    command += ["--snap", str(snapped), "--frames", "1", "--fps", "200", "--pixel-format", plays]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    frames, pair = load_raw(str(snapped)), read_pairs(folder)[0]
    np.testing.assert_array_equal(frames.samples[0], pair.samples)
    assert frames.raw_format == pair.raw_format


def test_the_way_back_of_a_circle_serves_as_well(invert: Invert, network: Path):
    alone = invert("--no-noise", into="alone")
    circle = saved(network.parent / "cycle.pt", "cycle")
    both, inverse = (load_checkpoint(path).network for path in (circle, network))
    assert isinstance(both, BothISPs)
    assert isinstance(inverse, InverseISP)
    inverse.load_state_dict(both.back.state_dict())
    options = {"form": "inverse", "width": 4, "ranges": "high_speed"}
    save_checkpoint(network, Checkpoint(inverse, "paramisp", options, run="none", data="chance", licence="CC0"))
    same, other = invert("--no-noise", into="same"), invert("--no-noise", "--network", str(circle), into="circle")
    raw = [(folder / "raw/a.png").read_bytes() for folder in (alone, same, other)]
    assert raw[1] == raw[2]
    assert raw[0] != raw[1]


# ---- wrong input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "profile", "says"),
    [
        (["/nowhere.jpg"], {}, "there is no photograph /nowhere.jpg"),
        (["{camera}"], {}, "camera.yaml is no photograph: give JPEG or PNG files"),
        (["{photos}/a.png"], {}, "/photos/a.png and "),
        (["--network", "/no.pt"], {}, "cannot read the checkpoint /no.pt"),
        (["--network", "{forward}"], {}, "is of paramisp in the form raw, which makes no frames of pictures"),
        (["--camera", "/no.yaml"], {}, "the camera profile /no.yaml: cannot read the config"),
        ([], {"gain": 3}, "unknown setting 'gain': isp-invert --settings lists"),
        ([], {"cfa": "RGB"}, "cfa: input should be 'RGGB'"),
        ([], {"colour_matrix": [[1, 1, 1]] * 3}, "colour_matrix cannot be inverted"),
        (
            [],
            {"colour_matrix": [[1, 0, 0], [0, math.nan, 0], [0, 0, 1]]},
            "colour_matrix.1.1: input should be a finite",
        ),
        ([], {"iso": [math.nan, 800]}, "iso.0: "),
        ([], {"base_iso": 1e-300}, "base_iso: input should be greater than or equal to 1 (got 1e-300)"),
        ([], {"exposure_us": [0, 100]}, "exposure_us.0: input should be greater than 0"),
        ([], {"white_balance": [[1, 9], [1, 2]]}, "white_balance.0.1: input should be less than or equal to 8 (got 9)"),
        (["--exposure-us", "0"], {}, "exposure_us: input should be greater than or equal to 0.001 (got 0.0)"),
        (["--iso", "nan"], {}, "iso: input should be a finite number"),
        (["--f-number", "1e9"], {}, "f_number: input should be less than or equal to 128"),
        (["--focal-length-mm", "-5"], {}, "focal_length_mm: "),
        (["--crop", "17"], {}, "crop: input should be a multiple of 2"),
        (["--crop", "4096"], {}, "a.png is 36x28, made smaller as asked, and leaves no room for a crop of 4096"),
        (["--downscale", "2"], {}, "a.png is 18x14, made smaller as asked: a frame has 16x16 pixels"),
        (["--count", "0"], {}, "count: "),
        (["--seed", "-1"], {}, "seed: "),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    profile: dict[str, Any],
    says: str,
    tmp_path: Path,
    network: Path,
    photos: Path,
    camera: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
):
    out, path = tmp_path / "frames", camera(**profile)
    forward = saved(tmp_path / "raw.pt", "raw") if "{forward}" in arguments else Path()
    words = [word.format(photos=photos, camera=path, forward=forward) for word in arguments]
    named = ["-o", str(out), "--network", str(network), "--camera", str(path)]
    assert main([*named, str(photos), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("isp-invert: error: ")
    assert says in captured.err
    assert sorted(each.name for each in tmp_path.iterdir() if each != forward) == [
        "camera.yaml",
        "inverse.pt",
        "photos",
    ]


def test_a_damaged_photograph_leaves_nothing(
    tmp_path: Path, network: Path, photos: Path, camera: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    damaged = photos / "more/b c.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    words = [str(photos), "-o", str(tmp_path / "frames"), "--network", str(network), "--camera", str(camera())]
    assert main(words) == 2
    assert "b c.png cannot be read" in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["camera.yaml", "inverse.pt", "photos"]


def test_a_network_that_gives_no_numbers(network: Path):
    inverter = inverter_of(network)
    torch.nn.init.constant_(inverter.network.local.tail.bias, math.nan)
    with pytest.raises(UserError, match="values that are no numbers"):
        inverter.frame(np.zeros((16, 16, 3), np.uint8), 1)


def test_a_folder_is_replaced_only_if_asked(invert: Invert, capsys: pytest.CaptureFixture[str]):
    folder = invert()
    with pytest.raises(AssertionError):
        invert()
    assert "holds results already; name a new folder, or replace them with --force" in capsys.readouterr().err
    (folder / "note").write_text("old")
    invert("--force", "--count", "1")
    assert not (folder / "note").exists()
    assert not (folder / "raw/more_b_c.png").exists()


def test_no_network_is_named(photos: Path, camera: Callable[..., Path], tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.chdir(tmp_path)
    assert main([str(photos), "--camera", str(camera()), "-o", "frames"]) == 2
    assert f"there is no network {NETWORK}: name one by --network" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["photos"], ["photos", "--camera", "a.yaml"], ["--camera", "a", "-o", "b"]])
def test_what_must_be_named(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "isp-invert: error: name photographs" in capsys.readouterr().err


def test_the_settings_of_profiles_are_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["--settings"]) == 0
    assert "look.saturation: of colours, at the lowest and at the highest ISO" in capsys.readouterr().out


def test_ctrl_c_leaves_nothing(tmp_path: Path, network: Path, photos: Path, camera: Callable[..., Path]):
    command = [sys.executable, "-c", "from ispeed.train.entry import invert; raise SystemExit(invert())", str(photos)]
    command += [
        "--per-photo",
        "5000",
        "--camera",
        str(camera()),
        "--network",
        str(network),
        "-o",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.name.startswith(".out.") and any(path.rglob("*.png")) for path in tmp_path.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["camera.yaml", "inverse.pt", "photos"]


def test_what_moved_is_blurred_in_the_light(network: Path):
    """Along one direction: colours keep their mean, and lose detail; the photograph beside them is not touched."""
    picture = np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    frames = []
    for rate in (0.0, 1.0):
        settings = make_invert_settings({"noise": False, "motion_rate": rate})
        inverter = make_inverter(load_checkpoint(network), network, CameraProfile(**PROFILE), settings)
        frames.append([inverter.frame(picture, 1, k).samples.astype(float) for k in range(6)])
    assert all(blurred.std() <= sharp.std() for sharp, blurred in zip(*frames, strict=True))
    assert sum(blurred.std() < 0.9 * sharp.std() for sharp, blurred in zip(*frames, strict=True)) >= 3
    for sharp, blurred in zip(*frames, strict=True):
        assert blurred[16:48, 16:48].mean() == pytest.approx(sharp[16:48, 16:48].mean(), rel=0.05)


def test_a_stage_of_a_recipe_does_the_same(
    invert: Invert, photos: Path, network: Path, camera: Callable[..., Path], tmp_path: Path, capsys: Any
):
    own = {"photographs": str(photos), "network": str(network), "camera": str(camera()), "seed": 4}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"run": {"folder": str(tmp_path / "runs")}, "stages": {"raw": {"invert": own}}}))
    assert train([str(recipe)]) == 0
    made, expected = tmp_path / "runs/recipe/raw", invert("--seed", "4")
    names = sorted(path.relative_to(expected) for path in expected.rglob("*.png"))
    assert names
    assert all((made / name).read_bytes() == (expected / name).read_bytes() for name in names)
    assert train([str(recipe), "--resume"]) == 0
    capsys.readouterr()
    assert train([str(recipe), "--resume", "--set", "stages.raw.invert.seed=5"]) == 2
    assert "was made with other settings (seed was 4, is 5)" in capsys.readouterr().err
    other = network.with_name("other.pt")
    other.write_bytes(network.read_bytes())
    assert train([str(recipe), "--resume", "--set", f"stages.raw.invert.network={other}"]) == 2
    assert "was made with other settings (network was " in capsys.readouterr().err
    camera(bits=12)
    assert train([str(recipe), "--resume"]) == 2
    assert "was made with other settings (camera.bits was 16, is 12)" in capsys.readouterr().err
