"""The main process's poll, with a real stage process."""

from __future__ import annotations

from ispeed.stream.hub import Hub, Signals
from ispeed.stream.stage import StageProcess


class Lingering(StageProcess):
    """A stand-in for a process that the kernel takes long to end, such as one with a GPU, here there is none."""

    looks = 20

    @property
    def ended(self) -> bool:
        self.looks -= 1
        return self.looks < 0 and super().ended


def test_the_poll_goes_on_while_a_killed_process_ends(signals: Signals) -> None:
    woken: list[bool] = []
    hub = Hub(lambda: woken.append(True), signals)
    stage = Lingering("develop")
    hub.adopt(stage)
    hub.retire(stage)
    assert len(woken) >= 10
    assert stage.how_it_ended() == "by SIGKILL"
    assert not hub.current(stage)
