"""frames.csv: what is known of each frame, beside recordings in formats that have no place for it."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path
from typing import Any

from .layout import RAW_FRAME


class CsvTable:
    """A row for each frame, and one for each event. Raises OSError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._names = [name for name in RAW_FRAME.names or () if name != "offset"]
        self._file = path.open("x", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow([*self._names, "event", "text"])

    def add(self, row: Any) -> None:
        """A frame: RAW_FRAME or SRGB_FRAME."""
        self._writer.writerow([row[name].item() for name in self._names])

    def note(self, row: Any) -> None:
        """An event: EVENT [1]."""
        values = {"frame_id": int(row["frame_id"][0]), "grabbed_ns": int(row["time_ns"][0])}
        kind, text = (row[name][0].decode(errors="replace") for name in ("kind", "text"))
        self._writer.writerow([*(values.get(name, "") for name in self._names), kind, text])

    def flush(self) -> None:
        """Hands on to the system what is still here."""
        self._file.flush()

    def close(self) -> None:
        """Writes what is still here and closes the file."""
        self._file.close()

    def abandon(self) -> None:
        """Closes it. Never raises."""
        with suppress(OSError):
            self._file.close()
