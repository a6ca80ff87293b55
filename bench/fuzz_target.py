"""What is fuzzed: a Target, and the Harness that feeds it and judges what came of it."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from ..engines.errors import Sentence

LONGEST = 1 << 16  # bytes of an input
LIMIT_S = 5.0  # of the processor's time, for one input
_SENTENCE = 4000  # characters
_HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Target:
    """One reader of what others wrote.

    Attributes:
        name: As on the command line.
        what: Which code, in a phrase.
        allowed: Exceptions that are documented for input that is wrong.
        prepare: From a scratch folder, and what is to be undone at the end, to (the reader, right inputs).
        words: Parts of the format, for mutations.
        share: Of the inputs, against 1 for a usual target; slow readers get fewer.
        needs: Packages of an extra; without them the target is left out, and that is said.
    """

    name: str
    what: str
    allowed: tuple[type[BaseException], ...]
    prepare: Callable[[Path, ExitStack], tuple[Callable[[bytes], object], list[bytes]]]
    words: tuple[bytes, ...] = ()
    share: float = 1.0
    needs: tuple[str, ...] = ()


class TooSlow(BaseException):
    """One input took longer than the limit."""


@dataclass
class Harness:
    """Feeds inputs to one target.

    Attributes:
        target: Which.
        run: Its reader.
        keep: Folder for the inputs of findings.
        current: A shared file that always holds the input that is under way, for whoever sees this process die.
        outcomes: How many inputs ended how: "value", or the name of an exception.
        findings: What must not happen, one for each place in the code.
    """

    target: Target
    run: Callable[[bytes], object]
    keep: Path
    current: mmap.mmap | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    inputs: int = 0

    def __post_init__(self) -> None:
        signal.signal(signal.SIGPROF, _too_slow)

    def feed(self, data: bytes) -> None:
        """Runs one input, and books what came of it."""
        self.inputs += 1
        if self.current is not None:
            note(self.current, self.target.name, self.inputs, data)
        try:
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
            self.run(data)
            outcome = "value"
        except self.target.allowed as error:
            outcome = type(error).__name__
            said = str(error)
            if isinstance(error, Sentence) and ("\n" in said or len(said) > _SENTENCE):
                self._find(data, error, f"says {len(said)} characters in {said.count(chr(10)) + 1} lines")
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # whatever it is, it is a finding
            outcome = "finding"
            self._find(data, error, f"took more than {LIMIT_S:g} s" if isinstance(error, TooSlow) else "")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.outcomes[outcome] += 1

    def _find(self, data: bytes, error: BaseException, why: str) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_HERE)] or list(frames)
        where = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "nowhere"
        key = f"{type(error).__name__} in {where} {why[:4]}"
        if key in self.findings:
            self.findings[key]["times"] += 1
            return
        file = save(self.keep, self.target.name, data)
        said = " ".join(str(error).split())[:300]
        self.findings[key] = {
            "what": why or f"{type(error).__name__}: {said}",
            "where": where,
            "input": file,
            "times": 1,
        }


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def save(folder: Path, target: str, data: bytes) -> str:
    """Keeps an input for `isp-bench fuzz --replay`. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}-{sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return str(path)


# ---- the note of what is under way ---------------------------------------------------------------------------

NOTE_BYTES = LONGEST + 64


def note(current: mmap.mmap, name: str, number: int, data: bytes) -> None:
    """Writes the input that is about to be fed."""
    size = min(len(data), NOTE_BYTES - 64)
    current[:64] = f"{name} {number} {size}".encode().ljust(64)
    current[64 : 64 + size] = data[:size]


def read_note(current: mmap.mmap) -> tuple[str, int, bytes]:
    """(target, number of the input, input) that was fed last; an empty target before the first."""
    parts = bytes(current[:64]).rstrip(b" \0").decode().split(" ")
    if len(parts) != 3:
        return "", 0, b""
    return parts[0], int(parts[1]), bytes(current[64 : 64 + int(parts[2])])


# ---- leaks ---------------------------------------------------------------------------------------------------


def leaks(run: Callable[[bytes], None], inputs: Sequence[bytes], rounds: int = 4) -> dict[str, int]:
    """Feeds the same inputs again and again, after which nothing may be held that was not held after the first rounds.

    Returns the growth of anonymous memory in bytes and of open descriptors over the last rounds, of which there are
    `rounds`, after two that are not counted.
    """
    seen: list[tuple[int, int]] = []
    for _ in range(rounds + 2):
        for data in inputs:
            run(data)
        gc.collect()
        _give_back_freed()
        seen.append((_resident(), len(os.listdir("/proc/self/fd"))))
    (memory, descriptors), (later_memory, later_descriptors) = seen[1], seen[-1]
    return {
        "inputs": len(inputs) * rounds,
        "memory_bytes": later_memory - memory,
        "descriptors": later_descriptors - descriptors,
    }


def _give_back_freed() -> None:
    """Gives freed memory of the C library's heap back to the system.

    What is kept is otherwise served from what was freed before, and the process does not grow by it. Where the C
    library cannot (it is glibc's), a leak shows only after that is used up.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident() -> int:
    """Bytes of resident memory that no file or other process shares."""
    _, resident, shared, *_ = (int(number) for number in Path("/proc/self/statm").read_text().split())
    return (resident - shared) * mmap.PAGESIZE
