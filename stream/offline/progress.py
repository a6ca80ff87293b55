"""What the user sees of a run: a bar on a terminal, a line now and then elsewhere, JSON, or nothing."""

from __future__ import annotations

import json
import os
import time
from typing import Any, TextIO

_LINE_S = 10.0  # between lines where there is no terminal
_JSON_S = 0.5


class Progress:
    """Shows how far a run is. A context manager."""

    def __init__(self, out: TextIO, style: str, total: int, there: int) -> None:
        """out: where it shows. style: bar, lines, json or quiet. total: frames. there: those that were done before."""
        self._out, self._style, self._total, self._there = out, style, total, there
        self._since_s: float | None = None  # since when a worker has been ready
        self._next_s = 0.0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self._style == "bar":
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
            self._bar = Progress(TextColumn("developing"), *columns, console=Console(file=self._out))
            self._task = self._bar.add_task("", total=self._total, completed=self._there, rate="")
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leaves the terminal to others. Harmless when called twice."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def began(self) -> None:
        """The first worker is ready: rates count from here. Without effect when repeated."""
        if self._since_s is None:
            self._since_s = time.monotonic()
            self._next_s = self._since_s + (_JSON_S if self._style == "json" else _LINE_S)

    @property
    def seconds(self) -> float:
        """Since the first worker was ready."""
        return 0.0 if self._since_s is None else time.monotonic() - self._since_s

    def show(self, done: int) -> None:
        """So many frames are done in this run."""
        now = time.monotonic()
        rate = done / max(self.seconds, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._there + done, rate=f"{rate:.1f} frames/s")
        elif now >= self._next_s:
            self._next_s = now + (_JSON_S if self._style == "json" else _LINE_S)
            number = self._there + done
            if self._style == "json":
                self.say("progress", "", done=number, total=self._total, rate=round(rate, 2))
            else:
                self.say("progress", f"{number} of {self._total} frames, {rate:.1f} frames/s")

    def say(self, event: str, text: str, **facts: Any) -> None:
        """A line: the text, or with --json an object."""
        if self._style == "quiet":
            return
        line = (
            json.dumps({"event": event, **({"text": text} if text else {}), **facts}) if self._style == "json" else text
        )
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
            return
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except BrokenPipeError:  # nobody reads any more, as behind `| head`; the run goes on
            self._style = "quiet"
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), self._out.fileno())
