"""The torch engine on the processor: the arithmetic and the lanes of a GPU, without what only a GPU has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ispeed.engines import PIXEL_FORMATS, RawFormat, UserError, open_engine
from ispeed.engines.core import CoreInfo
from ispeed.engines.graph_reference import graft_reference

torch = pytest.importorskip("torch")

from ispeed.engines.cuda.torch_device import TorchDevice  # noqa: E402
from ispeed.engines.torch_gpu import TorchEngine, load_program  # noqa: E402 (without torch it cannot be imported)

torch.set_num_threads(1)  # the frames are tiny, and threads that wait for each other take longer

GAINS = (1.7, 1.0, 0.8)
INFO = CoreInfo("tiny", 3, "srgb", 4, ("wb_r", "wb_g", "wb_b"), sha256="ab" * 32)
BAYER = sorted(name for name in PIXEL_FORMATS if name.startswith("Bayer"))


class TinyCore(torch.nn.Module):
    """Gains, the limit at 1, one convolution that mirrors at the borders, pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(4, 12, 3)
        with torch.no_grad():
            random = np.random.default_rng(5)
            self.convolution.weight[:] = torch.from_numpy(random.normal(0.04, 0.06, (12, 4, 3, 3)))
            self.convolution.bias[:] = torch.from_numpy(random.uniform(0, 0.2, 12))

    def forward(self, raw: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        red, green, blue = params[:, :, None, None].unbind(1)
        planes = torch.minimum(raw * torch.stack([red, green, green, blue], 1), torch.ones(()))
        padded = torch.nn.functional.pad(planes, (1, 1, 1, 1), mode="reflect")
        return torch.nn.functional.pixel_shuffle(self.convolution(padded), 2)


def make_frames(fmt: RawFormat, number: int) -> list[np.ndarray]:
    random = np.random.default_rng(fmt.width * fmt.height + number)
    return [random.integers(0, 1 << fmt.depth, (fmt.height, fmt.width)) for _ in range(number)]


def run_core(planes: np.ndarray, params: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return TinyCore().double()(torch.from_numpy(planes)[None], torch.from_numpy(params)[None])[0].numpy()


def reference(raw: np.ndarray, fmt: RawFormat, info: CoreInfo = INFO, **options) -> np.ndarray:
    return graft_reference(raw, fmt, run_core, info, GAINS, **options)


def develop(engine: TorchEngine, fmt: RawFormat, pair, batches: list[list[int]]) -> None:
    raw, srgb = pair
    try:
        engine.prepare(fmt, engine.info.max_batch, raw, srgb)
        for batch in batches:
            ticket = engine.develop(batch, batch, np.full((len(batch), 3), np.nan, np.float32))
            ticket.wait()
            np.testing.assert_allclose(ticket.white_balance, np.tile(GAINS, (len(batch), 1)), rtol=1e-6)
        assert engine.host_copies == 0
        assert srgb.untouched()
    finally:
        engine.close()


def picture(srgb, slot: int, fmt: RawFormat) -> np.ndarray:
    return srgb.slot(slot).reshape(fmt.height, fmt.width, 3)


def off_by(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("pixel_format", BAYER)
@pytest.mark.parametrize("size", [(8, 8), (13, 7), (4, 9)])
def test_every_format_phase_and_size_equals_the_reference(rings, pixel_format: str, size: tuple[int, int]):
    width = size[0] if not pixel_format.endswith("p") else -(-size[0] // 4) * 4
    depth = int(pixel_format[7:].rstrip("p"))
    fmt = RawFormat(width, size[1], pixel_format, 1 << depth >> 5, (1 << depth) * 0.9)
    raw, srgb = rings(fmt, make_frames(fmt, 3))
    engine = TorchEngine(None, core=(TinyCore(), INFO), device="cpu", white_balance=GAINS)
    develop(engine, fmt, (raw, srgb), [[1], [2, 0]])
    for slot in range(3):
        expected = reference(raw.slot(slot), fmt)
        assert off_by(picture(srgb, slot, fmt), expected) <= 1
        assert len(np.unique(expected)) > 8


def test_a_linear_core_gets_matrix_and_curve(rings):
    fmt, matrix = RawFormat(16, 10, "BayerGB12p"), [[1.6, -0.4, -0.2], [-0.3, 1.5, -0.2], [0.0, -0.6, 1.6]]
    raw, srgb = rings(fmt, make_frames(fmt, 1))
    info = replace(INFO, output="linear")
    engine = TorchEngine(None, core=(TinyCore(), info), device="cpu", white_balance=GAINS, colour_matrix=matrix)
    develop(engine, fmt, (raw, srgb), [[0]])
    assert off_by(picture(srgb, 0, fmt), reference(raw.slot(0), fmt, info, colour_matrix=matrix)) <= 1


def test_defects_are_mended(rings):
    fmt, defects = RawFormat(12, 10, "BayerGR8"), ((0, 0), (5, 4), (7, 4), (11, 9))
    raw, srgb = rings(fmt, make_frames(fmt, 1))
    engine = TorchEngine(None, core=(TinyCore(), INFO), device="cpu", white_balance=GAINS, defects=defects)
    develop(engine, fmt, (raw, srgb), [[0]])
    mended = reference(raw.slot(0), fmt, defects=defects)
    assert off_by(picture(srgb, 0, fmt), mended) <= 1
    assert off_by(mended, reference(raw.slot(0), fmt)) > 8


def test_half_precision_is_close(rings):
    fmt = RawFormat(32, 24, "BayerRG12p")
    raw, srgb = rings(fmt, make_frames(fmt, 2))
    engine = TorchEngine(None, core=(TinyCore(), INFO), device="cpu", precision="fp16", white_balance=GAINS)
    assert engine.info.precision == "fp16"
    develop(engine, fmt, (raw, srgb), [[0, 1]])
    for slot in range(2):
        expected, got = reference(raw.slot(slot), fmt), picture(srgb, slot, fmt)
        assert off_by(got, expected) <= 2
        assert np.mean(got != expected) < 0.2


def export(path: Path, info: CoreInfo = INFO, text: str | None = None) -> Path:
    batch = torch.export.Dim("B", min=1)
    rows, columns = (info.multiple // 2 * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    program = torch.export.export(
        TinyCore().eval(),
        (torch.rand(2, 4, 12, 8), torch.ones(2, 3)),
        dynamic_shapes=({0: batch, 2: rows, 3: columns}, {0: batch}),
    )
    torch.export.save(program, path, extra_files={"ispeed.json": json.dumps(info.to_json()) if text is None else text})
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("size", [(21, 14), (4, 30), (2, 2)])
def test_a_program_from_a_file_gives_the_same(tmp_path: Path, rings, precision, size):
    fmt = RawFormat(*size, "BayerBG8")
    raw, srgb = rings(fmt, make_frames(fmt, 2))
    engine = TorchEngine(export(tmp_path / "tiny.pt2"), device="cpu", precision=precision, white_balance=GAINS)
    assert (engine.info.name, engine.info.backend, engine.info.weights_sha256) == ("tiny", "torch", "ab" * 32)
    develop(engine, fmt, (raw, srgb), [[1, 0], [0]])
    for slot in range(2):
        assert off_by(picture(srgb, slot, fmt), reference(raw.slot(slot), fmt)) <= (1 if precision == "fp32" else 2)


def test_a_program_says_what_it_cannot_develop(tmp_path: Path, rings):
    engine = TorchEngine(export(tmp_path / "tiny.pt2"), device="cpu")
    for fmt, batch, says in [
        (RawFormat(16, 16, "Mono8"), 1, "use classic for Mono8"),
        (RawFormat(16, 16, "BayerRG8"), 5, "use 1 to 4"),
    ]:
        raw, srgb = rings(fmt, make_frames(fmt, 1))
        with pytest.raises(UserError, match=says):
            engine.prepare(fmt, batch, raw, srgb)


def test_files_that_are_no_programs(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    good = export(tmp_path / "good.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.pt2").write_text("hello")
    export(tmp_path / "bare.pt2", text="")
    export(tmp_path / "other.pt2", text='{"model": "x"}')
    for name in ("cut", "text", "bare", "other"):
        caplog.clear()
        with pytest.raises(UserError, match=rf"{name}.pt2 is no torch program of isp-export") as caught:
            load_program(tmp_path / f"{name}.pt2")
        assert "\n" not in str(caught.value)
        assert not caplog.records, "torch says nothing besides"
    with pytest.raises(UserError, match="cannot read the program"):
        load_program(tmp_path / "none.pt2")


@pytest.mark.parametrize("where", ["device", "program"])
def test_a_gpu_without_room_for_a_context_is_one_sentence(tmp_path: Path, monkeypatch, where: str):
    def full(*arguments) -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported at some other call")

    path = export(tmp_path / "tiny.pt2")
    monkeypatch.setattr("ispeed.engines.torch_gpu.move_to_device_pass", full)
    monkeypatch.setattr("ispeed.engines.cuda.torch_device.gpu", lambda: None)
    monkeypatch.setattr("ispeed.engines.cuda.torch_device.TorchDevice.enter", full)
    with pytest.raises(UserError, match=r"the GPU cannot be used \(CUDA error: out of memory\); end other") as caught:
        load_program(path, "cuda") if where == "program" else TorchDevice("cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"colour_matrix": np.eye(3)}, "has learned its colours"),
        ({"tone": "linear"}, "has learned its colours"),
        ({"tone": "filmic"}, "tone 'filmic' is unknown"),
        ({"white_balance": (0.0, 1.0, 1.0)}, "white balance"),
    ],
)
def test_options_out_of_range(options, says):
    with pytest.raises(UserError, match=says):
        TorchEngine(None, core=(TinyCore(), INFO), device="cpu", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_a_program_is_refused_in_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=r"tiny.pt2 is a torch program for an NVIDIA GPU, and ") as caught:
        open_engine(str(export(tmp_path / "tiny.pt2")))
    assert "\n" not in str(caught.value)
