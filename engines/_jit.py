"""How the kernels are compiled: options, vector width, and the folder that keeps the machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numba.core.config
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.compiler import Compiler
from numba.extending import intrinsic

from .cache import cache_folder

# `full_width` and its like are names for Numba's compiler; as Python functions they take other arguments, hence `Any`.
# fastmath: samples are finite by construction, and fused multiply-adds are worth having.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy", "boundscheck": False}


class _NoAlias(Compiler):
    """Compiles a function whose array arguments never overlap.

    Without that promise LLVM must compare every address read with every address written before a loop, gives up above
    eight comparisons and leaves the loop scalar. Numba has the flag, but no decorator option for it.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state.flags.noalias = True


# LLVM keeps to 256-bit vectors on Intel, because the first AVX-512 processors slowed their clock for wider ones.
# Those that have VBMI2 (Ice Lake and later) do not, and the kernels run about 1.5 times as fast at full width.
_FULL_WIDTH = bool(llvm.get_host_cpu_features().get("avx512vbmi2", False))


def _full_width(typing_context: Any) -> Any:
    """Let the loops of the calling function use 512-bit vectors where the processor runs them at full clock."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _FULL_WIDTH:
            # llvmlite checks names against a list without this attribute; a plain set.add goes past the check
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), codegen


full_width: Any = intrinsic(_full_width)


def _float_bits(typing_context: Any, value: Any) -> Any:
    """The bits of a float32 as int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.int32))

    return types.int32(types.float32), codegen


float_bits: Any = intrinsic(_float_bits)


def _prefetch_for_write(typing_context: Any, array: Any, index: Any) -> Any:
    """Fetch the cache line of `array[index]` (uint8 [N]) with the right to write to it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        at = builder.gep(data, [args[1]])
        pointer, word = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        builder.call(function, [builder.bitcast(at, pointer), word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.none(array, types.uintp), codegen


prefetch_for_write: Any = intrinsic(_prefetch_for_write)


def inner(function: Callable[..., Any]) -> Any:
    """A loop over arrays that do not overlap, called by a kernel."""
    return numba.njit(pipeline_class=_NoAlias, **_OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A few lines that vanish into the loop that calls them."""
    return numba.njit(inline="always", **_OPTIONS)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """An entry point: compiled on the first call of a machine, read from the cache folder from then on.

    Numba compares only the file of the entry point with the cache, so everything an entry point calls belongs there.
    """
    dispatcher = numba.njit(**_OPTIONS)(function)
    config: Any = numba.core.config
    chosen_by_user = config.CACHE_DIR
    try:
        if not chosen_by_user:
            cache_folder("numba").mkdir(parents=True, exist_ok=True)
        # Numba asks for the folder here and never again, so the setting of other users of Numba stays as it was
        config.CACHE_DIR = chosen_by_user or str(cache_folder("numba"))
        dispatcher.enable_caching()
    except (RuntimeError, OSError):
        pass  # no folder to write to: every start compiles
    finally:
        config.CACHE_DIR = chosen_by_user
    return dispatcher
