"""To which engine a camera goes back. The processes are stand-ins that never run: what they would do is not asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ispeed.stream.developing import DevelopSide
from ispeed.stream.ring import Word


class Stage:
    """Takes every command."""

    name, pid, dead = "develop", 1, False

    def post(self, command: str, fds: tuple[int, ...] = (), **arguments: Any) -> int:
        return 1


class Camera:
    """A DevelopSide whose processes are ready at once, and the words that say how many frames were developed."""

    def __init__(self) -> None:
        self.shared: Any = SimpleNamespace(words=[0] * 64, free_slots=8)
        hub: Any = SimpleNamespace(spawn=lambda name: Stage())
        self.side = DevelopSide(hub, {"engine": "good", "policy": "every"})
        self.side.begin()
        self.ready(self.side.current)
        self.side._adopt(self.shared)
        self.develops(1000)

    def ready(self, process: Any) -> None:
        process.ready = {"engine": {"name": process.settings["engine"]}, "depth": 2, "lanes": 1}

    def develops(self, count: int) -> None:
        self.shared.words[Word.DEVELOPED] += count

    def change(self, **changes: Any) -> None:
        self.side.begin_another(changes)
        self.ready(self.side.another)
        self.side.take_over(self.shared)

    def dies(self) -> bool:
        back = self.side.go_back(self.shared.words[Word.DEVELOPED])
        self.side.begin()
        return back


def test_an_engine_that_never_works_gives_way_at_its_second_death() -> None:
    camera = Camera()
    camera.change(engine="bad")
    assert [camera.dies(), camera.dies()] == [False, True]
    assert camera.side.settings["engine"] == "good"


def test_a_second_change_does_not_make_one_that_never_worked_the_one_to_go_back_to() -> None:
    camera = Camera()
    camera.change(engine="bad")
    assert not camera.dies()
    camera.change(white_balance=[2, 1, 1])  # still the bad one
    assert [camera.dies(), camera.dies()] == [False, True]
    assert camera.side.settings == {"engine": "good", "policy": "every"}


def test_one_that_has_worked_is_one_to_go_back_to() -> None:
    camera = Camera()
    camera.change(engine="fine")
    camera.develops(1)
    camera.change(engine="bad")
    assert [camera.dies(), camera.dies()] == [False, True]
    assert camera.side.settings["engine"] == "fine"
    assert not camera.side.fall_back()


def test_one_that_cannot_be_opened_again_falls_back_at_once() -> None:
    camera = Camera()
    camera.change(engine="bad")
    assert camera.side.fall_back()
    assert camera.side.settings["engine"] == "good"
