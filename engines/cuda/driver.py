"""What the NVIDIA driver says, asked directly through ctypes.

TensorRT ends the whole process where there is no driver, without an exception, so nobody creates one of its objects
before `gpu` has answered. The rest is what PyCUDA lacks (stream capture) or does wrong: its `register_host_memory`
fails for arrays over memory that is not their own, since 2024.1.2 (https://github.com/inducer/pycuda/issues/459).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import UserError

NO_DEVICE = 100
OUT_OF_MEMORY = 2
_MAJOR, _MINOR = 75, 76  # attributes of a device: the two parts of its compute capability


class NoGpu(UserError):
    """This machine has no NVIDIA driver, or the driver sees no GPU."""


class CudaError(Exception):
    """A call to the driver failed. `code` is the CUresult."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call} failed: {name} ({code})")
        self.code = code


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: As its maker calls it.
        compute_capability: Such as "8.6".
        memory: Bytes on the device.
        driver: Highest CUDA version that the driver supports, such as "13.0".
    """

    name: str
    compute_capability: str
    memory: int
    driver: str


class Driver:
    """The driver library; `call` checks what its functions return."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            CudaError: It returned anything but CUDA_SUCCESS, or this driver has no such function.
        """
        try:
            code = getattr(self._library, function)(*arguments)
        except AttributeError:
            raise CudaError(function, -1, "the driver is too old to have it") from None
        if code:
            raise CudaError(function, code, self._name_of(code))

    def _name_of(self, code: int) -> str:
        text = ctypes.c_char_p()
        if self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text)) or not text.value:
            return "unknown CUDA error"
        return text.value.decode()


@cache
def driver() -> Driver:
    """The driver, initialised.

    Raises:
        NoGpu: There is no driver, or no GPU.
        UserError: The driver does not work.
    """
    try:
        found = Driver(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        raise NoGpu(
            "there is no NVIDIA driver (libcuda.so.1); install it, or use an engine for the processor"
        ) from error
    try:
        found.call("cuInit", ctypes.c_uint(0))
    except CudaError as error:
        if error.code == NO_DEVICE:
            raise NoGpu("the NVIDIA driver finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES") from error
        raise UserError(f"the NVIDIA driver is installed and does not work ({error}); see nvidia-smi") from error
    return found


def gpus() -> tuple[Gpu, ...]:
    """Every GPU that this process may use, at least one; the first is the one that engines run on.

    Raises:
        NoGpu: There is no driver, or no GPU.
        UserError: The driver does not work.
    """
    cuda = driver()
    try:
        count, version = ctypes.c_int(), ctypes.c_int()
        cuda.call("cuDeviceGetCount", ctypes.byref(count))
        cuda.call("cuDriverGetVersion", ctypes.byref(version))
        found = tuple(_describe(cuda, number, version.value) for number in range(count.value))
    except CudaError as error:
        raise UserError(f"the NVIDIA driver is installed and does not work ({error}); see nvidia-smi") from error
    if not found:
        raise NoGpu("the NVIDIA driver finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES")
    return found


def gpu() -> Gpu:
    """The GPU that engines run on. Raises as `gpus` does."""
    return gpus()[0]


def gpu_or_none() -> Gpu | None:
    """The GPU that engines run on, None without one that works."""
    try:
        return gpu()
    except UserError:
        return None


def unusable(error: Exception) -> str:
    """What to tell where a GPU is there and no work can begin on it, which `error` says in its first line."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    return f"the GPU cannot be used ({reason}); end other programs on the GPU, see nvidia-smi"


def _describe(cuda: Driver, number: int, version: int) -> Gpu:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    cuda.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(number))
    cuda.call("cuDeviceGetName", name, ctypes.c_int(len(name)), device)
    cuda.call("cuDeviceGetAttribute", ctypes.byref(major), ctypes.c_int(_MAJOR), device)
    cuda.call("cuDeviceGetAttribute", ctypes.byref(minor), ctypes.c_int(_MINOR), device)
    cuda.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory=memory.value,
        driver=f"{version // 1000}.{version % 1000 // 10}",
    )
