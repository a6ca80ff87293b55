"""The torch engine on a GPU: the picture of the reference, from graphs as without, and no copy on the host."""

from __future__ import annotations

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, open_engine

from .conftest import GAINS, develop

pytestmark = [
    pytest.mark.gpu,
    # some versions of torch tell so of the one setting for TF32 that all of them have
    pytest.mark.filterwarnings("ignore:Please use the new API settings"),
]

torch = pytest.importorskip("torch")

FORMATS = [
    RawFormat(640, 480, "BayerRG12p", 64, 4000),
    RawFormat(637, 481, "BayerGB8"),
    RawFormat(640, 479, "BayerBG10p", 20),
    RawFormat(639, 480, "BayerGR16", 1000, 60000),
]


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32 shall be that, and not TF32."""
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def engine(torch_core):
    from ispeed.engines.torch_gpu import TorchEngine

    opened = []

    def make(precision: str, **options) -> TorchEngine:
        opened.append(TorchEngine(None, core=torch_core, precision=precision, white_balance=GAINS, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def prepare_and_develop(engine, fmt: RawFormat, pair, batches) -> None:
    engine.prepare(fmt, engine.info.max_batch, *pair)
    develop(engine, batches)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b.astype(float)) ** 2), 1e-12))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.pixel_format)
def test_the_picture_is_that_of_the_reference(engine, rings, reference, fmt):
    raw, srgb = pair = rings(fmt, 10)
    exact = engine("fp32")
    prepare_and_develop(exact, fmt, pair, [[0, 1, 2, 3], [4, 5], [6], [7, 8, 9]])
    assert exact.host_copies == 0
    assert exact.captured
    for slot in (0, 3, 5, 6, 9):
        got = srgb.slot(slot).reshape(fmt.height, fmt.width, 3)
        assert np.abs(got.astype(int) - reference(raw.slot(slot), fmt)).max() <= 1


def test_half_precision_costs_little(engine, rings, reference):
    fmt = FORMATS[0]
    raw, srgb = pair = rings(fmt, 4)
    prepare_and_develop(engine("fp16"), fmt, pair, [[0, 1, 2, 3]])
    for slot in range(4):
        got = srgb.slot(slot).reshape(fmt.height, fmt.width, 3)
        assert psnr(got, reference(raw.slot(slot), fmt)) > 50


def test_a_graph_gives_what_the_plain_run_gives(engine, rings, monkeypatch):
    from ispeed.engines.cuda.torch_device import TorchStream

    fmt, batches = FORMATS[0], [[0, 1, 2], [3], [4, 5]]
    raw, replayed = rings(fmt, 6)
    _, plain = rings(fmt, 6)
    prepare_and_develop(engine("fp16"), fmt, (raw, replayed), batches)
    monkeypatch.setattr(TorchStream, "capture", lambda self, work: None)
    eager = engine("fp16")
    prepare_and_develop(eager, fmt, (raw, plain), batches)
    assert not eager.captured
    for slot in range(6):
        assert np.array_equal(replayed.slot(slot), plain.slot(slot))


def test_a_program_from_a_file_runs(program, rings, reference):
    engine = open_engine(str(program), white_balance=GAINS)
    fmt = FORMATS[0]
    raw, srgb = pair = rings(fmt, 2)
    try:
        prepare_and_develop(engine, fmt, pair, [[0, 1]])
    finally:
        engine.close()
    got = srgb.slot(1).reshape(fmt.height, fmt.width, 3)
    assert psnr(got, reference(raw.slot(1), fmt)) > 50


def test_an_engine_can_be_prepared_again_for_other_frames(engine, rings, reference):
    one = engine("fp32")
    for fmt in FORMATS[:2]:
        raw, srgb = pair = rings(fmt, 1)
        prepare_and_develop(one, fmt, pair, [[0]])
        got = srgb.slot(0).reshape(fmt.height, fmt.width, 3)
        assert np.abs(got.astype(int) - reference(raw.slot(0), fmt)).max() <= 1


def test_a_full_gpu_is_one_sentence(engine, rings):
    torch.cuda.init()
    fmt = RawFormat(4096, 4096, "BayerRG8")
    pair = rings(fmt, 2)
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(free - (192 << 20), 0), dtype=torch.uint8, device="cuda")
    try:
        with pytest.raises(UserError, match=r"GPU") as caught:
            engine("fp16").prepare(fmt, 4, *pair)
        assert "\n" not in str(caught.value)
        assert "are free" in str(caught.value)
    finally:
        del taken
        torch.cuda.empty_cache()
