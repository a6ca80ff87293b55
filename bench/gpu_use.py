"""How busy the GPU is, as nvidia-smi tells it: the part of the time in which any kernel ran."""

from __future__ import annotations

import statistics
import subprocess
from types import TracebackType

_PERIOD_MS = 100


class GpuUse:
    """Asks nvidia-smi from the beginning to the end of a `with` block.

    Attributes:
        percent: Median of the answers, once the block is left; None where it was not wanted or nvidia-smi is not there.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self._process: subprocess.Popen[str] | None = None
        self.percent: float | None = None

    def __enter__(self) -> GpuUse:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
        if self._wanted:
            try:
                self._process = subprocess.Popen(
                    [*command, "-lms", str(_PERIOD_MS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            except OSError:
                pass  # without it the figure is missing, and nothing else
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is None:
            return
        self._process.terminate()
        lines, _ = self._process.communicate()
        answers = [float(line) for line in lines.splitlines() if line.strip().isdigit()]
        # the first answers tell of the time before
        self.percent = statistics.median(answers[2:]) if len(answers) > 2 else None
