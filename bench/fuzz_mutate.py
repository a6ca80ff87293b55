"""Mutations: inputs that are almost right, made from right ones.

An edit is (kind, place, value), three whole numbers from anywhere, so that a seeded generator and Hypothesis can both
make them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from .fuzz_target import LONGEST

Edit = tuple[int, int, int]

PLACES, VALUES = 1 << 16, 1 << 32
MOST_EDITS = 6
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_LARGE = (*_NUMBERS, 1 << 32, 1 << 40, 1 << 48, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_TEXTS = (
    *(b"0", b"-1", b"1", b"2", b"65535", b"65536", b"4294967296", b"18446744073709551616", b"9" * 40, b"9" * 5000),
    *(b"0.5", b"-0.0", b"1e5", b"1e308", b"1e999", b".nan", b".inf", b"-.inf", b"NaN", b"Infinity", b"-Infinity"),
    *(b"null", b"~", b"true", b"false", b"{}", b"[]", b'""', b"[[[[", b"{a: b}", b"\0", b"\xff", b"\xed\xa0\x80"),
    *(b"\n", b"\r\n", b"\t", b" ", b"'", b'"', b"%s%n", b"../../", b"2026-02-30", b"!!binary x", b"&a [*a]", b"*a"),
)
_DIGITS = frozenset(b"0123456789")


def apply(data: bytes, edits: Sequence[Edit], words: Sequence[bytes], seeds: Sequence[bytes]) -> bytes:
    """`data` after `edits`. `words` belong to the format; parts of other `seeds` are spliced in."""
    made = bytearray(data)
    for kind, place, value in edits:
        at = place * (len(made) + 1) // PLACES
        _KINDS[kind % len(_KINDS)](made, at, value, words, seeds)
        del made[LONGEST:]
    return bytes(made)


def mutated(generator: random.Random, words: Sequence[bytes], seeds: Sequence[bytes]) -> bytes:
    """A seed with one to `MOST_EDITS` edits, most often few."""
    count = 1 + min(generator.getrandbits(8).bit_count() // 2, MOST_EDITS - 1)
    bits = generator.getrandbits
    edits = [(bits(16), bits(16), bits(32)) for _ in range(count)]
    return apply(seeds[generator.randrange(len(seeds))], edits, words, seeds)


# ---- the kinds: each changes `made` at `at`, by the bits of `value` -------------------------------------------


def _flip(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    if at < len(made):
        made[at] ^= 1 << (value & 7)


def _byte(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    made[at : at + 1] = bytes([value & 0xFF])


def _insert(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    made[at:at] = value.to_bytes(4, "little")[: 1 + (value & 3)]


def _delete(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    del made[at : at + 1 + value % 16]


def _cut(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    del made[at:]


def _repeat(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    made[at:at] = bytes(made[at : at + 1 + value % 24]) * (1 << (value >> 8) % 11)


def _number(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    code = "BHIQ"[value & 3]
    size = struct.calcsize(code)
    at -= at % size if value & 8 else 0
    number = _LARGE[(value >> 8) % len(_LARGE)] & ((1 << 8 * size) - 1)
    made[at : at + size] = struct.pack((">" if value & 4 else "<") + code, number)


def _text(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    """Puts something else where a number in digits stands, or a few letters."""
    end = at
    while end < len(made) and made[end] in _DIGITS:
        end += 1
    if end == at:
        end += value & 7
    made[at:end] = _TEXTS[(value >> 4) % len(_TEXTS)]


def _word(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    word = words[value % len(words)] if words else b""
    made[at : at + (len(word) if value & 1 << 31 else 0)] = word


def _splice(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    other = seeds[value % len(seeds)]
    start = (value >> 8) % (len(other) + 1)
    made[at : at + ((value >> 4) & 63)] = other[start : start + ((value >> 20) & 255)]


def _nest(made: bytearray, at: int, value: int, words: Sequence[bytes], seeds: Sequence[bytes]) -> None:
    made[at:at] = (b"[", b"{", b'{"a":', b"- ", b"(", b"!!python/tuple [")[value % 6] * (1 << (value >> 8) % 15)


_KINDS = (_flip, _flip, _byte, _insert, _delete, _delete, _cut, _repeat, _number, _number, _number)
_KINDS = (*_KINDS, _text, _text, _text, _word, _word, _word, _splice, _splice, _nest)
