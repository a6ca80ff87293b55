"""Photographs become frames on a GPU as they do on the CPU, but for the noise itself."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from ispeed.train.data.noise import SENSORS  # noqa: E402
from ispeed.train.data.unprocess import draw, expose, make_unprocessing, unprocess  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")


def chance(device: str = "cpu", seed: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


@pytest.mark.parametrize("cfa", ["RGGB", "BGGR"])
def test_scenes_are_the_cpus(cfa: str):
    photos, options = torch.rand(4, 3, 64, 64, generator=chance()), make_unprocessing("none", exposure=(0.3, 1.5))
    here = unprocess(photos, options, chance(), cfa=cfa)
    there = unprocess(photos.cuda(), options, chance(), cfa=cfa, noise_generator=chance("cuda"))
    for one, other in zip(here.samples().values(), there.samples().values(), strict=True):
        assert other.is_cuda
        torch.testing.assert_close(other.cpu(), one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("noise", ["rhid", "camera"])
def test_noise_has_the_cpus_variance_and_repeats(noise: str):
    photos = torch.full((2, 3, 256, 256), 0.5)
    options = make_unprocessing(noise, motion_rate=0.0, defocus_rate=0.0)
    drawn = draw(options, 2, chance())
    here = expose(photos, drawn, options, chance()).mosaic
    there, again = (expose(photos.cuda(), drawn, options, chance("cuda")).mosaic for _ in range(2))
    assert torch.equal(there, again)
    assert there.min() >= -SENSORS[noise].pedestal
    for y in (0, 1):
        for x in (0, 1):
            one, other = here[:, y::2, x::2], there[:, y::2, x::2].cpu()
            torch.testing.assert_close(other.var((1, 2)), one.var((1, 2)), rtol=0.1, atol=1e-7)
            torch.testing.assert_close(other.mean((1, 2)), one.mean((1, 2)), rtol=0.02, atol=1e-4)
