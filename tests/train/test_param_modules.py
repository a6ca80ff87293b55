"""ParamISP behind what calls it: run-time columns, the noise of training, rounding, checkpoints, and exported cores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ispeed.engines import UserError
from ispeed.engines._openvino import openvino_core
from ispeed.engines.core import INPUTS, read_core
from ispeed.engines.inputs import CAMERA, CCM
from ispeed.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ispeed.train.devices import make_fabric
from ispeed.train.export import export_checkpoint
from ispeed.train.models import ForwardModule, InverseModule, Module, make_module, make_network
from ispeed.train.models.param_modules import CycleModule

Array = npt.NDArray[np.float32]
Make = Callable[..., Any]
MATRIX = torch.tensor([[1.62, -0.48, -0.14], [-0.22, 1.46, -0.24], [0.02, -0.52, 1.50]])
TAKEN = {"exposure_us": 2000.0, "gain_db": 6.0, "iso": 800.0, "f_number": 4.0, "focal_length_mm": 50.0}
TOLD = ("wb_r", "wb_g", "wb_b", "exposure_us", "iso", "f_number", "focal_length_mm", *CCM)
TOLERANCE = 1e-4
RESTING = {"dropped": 0.0, "all_dropped": 0.0}


def batch(frames: int = 2, height: int = 8, width: int = 12, seed: int = 1) -> dict[str, Tensor]:
    """What modules take, of so many frames of planes of that size."""
    chance = torch.Generator().manual_seed(seed)
    more = 1 + torch.rand(frames, len(CAMERA), generator=chance)
    return {
        "planes": torch.rand(frames, 4, height, width, generator=chance) / 2,
        "target": torch.rand(frames, 3, 2 * height, 2 * width, generator=chance),
        "gains": torch.tensor([1.8, 1.0, 1.5]) * (0.9 + 0.2 * torch.rand(frames, 1, generator=chance)),
        "matrix": MATRIX + 0.1 * torch.rand(frames, 3, 3, generator=chance),
        "camera": torch.tensor([TAKEN[name] for name in CAMERA]) * more,
    }


def called(module: Any, values: dict[str, Tensor]) -> Any:
    return module(*(values[name] for name in module.takes))


def columns(inputs: tuple[str, ...], values: dict[str, Tensor]) -> Tensor:
    """`params`: what training is given as gains, camera and matrix."""
    known: dict[str, Tensor] = dict(zip(("wb_r", "wb_g", "wb_b"), values["gains"].unbind(1), strict=True))
    known |= dict(zip(CAMERA, values["camera"].unbind(1), strict=True))
    known |= dict(zip(CCM, values["matrix"].flatten(1).unbind(1), strict=True))
    return torch.stack([known[name] for name in inputs], 1)


def noted(network: nn.Module) -> list[Tensor]:
    """What a network sees first, whenever it is called from now on."""
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    return seen


# ---- run-time columns --------------------------------------------------------------------------------------


def test_columns_are_those_of_cores_in_their_order(lively: Make):
    module = make_module(lively())
    assert isinstance(module, ForwardModule)
    assert module.inputs == TOLD
    assert tuple(name for name in INPUTS if name in TOLD) == TOLD
    without = make_module(lively(optics=False))
    assert isinstance(without, ForwardModule)
    assert without.inputs == ("wb_r", "wb_g", "wb_b", *CCM)


@pytest.mark.parametrize("options", [{}, {"optics": False}, {"ranges": "high_speed"}])
@torch.inference_mode()
def test_columns_say_the_same_as_a_sample(lively: Make, options: dict[str, Any]):
    module, values = make_module(lively(**options)).eval(), batch()
    values["camera"][1, CAMERA.index("f_number")] = 0.0
    by_sample = called(module, values)
    assert isinstance(module, ForwardModule)
    by_columns = module(values["planes"], columns(module.inputs, values))
    assert torch.equal(by_sample, by_columns)
    assert 0 <= by_sample.min() < by_sample.max() <= 1


@torch.inference_mode()
def test_the_gain_of_a_sample_is_of_no_use(lively: Make):
    """ISO says it."""
    module, values = make_module(lively()).eval(), batch()
    before = called(module, values)
    values["camera"][:, CAMERA.index("gain_db")] = 0.0
    assert torch.equal(called(module, values), before)


# ---- training and use --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "steps"), [("raw", 4095), ("inverse", 255)])
@torch.inference_mode()
def test_noise_hides_steps_in_training_only(lively: Make, form: str, steps: int):
    module, values = make_module(lively(form, **RESTING)), batch(1, 40, 40)
    seen = noted(module.network)
    exact = values[module.takes[0]]
    called(module.eval(), values)
    assert torch.equal(seen[-1], exact)
    called(module.train(), values)
    noise = seen[-1] - exact
    assert noise.std().item() * steps == pytest.approx(0.4, rel=0.05)
    assert abs(noise.mean().item()) * steps < 0.02


@pytest.mark.parametrize("form", ["raw", "inverse"])
@torch.inference_mode()
def test_limits_are_those_of_use_alone(lively: Make, form: str):
    module, values = make_module(lively(form, **RESTING)), batch()
    values[module.takes[0]] = 4 * values[module.takes[0]] - 1
    for training in (True, False):
        given = called(module.train(training), values)
        assert given.shape == ((2, 3, 16, 24) if form == "raw" else (2, 4, 8, 12))
        assert bool(given.min() < 0 or given.max() > 1) is training


def test_what_they_do_not_give():
    for form, name in (("raw", "ParamISP makes pictures"), ("inverse", "ParamISP's inverse takes pictures")):
        with pytest.raises(ValueError, match=f"{name}: output must be srgb, not linear"):
            make_module(make_network("paramisp", form=form, width=2), "linear")
    with pytest.raises(ValueError, match="output must be srgb"):
        make_module(make_network("paramisp", form="cycle", width=2), "linear")


class TestCycle:
    @pytest.fixture
    @staticmethod
    def module(lively: Make) -> CycleModule:
        module = make_module(lively("cycle", **RESTING))
        assert isinstance(module, CycleModule)
        return module

    @torch.inference_mode()
    def test_frames_are_rounded_to_14_bits_in_use_only(self, module: CycleModule):
        values = batch()
        seen = noted(module.forth)
        planes, _ = called(module.eval(), values)
        codes = 16_383 * seen[-1]
        torch.testing.assert_close(codes, codes.round(), atol=2e-3, rtol=0)
        assert 0 < (seen[-1] - planes).abs().max() <= 0.5001 / 16_383
        planes, _ = called(module.train(), values)
        assert torch.equal(seen[-1], planes)

    @torch.inference_mode()
    def test_in_use_it_is_one_after_the_other(self, module: CycleModule):
        values = batch()
        module.eval()
        planes, picture = called(module, values)
        network: Any = module.network
        back, forth = InverseModule(network.back).eval(), ForwardModule(network.forth).eval()
        torch.testing.assert_close(planes, called(back, values), rtol=0, atol=1e-6)
        between = {**values, "planes": (planes * 16_383).round() / 16_383}
        torch.testing.assert_close(picture, called(forth, between), rtol=0, atol=1e-6)

    def test_the_picture_teaches_both(self, module: CycleModule):
        values = batch()
        _, picture = called(module, values)
        (picture - values["target"]).abs().mean().backward()
        for part in (module.back, module.forth):
            assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0

    def test_each_weight_is_there_once(self, module: CycleModule):
        assert len(list(module.parameters())) == len(list(module.network.parameters()))
        assert set(map(id, module.parameters())) == set(map(id, module.network.parameters()))


@torch.inference_mode()
def test_half_precision_rounds_neither_frames_nor_colours(lively: Make):
    fabric, _ = make_fabric("cpu", "bf16")
    module, values = make_module(lively(**RESTING)).eval(), batch(1)
    exact = called(module, values)
    wrapped, seen = fabric.setup(module), noted(module.network)
    given = wrapped(*(values[name] for name in module.takes))
    assert torch.equal(seen[-1], values["planes"])
    assert seen[-1].dtype == torch.float32
    assert not torch.equal(given, exact)
    assert (given - exact).abs().max() < 0.05


# ---- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["raw", "inverse", "cycle"])
@torch.inference_mode()
def test_checkpoints_keep_all(lively: Make, tmp_path: Path, form: str):
    options = {"width": 4, "ranges": "high_speed", "dropped": 0.3} | ({"form": form} if form != "raw" else {})
    network = lively(form, ranges="high_speed", dropped=0.3)
    save_checkpoint(tmp_path / "a.pt", Checkpoint(network, "paramisp", options, run="none"))
    kept = load_checkpoint(tmp_path / "a.pt")
    assert (kept.model, kept.options, kept.output) == ("paramisp", options, "srgb")
    values = batch()
    one, other = (called(make_module(each).eval(), values) for each in (network, kept.network))
    pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def both(lively: Make) -> nn.Module:
    return lively("cycle")


@pytest.fixture(scope="module")
def core(both: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported, of the forward network of `both`."""
    path = tmp_path_factory.mktemp("core") / "forward.onnx"
    export_checkpoint(Checkpoint(both.forth, "paramisp", {"width": 4}, run="none", licence="CC0"), path)
    return path


