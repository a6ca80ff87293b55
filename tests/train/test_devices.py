"""The same result every time, and the wish to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from ispeed.engines import UserError
from ispeed.train.devices import SteadyPad, StopRequest, make_fabric, steady, steady_pads
from ispeed.train.ema import WeightMean
from ispeed.train.models import make_lwisp


@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (2, 0, 1, 3)])
def test_the_pad_of_slices_is_torchs_own(padding: tuple[int, int, int, int]):
    torch.manual_seed(1)
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    one, other = torch.nn.ReflectionPad2d(padding)(x), SteadyPad(padding)(x)
    assert torch.equal(one, other)
    slope = torch.rand_like(one)
    (first,), (second,) = (torch.autograd.grad(y, x, slope) for y in (one, other))
    torch.testing.assert_close(first, second)


def test_a_network_with_other_pads_is_the_same_network():
    torch.manual_seed(1)
    network, planes = make_lwisp("lwisp-xs"), torch.rand(1, 4, 16, 16)
    with torch.inference_mode():
        before, names = network(planes), list(network.state_dict())
        steady_pads(network)
        assert not any(isinstance(module, torch.nn.ReflectionPad2d) for module in network.modules())
        assert torch.equal(network(planes), before)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize(("flags", "dtype"), [("avx2 avx512_bf16", torch.bfloat16), ("avx2 fma", torch.float32)])
def test_auto_is_what_the_processor_calculates_in_itself(monkeypatch: pytest.MonkeyPatch, flags: str, dtype):
    """The processor's flags stand in for a processor: a machine is either the one or the other."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"flags: {flags}")
    fabric, scaler = make_fabric("cpu", "auto")
    with fabric.autocast():
        assert torch.nn.functional.linear(torch.ones(1, 4), torch.ones(2, 4)).dtype == dtype
    assert scaler is None


def test_settings_of_torch_come_back():
    many = torch.get_num_threads()
    with steady(True, 1):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == many


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_once(number: signal.Signals):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        assert signal.getsignal(number) == before, "a second one works as ever"
    assert signal.getsignal(number) == before


def test_without_a_gpu_cuda_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no GPU"):
        make_fabric("cuda", "fp32")


def test_the_mean_of_weights():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 0.0)
    mean = WeightMean(module, 0.5)
    expected = 0.0
    for step in range(40):
        torch.nn.init.constant_(module.weight, float(step))
        mean.update(module, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert mean.module.weight.item() == pytest.approx(expected)
    assert not mean.module.weight.requires_grad
    assert module.weight.requires_grad
