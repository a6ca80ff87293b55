"""Slots without a pipeline, frames to develop, and a small model core."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from ispeed.engines import RawFormat, pack
from ispeed.engines.core import Core, CoreInfo, read_core, write_core
from ispeed.engines.inputs import CCM


class Slots:
    """A ring's slots in ordinary memory, with a guard byte after each."""

    def __init__(self, slots: int, size: int) -> None:
        self.slots = slots
        self.memory = np.full((slots, -(-size // 4096) * 4096 + 4096), 0xA5, np.uint8)
        self._size = size

    def slot(self, index: int) -> npt.NDArray[np.uint8]:
        return self.memory[index, : self._size]

    def untouched(self) -> bool:
        """Whether nothing was written behind the slots."""
        return bool(np.all(self.memory[:, self._size :] == 0xA5))


@pytest.fixture
def rings() -> Callable[[RawFormat, list[npt.NDArray[np.integer]]], tuple[Slots, Slots]]:
    """Makes a raw ring that holds the given samples [H, W], and an sRGB ring of as many slots."""

    def make(fmt: RawFormat, frames: list[npt.NDArray[np.integer]]) -> tuple[Slots, Slots]:
        raw = Slots(len(frames), fmt.payload_size)
        for index, samples in enumerate(frames):
            raw.slot(index)[:] = pack(samples, fmt)
        return raw, Slots(len(frames), fmt.width * fmt.height * 3)

    return make


@dataclass(frozen=True, eq=False)
class SmallCore:
    """A model core that NumPy can compute as well.

    Attributes:
        path: Its file.
        core: The file, read.
        run: The same in NumPy: planes [4, h, w] and params [K] to rgb [3, 2h, 2w], float64.
    """

    path: Path
    core: Core
    run: Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def small_core(folder: Path, *, output: Literal["srgb", "linear"] = "srgb", multiple: int = 4) -> SmallCore:
    """Gains and their limit, a 3x3 convolution, plus a mix of the picture's means, and a pixel shuffle.

    It has behaviour in space and over the whole picture, and gives values a little outside [0, 1] as well.
    """
    rng = np.random.default_rng(11)
    weight = rng.normal(0, 0.15, (12, 4, 3, 3)).astype(np.float32)
    # so that each of the twelve is above all one colour: R, half of both G, or B
    for channel, planes in enumerate([(0,)] * 4 + [(1, 2)] * 4 + [(3,)] * 4):
        weight[channel, planes, 1, 1] += 0.9 / len(planes)
    mix = rng.normal(0, 0.1, (12, 4, 1, 1)).astype(np.float32)
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        small (float[B, 4, h, w] raw, float[B, 3] params) => (float[B, 3, H, W] rgb)
        {
            order = Constant <value = int64[4] {0, 1, 1, 2}> ()
            shape = Constant <value = int64[4] {0, 4, 1, 1}> ()
            one = Constant <value = float {1.0}> ()
            four = Gather <axis = 1> (params, order)
            gains = Reshape (four, shape)
            bright = Mul (raw, gains)
            light = Min (bright, one)
            local = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (light, weight)
            means = ReduceMean <axes = [2, 3]> (light)
            mixed = Conv <kernel_shape = [1, 1]> (means, mix)
            all = Add (local, mixed)
            rgb = DepthToSpace <blocksize = 2, mode = "CRD"> (all)
        }
    """
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in (("weight", weight), ("mix", mix))
    )
    path = folder / f"small-{output}-{multiple}.onnx"
    write_core(path, model, CoreInfo("small", 12, output, multiple, ("wb_r", "wb_g", "wb_b")))

    def run(planes: npt.NDArray[np.float64], params: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        light = np.minimum(planes * params[[0, 1, 1, 2]][:, None, None], 1.0)
        _, height, width = light.shape
        padded = np.pad(light, ((0, 0), (1, 1), (1, 1)))
        total = np.zeros((12, height, width))
        for dy in range(3):
            for dx in range(3):
                total += np.einsum("oc,chw->ohw", weight[:, :, dy, dx], padded[:, dy : dy + height, dx : dx + width])
        total += np.einsum("oc,c->o", mix[:, :, 0, 0], light.mean((1, 2)))[:, None, None]
        shuffled = total.reshape(3, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
        return shuffled.reshape(3, 2 * height, 2 * width)

    return SmallCore(path, read_core(path), run)


@pytest.fixture
def make_core(tmp_path: Path) -> Callable[..., SmallCore]:
    """Makes a `small_core` in the folder of the test; takes its keywords."""
    return functools.partial(small_core, tmp_path)


def told_the_matrix(folder: Path, output: Literal["srgb", "linear"] = "srgb") -> SmallCore:
    """Each 2x2 block shows its own R, mean G and B, seen through the colour matrix that the core is told."""
    mix = np.array([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]], np.float32)  # R, Gr, Gb, B to R, G, B
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        coloured (float[B, 4, h, w] raw, float[B, 10] params) => (float[B, 3, H, W] rgb)
        {
            columns = Constant <value = int64[9] {1, 2, 3, 4, 5, 6, 7, 8, 9}> ()
            shape = Constant <value = int64[5] {-1, 3, 3, 1, 1}> ()
            one = Constant <value = int64[1] {1}> ()
            two = Constant <value = int64[1] {2}> ()
            nine = Gather <axis = 1> (params, columns)
            matrix = Reshape (nine, shape)
            blocks = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (raw, mix)
            pixels = DepthToSpace <blocksize = 2, mode = "CRD"> (blocks)
            columned = Unsqueeze (pixels, one)
            products = Mul (columned, matrix)
            rgb = ReduceSum <keepdims = 0> (products, two)
        }
    """
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = node.output[0]
    weights = np.zeros((12, 4, 3, 3), np.float32)  # of a size that isp-build quantises
    weights[:, :, 1, 1] = np.repeat(mix, 4, axis=0)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "mix"))
    path = folder / f"coloured-{output}.onnx"
    write_core(path, model, CoreInfo("coloured", 12, output, 2, ("iso", *CCM)))

    def run(planes: npt.NDArray[np.float64], params: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        colours = np.stack([planes[0], (planes[1] + planes[2]) / 2, planes[3]])
        return np.tensordot(params[1:].reshape(3, 3), colours, 1).repeat(2, 1).repeat(2, 2)

    return SmallCore(path, read_core(path), run)


@pytest.fixture
def make_matrix_core(tmp_path: Path) -> Callable[..., SmallCore]:
    """Makes a core `told_the_matrix` in the folder of the test; takes its keywords."""
    return functools.partial(told_the_matrix, tmp_path)
