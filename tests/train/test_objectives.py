"""Losses with and without a teacher, against sums made by hand, and what of a teacher is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn.functional import l1_loss

from ispeed.engines import UserError
from ispeed.train.checkpoint import load_checkpoint
from ispeed.train.cli import train as isp_train
from ispeed.train.config import DistillSettings, TrainConfig
from ispeed.train.losses import make_loss
from ispeed.train.models import CoreModule, Module, make_lwisp, make_module, shown
from ispeed.train.objectives import FEATURE_DISTANCES, Circle, Distillation, Objective, make_objective, see

SAME = ["c1", "c2", "c3"]

RECIPE = """
model: {name: lwisp-xs, output: linear}
data:
  train: [{source: scenes, count: 16, crop: 32, scenes: 2}]
  validation: [{source: scenes, count: 2, crop: 32, scenes: 2}]
  batch: 4
loss: {charbonnier: 1}
schedule: {steps: 6, warmup: 1}
device: cpu
threads: 1
validation: {every: 25}
run: {log_every: 2, checkpoint_every: 3}
"""


def module(name: str = "lwisp-xs", form: Any = "raw", seed: int = 1) -> Module:
    torch.manual_seed(seed)
    network = make_lwisp(name, form=form)
    return make_module(network, "linear")


@pytest.fixture
def batch() -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(3)
    matrices = torch.eye(3) + 0.2 * torch.rand(2, 3, 3, generator=chance)
    return {
        "planes": torch.rand(2, 4, 32, 32, generator=chance),
        "gains": 1 + torch.rand(2, 3, generator=chance),
        "target": torch.rand(2, 3, 64, 64, generator=chance),
        "matrix": matrices / matrices.sum(-1, keepdim=True),
    }


def distillation(core: Module, teacher: Module, **settings: Any) -> Distillation:
    return Distillation(make_loss({"l1": 1.0}), core, teacher, DistillSettings(teacher=Path("x"), **settings))


def features(core: Module, batch: dict[str, Tensor], layer: str) -> Tensor:
    kept: list[Tensor] = []
    handle = core.network.get_submodule(layer).register_forward_hook(lambda *args: kept.append(args[2]))
    core(*(batch[name] for name in core.takes))
    handle.remove()
    return kept[0]


def test_without_a_teacher_it_is_the_loss_of_what_is_shown(batch: dict[str, Tensor]):
    core = module()
    total, parts = Objective(make_loss({"l1": 2.0}), core)(core, batch)
    picture = shown(core(batch["planes"], batch["gains"]), batch["matrix"], "linear", leak=True)
    assert total.item() == pytest.approx(2 * l1_loss(picture, batch["target"]).item())
    assert list(parts) == ["l1"]


def test_heterogeneous_distillation_adds_features_and_picture_of_the_clean_one(batch: dict[str, Tensor]):
    core, teacher = module(seed=1), module(form="clean", seed=2)
    plain, _ = Objective(make_loss({"l1": 1.0}), core)(core, batch)
    total, parts = distillation(core, teacher, layers=SAME, features=0.3, pictures=0.7, distance="l1")(core, batch)
    with torch.no_grad():
        wanted = sum(l1_loss(features(core, batch, name), features(teacher, batch, name)) for name in SAME)
    pictures = l1_loss(see(core, core.takes, batch, "linear", leak=True), see(teacher, teacher.takes, batch, "linear"))
    assert parts["teacher_features"].item() == pytest.approx(float(wanted), rel=1e-5)
    assert parts["teacher_pictures"].item() == pytest.approx(pictures.item(), rel=1e-5)
    assert total.item() == pytest.approx(plain.item() + 0.3 * float(wanted) + 0.7 * pictures.item(), rel=1e-5)


def test_the_student_learns_and_the_teacher_does_not(batch: dict[str, Tensor]):
    core, teacher = module(seed=1), module(form="clean", seed=2)
    objective = distillation(core, teacher, layers=SAME, features=1.0, pictures=0.0)
    before = objective(core, batch)[1]["teacher_features"]
    optimiser = torch.optim.Adam(core.parameters(), 1e-3)
    weights = {name: values.clone() for name, values in teacher.state_dict().items()}
    for _ in range(20):
        total, parts = objective(core, batch)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert parts["teacher_features"] < 0.7 * before
    assert not any(values.requires_grad for values in teacher.parameters())
    assert all(torch.equal(values, weights[name]) for name, values in teacher.state_dict().items())


def test_a_wider_teacher_is_followed_by_maps(batch: dict[str, Tensor]):
    core, teacher = module("lwisp-xs"), module("lwisp")
    objective = distillation(core, teacher, layers={"c1": "c8", "c2": "c7"}, distance="attention")
    total, parts = objective(core, batch)
    expected = 0.0
    for own, taught in (("c1", "c8"), ("c2", "c7")):
        maps = [(x**2).mean(1).flatten(1) for x in (features(core, batch, own), features(teacher, batch, taught))]
        a, b = (m / m.norm(dim=1, keepdim=True) for m in maps)
        expected += ((a - b) ** 2).sum(1).mean().item()
    assert parts["teacher_features"].item() == pytest.approx(expected, rel=1e-4)
    total.backward()
    assert all(values.grad is not None for values in core.network.get_submodule("c2").parameters())


def test_maps_of_attention_know_no_scale_and_no_width():
    a = torch.rand(2, 8, 5, 5)
    assert FEATURE_DISTANCES["attention"](a, 3 * a).item() == pytest.approx(0, abs=1e-6)
    assert FEATURE_DISTANCES["attention"](a, a.repeat(1, 2, 1, 1)).item() == pytest.approx(0, abs=1e-6)
    assert FEATURE_DISTANCES["attention"](a, a.flip(2)).item() > 0.01


@pytest.mark.parametrize(
    ("layers", "distance", "sentence"),
    [
        (["c2", "c9"], "unit", r"distill\.layers: the network has no layer 'c9'; it has unshuffle, c0, c1"),
        ({"c2": "x"}, "unit", r"distill\.layers: the teacher has no layer 'x'"),
        ({"c1": "c8"}, "l1", r"c1 has features of \[16, 16, 16\] and c8 of the teacher \[32, 16, 16\]; name layers"),
        ({"c1": "c1"}, "attention", r"c1 has features of \[16, 16, 16\] and c1 of the teacher \[16, 32, 32\]"),
    ],
)
def test_layers_that_do_not_go_together(layers: Any, distance: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        distillation(module("lwisp-xs"), module("lwisp"), layers=layers, distance=distance)


def test_nothing_to_learn_is_refused():
    with pytest.raises(ValueError, match="nothing is learned from the teacher"):
        DistillSettings(teacher=Path("x"), layers={}, pictures=0)


class TestModules:
    def test_linear_light_is_shown_through_matrix_and_curve(self):
        light = torch.tensor([0.5, 0.2, 0.001])[None, :, None, None].expand(1, 3, 2, 2)
        matrix = torch.tensor([[1.5, -0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[None]
        picture = shown(light, matrix, "linear")[0, :, 0, 0]
        assert picture[0].item() == pytest.approx(1.055 * 0.65 ** (1 / 2.4) - 0.055, abs=1e-6)
        assert picture[2].item() == pytest.approx(12.92 * 0.001, abs=1e-6)
        assert torch.equal(shown(light, matrix, "srgb"), light)

    def test_too_bright_a_colour_is_led_back_in_training_only(self):
        light = torch.full((1, 3, 1, 1), 0.9, requires_grad=True)
        for leak, slope in ((True, 0.1 * 2), (False, 0.0)):
            picture = shown(light, 2 * torch.eye(3)[None], "linear", leak=leak)
            (gradient,) = torch.autograd.grad(picture.sum(), light)
            assert gradient.flatten().tolist() == pytest.approx([slope] * 3)

    def test_a_core_squares_what_its_network_gives(self, batch: dict[str, Tensor]):
        core = module()
        assert isinstance(core, CoreModule)
        light = core(batch["planes"], batch["gains"])
        other = CoreModule(core.network, "srgb")(batch["planes"], batch["gains"])
        assert torch.allclose(light, other**2)

    def test_a_clean_one_sees_the_camera_s_colours(self, batch: dict[str, Tensor]):
        seen: list[Tensor] = []
        teacher = module(form="clean")
        teacher.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        teacher(batch["target"], batch["matrix"])
        light = torch.einsum("bij,bjhw->bihw", torch.linalg.inv(batch["matrix"]), _linear(batch["target"]))
        assert torch.allclose(seen[0] ** 2, light.clamp(0, 1), atol=1e-5)

    def test_it_has_every_shape_of_its_student(self, batch: dict[str, Tensor]):
        for name in ("lwisp", "lwisp-s", "lwisp-xs"):
            core, teacher = module(name), module(name, form="clean")
            layers = [layer for layer, _ in core.network.named_children() if layer[0] in "cpu" and layer[1:].isdigit()]
            assert len(layers) > 5
            for layer in layers:
                assert features(core, batch, layer).shape == features(teacher, batch, layer).shape, (name, layer)


class TestCircle:
    @pytest.fixture
    def core(self, lively: Callable[..., Any]) -> Any:
        return make_module(lively("cycle", dropped=0.0, all_dropped=0.0))

    @pytest.fixture
    def small(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        camera = torch.tensor([[2000.0, 6.0, 800.0, 4.0, 50.0], [0.0, 0.0, 400.0, 0.0, 12.0]])
        cut = {"planes": batch["planes"][..., :6, :8], "target": batch["target"][..., :12, :16]}
        return {**batch, **cut, "camera": camera}

    @pytest.mark.parametrize("training", [True, False])
    def test_both_differences_by_hand(self, core: Any, small: dict[str, Tensor], training: bool):
        objective = Circle(make_loss({"l1": {"weight": 2.0, "border": 2}}), core.train(training), 0.7)
        torch.manual_seed(8)
        total, parts = objective(core, small)
        torch.manual_seed(8)  # the order in memory is that of what is drawn in training
        seen = [small[name] for name in core.takes]
        planes, picture = core(seen[0].contiguous(memory_format=torch.channels_last), *seen[1:])
        l1 = (picture - small["target"])[..., 2:-2, 2:-2].abs().mean().item()
        frames = (planes - small["planes"]).abs().mean().item()
        assert {name: value.item() for name, value in parts.items()} == pytest.approx({"l1": l1, "frames": frames})
        assert total.item() == pytest.approx(2 * l1 + 0.7 * frames, rel=1e-5)
        assert not any(value.requires_grad for value in parts.values())

    def test_frames_teach_the_way_back_alone(self, core: Any, small: dict[str, Tensor]):
        def slopes(weight: float) -> dict[str, list[Tensor]]:
            core.zero_grad()
            torch.manual_seed(8)
            Circle(make_loss({"l1": 1.0}), core.train(), weight)(core, small)[0].backward()
            return {name: [p.grad.clone() for p in getattr(core, name).parameters()] for name in ("back", "forth")}

        without, much = slopes(0.0), slopes(5.0)
        assert all(torch.equal(*pair) for pair in zip(without["forth"], much["forth"], strict=True))
        assert any(not torch.equal(*pair) for pair in zip(without["back"], much["back"], strict=True))

    def test_it_is_the_one_of_recipes_of_a_cycle(self, core: Any):
        values = yaml.safe_load(RECIPE) | {"model": {"name": "paramisp", "form": "cycle"}, "frames_weight": 0.25}
        circle = make_objective(TrainConfig.model_validate(values), core)
        assert isinstance(circle, Circle)
        values["model"]["form"] = "inverse"
        assert type(make_objective(TrainConfig.model_validate(values), core)) is Objective


def _linear(picture: Tensor) -> Tensor:
    return torch.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)


class TestRun:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Callable[..., int]:
        (tmp_path / "tiny.yaml").write_text(RECIPE)

        def run(name: str, *changes: str) -> int:
            words = [f"run.folder={tmp_path}", f"run.name={name}", *changes]
            return isp_train([str(tmp_path / "tiny.yaml"), *(word for each in words for word in ("--set", each))])

        return run

    def test_from_teacher_to_student(self, run: Callable[..., int], tmp_path: Path):
        assert run("teacher", "model.form=clean") == 0
        assert load_checkpoint(tmp_path / "teacher/last.pt").options == {"form": "clean"}
        distilled = (f"distill.teacher={tmp_path / 'teacher/last.pt'}", "distill.layers=[c1, c2]")
        assert run("student", *distilled) == 0
        assert run("alone") == 0
        lines = [json.loads(line) for line in (tmp_path / "student/metrics.jsonl").read_text().splitlines()]
        assert all({"teacher_features", "teacher_pictures"} <= line.keys() for line in lines if "loss" in line)
        student, alone = (torch.load(tmp_path / name / "last.pt")["weights"] for name in ("student", "alone"))
        assert student.keys() == alone.keys(), "nothing of the teacher goes into the checkpoint"
        assert any(not torch.equal(student[name], alone[name]) for name in student)

    def test_another_teacher_is_not_gone_on_with(
        self, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert run("teacher", "model.form=clean") == 0
        distilled = (f"distill.teacher={tmp_path / 'teacher/last.pt'}", "distill.layers=[c1, c2]")
        assert run("student", *distilled) == 0
        assert run("other", "model.form=clean", "seed=2") == 0
        (tmp_path / "other/last.pt").replace(tmp_path / "teacher/last.pt")
        recipe = [str(tmp_path / "tiny.yaml"), "--resume"]
        words = [f"run.folder={tmp_path}", "run.name=student", *distilled]
        assert isp_train([*recipe, *(word for each in words for word in ("--set", each))]) == 2
        assert "is not what the run began with" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ("distill.teacher=nowhere.pt", "there is no nowhere.pt; train the teacher first"),
            ("distill={teacher: x.pt, pictures: 0}", "nothing is learned from the teacher"),
            ("distill={teacher: x.pt, distance: far}", "distill.distance"),
            ("model.form=rgb", "a network of the form rgb takes the source pictures, not scenes"),
        ],
    )
    def test_wrong_ones(self, run: Callable[..., int], capsys: pytest.CaptureFixture[str], change: str, sentence: str):
        assert run("wrong", change) == 2
        assert sentence in capsys.readouterr().err

    def test_a_filter_of_pictures_teaches_no_core(
        self, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        from ispeed.train.checkpoint import Checkpoint, save_checkpoint

        save_checkpoint(tmp_path / "rgb.pt", Checkpoint(make_lwisp("lwisp-s", form="rgb"), "lwisp-s", {"form": "rgb"}))
        assert run("student", f"distill.teacher={tmp_path / 'rgb.pt'}") == 2
        assert "give one of the form clean or raw" in capsys.readouterr().err
