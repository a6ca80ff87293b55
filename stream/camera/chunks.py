"""Exposure, gain and lines of each frame from its chunk data, read straight from the slot.

GenApi knows how to find a chunk: the feature's register names a port, the port a chunk id, and the register the offset,
length and byte order within the chunk. All of that is static, so it is asked once; per frame remain one call to the
producer for where the chunks lie and one unpacking per value. A camera whose chunk features are computed (a converter,
a formula, an address that depends on other features) is left to its nodes.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...engines.errors import UserError
from .nodes import Features

#: Chunks worth having, where the camera offers them.
WANTED = ("ExposureTime", "Gain", "FrameID")
LINES = "LineStatusAll"
MAX_CHUNKS = 64


@dataclass(frozen=True)
class ChunkField:
    """Where a value lies: `offset` bytes into the chunk with `chunk_id`, as `code` of the struct module."""

    chunk_id: int
    offset: int
    code: str


def enable_chunks(features: Features, *, lines: bool = False) -> None:
    """Switches on the chunks of WANTED that the camera has, and with `lines` that of its lines.

    A camera without any is left alone. Raises UserError where it does not tell its lines.
    """
    has_chunks = features.set_if_there("ChunkModeActive", True)
    offered = features.entries("ChunkSelector") if has_chunks else ()
    for name in (*WANTED, LINES) if lines else WANTED:
        enabled = name in offered and features.set_if_there("ChunkSelector", name)
        if not (enabled and features.set_if_there("ChunkEnable", True)) and name == LINES:
            raise UserError(
                f"camera {features.serial} does not tell its lines with each frame (it has no ChunkLineStatusAll): "
                "choose another --record-on"
            )


def find_fields(features: Features) -> tuple[ChunkField | None, ChunkField | None, ChunkField | None]:
    """(exposure time, gain, lines): where they lie in the chunk data, None where the camera does not tell."""
    if not features.read("ChunkModeActive", False):
        return None, None, None
    exposure, gain = _field(features, "ChunkExposureTime"), _field(features, "ChunkGain")
    return exposure, gain, _field(features, "ChunkLineStatusAll")


def _field(features: Features, name: str) -> ChunkField | None:
    node = features.node(name)
    if node is None:
        return None
    try:
        register = node
        kind = _property(node, "NodeType")
        if kind in ("Float", "Integer"):  # a plain pointer to its register
            register = features.node(_property(node, "pValue"))
            kind = _property(register, "NodeType")
        if kind not in ("FloatReg", "IntReg"):
            return None
        port = features.node(_property(register, "pPort"))
        if any(_property(register, name) for name in ("pIndex", "pAddress")):
            return None
        if _property(port, "SwapEndianess") == "Yes":
            return None
        (address,) = _properties(register, "Address")  # several would be added up
        length = int(_property(register, "Length"), 0)
        order = "<" if _property(register, "Endianess") == "LittleEndian" else ">"
        signed = _property(register, "Sign") == "Signed"
        code = {("FloatReg", 4): "f", ("FloatReg", 8): "d", ("IntReg", 4): "I", ("IntReg", 8): "Q"}[kind, length]
        code = code.lower() if signed and kind == "IntReg" else code
        chunk_id = int(_property(port, "ChunkID"), 16)
        return ChunkField(chunk_id, int(address, 0), order + code)
    except (KeyError, ValueError, AttributeError, TypeError):
        return None


def _property(node: Any, name: str) -> str:
    """The first of `_properties`; empty where there is none."""
    return next(iter(_properties(node, name)), "")


def _properties(node: Any, name: str) -> list[str]:
    """What the node's description says under this name, as often as it says so."""
    from genicam import genapi

    try:
        return [value for value in node.node.get_property(name)[0].split("\t") if value]
    except genapi.GenericException:
        return []


class ChunkReader:
    """Reads exposure, gain and lines of a frame in a slot. One thread uses it.

    Args:
        locate: DSGetBufferChunkData of the producer.
        stream_handle: The data stream's handle.
        memory: The mapped ring.
        fields: From `find_fields`.
    """

    def __init__(
        self,
        locate: Callable[..., int],
        stream_handle: int,
        memory: memoryview,
        fields: tuple[ChunkField | None, ChunkField | None, ChunkField | None],
    ) -> None:
        self._locate, self._stream, self._memory = locate, stream_handle, memory
        self._fields = fields
        self._entries = (ctypes.c_uint64 * (3 * MAX_CHUNKS))()  # SINGLE_CHUNK_DATA: id, offset, length
        self._count = ctypes.c_size_t()
        self._entries_at = ctypes.addressof(self._entries)
        self._count_at = ctypes.addressof(self._count)
        self._layout = b""
        self._unpack: list[tuple[Callable[..., tuple[Any, ...]], int] | None] = [None, None, None]

    def read(self, buffer: int, slot_offset: int) -> tuple[float, float, int]:
        """(exposure in us, gain in dB, lines) of the frame in GenTL buffer `buffer`, NaN or -1 where there is none.

        `slot_offset` is where its slot begins in the ring.
        """
        self._count.value = MAX_CHUNKS
        if self._locate(self._stream, buffer, self._entries_at, self._count_at):
            return math.nan, math.nan, -1
        layout = ctypes.string_at(self._entries_at, 24 * self._count.value)
        if layout != self._layout:
            self._learn(layout)
        first, second, third = self._unpack
        memory = self._memory
        return (
            first[0](memory, slot_offset + first[1])[0] if first else math.nan,
            second[0](memory, slot_offset + second[1])[0] if second else math.nan,
            third[0](memory, slot_offset + third[1])[0] if third else -1,
        )

    def _learn(self, layout: bytes) -> None:
        places = {chunk: (offset, length) for chunk, offset, length in struct.iter_unpack("<QqQ", layout)}
        self._layout = layout
        self._unpack = []
        for field in self._fields:
            place = places.get(field.chunk_id) if field else None
            if field is None or place is None or field.offset + struct.calcsize(field.code) > place[1]:
                self._unpack.append(None)
            else:
                self._unpack.append((struct.Struct(field.code).unpack_from, place[0] + field.offset))
