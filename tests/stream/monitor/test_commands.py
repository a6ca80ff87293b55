"""Commands of many pages at once, on a real control socket."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from ispeed.stream.control_server import Asked, ControlServer
from ispeed.stream.monitor.commands import Commands
from ispeed.stream.monitor.messages import Engine, Features


class Answering(threading.Thread):
    """Answers everything but changes of the engine, which it keeps in `changes` until `changed` or `over`."""

    def __init__(self, server: ControlServer) -> None:
        super().__init__()
        self.server, self.changes = server, list[Asked]()
        self.changed, self.over = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.002):
            self.server.poll()
            while self.server.waiting:
                asked = self.server.waiting.popleft()
                if asked.request.cmd == "engine":
                    self.changes.append(asked)
                else:
                    self.server.answer(asked, features=[])
            if self.changed.is_set():
                self.refuse_changes()
        self.refuse_changes()

    def refuse_changes(self) -> None:
        while self.changes:
            self.server.refuse(self.changes.pop(), "the run has ended")


def test_every_page_may_ask_at_once_also_while_engines_are_changed(runtime_dir: Path) -> None:
    async def ask(endpoint: str) -> None:
        commands = Commands(endpoint, engines=("e0", "e1"))
        changes = [asyncio.ensure_future(commands.run(Engine(cmd="engine", engine=f"e{n}"))) for n in range(2)]
        while len(answering.changes) < 2:
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*(commands.run(Features(cmd="features")) for _ in range(16)))
        assert not any(change.done() for change in changes)
        answering.over.set()
        assert answers == [{"ok": True, "features": []}] * 16
        assert [answer["error"] for answer in await asyncio.gather(*changes)] == ["the run has ended"] * 2

    with ControlServer([f"ipc://{runtime_dir}/control"]) as server:
        answering = Answering(server)
        answering.start()
        try:
            asyncio.run(ask(server.endpoints[0]))
        finally:
            answering.over.set()
            answering.join()


def test_a_page_that_leaves_keeps_its_place_until_its_change_is_answered(runtime_dir: Path) -> None:
    async def ask(endpoint: str) -> None:
        commands, change = Commands(endpoint, engines=("e",)), Engine(cmd="engine", engine="e")
        for count in (1, 2):
            page = asyncio.ensure_future(commands.run(change))
            while len(answering.changes) < count:
                await asyncio.sleep(0.01)
            page.cancel()
        third = await asyncio.wait_for(commands.run(change), 60)
        assert "too many commands are under way" in third["error"]
        answers = await asyncio.gather(*(commands.run(Features(cmd="features")) for _ in range(16)))
        assert answers == [{"ok": True, "features": []}] * 16
        answering.changed.set()
        assert await asyncio.wait_for(commands.run(change), 60) == {"ok": False, "error": "the run has ended"}

    with ControlServer([f"ipc://{runtime_dir}/control"]) as server:
        answering = Answering(server)
        answering.start()
        try:
            asyncio.run(ask(server.endpoints[0]))
        finally:
            answering.over.set()
            answering.join()
