"""The one `openvino.Core` of a process."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's door, opened once and never closed.

    The first core that uses the processor gives the thread another stack for signals (AMX registers make their frames
    large), and takes it away when it is deleted. Of two cores that do not end in the reverse order of their beginning,
    one leaves the thread with a stack that is unmapped, and the next signal ends the process.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    return openvino.Core()