@pytest.fixture(scope="module")
def runners(core: Path) -> list[Callable[[Array, Array], Any]]:
    """ONNX Runtime and OpenVINO with that core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(core, options, providers=["CPUExecutionProvider"])
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino_core().compile_model(core, "CPU", exact)
    return [
        lambda raw, params: session.run(None, {"raw": raw, "params": params})[0],
        lambda raw, params: compiled([raw, params])[0].copy(),
    ]


class TestExport:
    def test_it_says_what_it_is(self, core: Path):
        found = read_core(core)
        assert (found.info.model, found.info.width, found.info.multiple) == ("paramisp", 4, 4)
        assert (found.info.output, found.info.precision, found.info.inputs) == ("srgb", "fp32", TOLD)
        assert [(o.domain, o.version) for o in found.model.opset_import] == [("", 17)]

    @pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 6), (2, 22, 36)])
    def test_runtimes_calculate_what_torch_does(
        self, both: Any, runners: list[Any], frames: int, height: int, width: int
    ):
        module, values = ForwardModule(both.forth).eval(), batch(frames, height, width)
        params = columns(TOLD, values)
        changes = {"as taken": params, "unknown": params.clone()}
        changes["unknown"][:, 3:7] = 0.0
        for place in range(3, 7):
            changes[TOLD[place]] = params.clone()
            changes[TOLD[place]][:, place] *= 2.5
        pictures = []
        for name, each in changes.items():
            with torch.inference_mode():
                expected = module(values["planes"], each).numpy()
            for run in runners:
                given = run(values["planes"].numpy(), each.numpy())
                np.testing.assert_allclose(given, expected, atol=TOLERANCE, rtol=0, err_msg=name)
            pictures.append(expected)
        apart = [np.abs(picture - pictures[0]).max() for picture in pictures[1:]]
        assert min(apart) > 5 * TOLERANCE, dict(zip(list(changes)[1:], apart, strict=True))

    def test_of_a_cycle_it_is_the_forward_network(self, both: nn.Module, core: Path, tmp_path: Path):
        checkpoint = Checkpoint(both, "paramisp", {"width": 4, "form": "cycle"})
        info = export_checkpoint(checkpoint, tmp_path / "cycle.onnx")
        assert info.sha256 == read_core(core).info.sha256
        assert info.inputs == TOLD

    @pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
    def test_of_the_inverse_there_is_none(self, lively: Make, tmp_path: Path, suffix: str):
        checkpoint = Checkpoint(lively("inverse"), "paramisp", {"width": 4, "form": "inverse"})
        with pytest.raises(UserError, match="form inverse") as caught:
            export_checkpoint(checkpoint, tmp_path / f"x{suffix}")
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_a_core_is_not_trained_on_from(self, core: Path):
        with pytest.raises(UserError, match="is a core of paramisp, which is trained on from its checkpoint"):
            load_checkpoint(core)


def test_modules_say_what_they_take_and_give():
    found: dict[str, tuple[Any, Any]] = {}
    for form in ("raw", "inverse", "cycle"):
        module: Module = make_module(make_network("paramisp", form=form, width=2))
        found[form] = module.takes, module.wants
    assert found["raw"] == (("planes", "gains", "matrix", "camera"), "target")
    assert found["inverse"] == (("target", "gains", "matrix", "camera"), "planes")
    assert found["cycle"] == (("target", "gains", "matrix", "camera"), "target")
