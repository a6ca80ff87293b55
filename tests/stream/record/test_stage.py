"""The record stage, served in this process."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded_rings import FORMAT, GEOMETRY, Clock, Rings

from ispeed.stream.channel import Channel
from ispeed.stream.config import make_config
from ispeed.stream.record import open_recording
from ispeed.stream.record.__main__ import RecordStage


class Served:
    """A stage that records rings of the test's."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.rings = Rings(self.clock)
        self._ours, theirs = Channel.pair()
        self._theirs = Channel(theirs)
        self._stage = RecordStage(self._theirs)
        self.settings = make_config({"record": folder, "record_on": ["key"]}).model_dump(mode="json")
        self.ask("open", config=self.settings)
        self._fds = fds = (os.dup(self.rings.raw.fd), os.dup(self.rings.srgb.fd))
        shared = {"stream_id": 7, "history": 30, "engine": {"name": "classic"}, "resumed": False}
        self.ask("attach", fds, geometry=GEOMETRY, format=FORMAT.to_json(), **shared)

    def ask(self, command: str, fds: tuple[int, ...] = (), **arguments: Any) -> None:
        """A command, served at once."""
        self._stage._serve({"cmd": command, **arguments}, list(fds))

    def answers(self) -> list[str | None]:
        """Of the answers so far, why it was not done."""
        said = []
        while (got := self._ours.receive(0)) is not None:
            if "call" in got[0]:
                said.append(got[0].get("user_error"))
        return said

    def close(self) -> None:
        """Ends it."""
        del self._stage
        gc.unfreeze()
        gc.collect()
        for fd in self._fds:
            os.close(fd)
        self._ours.close()
        self._theirs.close()
        self.rings.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.close()


def test_what_was_asked_too_long_ago_is_not_done(served: Served, tmp_path: Path) -> None:
    """As of a process whose disk was stuck: its asker has been told that it did not answer."""
    for command in ("start", "trigger", "stop"):
        served.ask(command, reason="late", until_ns=time.monotonic_ns() - 1)
    assert served.answers()[-3:] == ["what was asked of the record process is too long ago to be done"] * 3
    assert list(tmp_path.iterdir()) == []
    served.ask("start", reason="in time", until_ns=time.monotonic_ns() + 600_000_000_000)
    assert len(list(tmp_path.iterdir())) == 1


def test_later_recordings_tell_the_settings_of_then(served: Served, tmp_path: Path) -> None:
    for gains in (None, [1.5, 1.0, 2.0]):
        if gains:
            settings = {**served.settings, "white_balance": gains}
            served.ask("tell", engine={"name": "lwisp"}, settings=settings)
        served.ask("start", reason="test")
        served.clock.now_ns = time.monotonic_ns()
        served.rings.come()
        served._stage._need_recorder().turn()
        served.ask("close")
        file = max(tmp_path.glob("*.h5"), key=lambda path: path.stat().st_mtime_ns)
        with open_recording(file) as recording:
            assert recording.calibration["white_balance"] == recording.settings["white_balance"] == gains
            assert recording.engine["name"] == ("lwisp" if gains else "classic")


def test_all_that_was_asked_is_done_before_frames_are_looked_at(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger that waits behind another message is the older one."""
    recorder = served._stage._need_recorder()
    turns: list[int] = []
    monkeypatch.setattr(recorder, "turn", lambda: turns.append(recorder.recorded) or 0.0)
    settings = {"engine": {"name": "classic"}, "settings": served.settings}
    for command, arguments in (("tell", settings), ("start", {"reason": "key"}), ("close", {})):
        served._ours.send({"cmd": command, **arguments})
    served._stage.run()
    assert turns == [0]
