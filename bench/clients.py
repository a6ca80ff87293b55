"""Clients of the monitor: WebSockets that look at a camera at a rate and say of each picture that they have shown it.

`python -m ispeed.bench.clients URL --clients 5 --fps 5` prints one JSON object when every client has had its first
picture, and one with what each had when its standard input closes. Their work stands for that of browsers on other
machines, so it gives way to everything else (nice 10).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from ..stream.monitor.__main__ import give_way
from ..stream.monitor.pictures import unpack

FIRST_S = 60.0
_LOOK_S = 0.2


class Client(threading.Thread):
    """One connection. `pictures`, `bytes` and `late_ms` (from the frame's arrival to here) count since `count_from`."""

    def __init__(self, url: str, fps: float, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._url, self._fps, self._stop_asked = url, fps, stop
        self.first = threading.Event()
        self.error = ""
        self.begun_s = 0.0
        self.pictures = self.bytes = 0
        self.late_ms: list[float] = []

    def run(self) -> None:
        """Shows pictures until asked to stop."""
        try:
            self._look()
        except Exception as error:  # told by the process, in its result
            self.error = f"{type(error).__name__}: {error}"
        self.first.set()

    def _look(self) -> None:
        from websockets.sync.client import connect

        with connect(self._url, proxy=None, compression=None, open_timeout=FIRST_S) as socket:
            socket.send(json.dumps({"type": "view", "camera": 0, "width": 960, "fps": self._fps}))
            while not self._stop_asked.is_set():
                with suppress(TimeoutError):
                    data = socket.recv(_LOOK_S)
                    if not isinstance(data, str):
                        self._take(data)
                        socket.send(json.dumps({"type": "ack", "sequence": unpack(data)[0]["sequence"]}))

    def _take(self, data: bytes) -> None:
        if not self.first.is_set():
            self.begun_s = time.monotonic()
            self.first.set()
            return
        self.pictures += 1
        self.bytes += len(data)
        self.late_ms.append(time.time() * 1e3 - unpack(data)[0]["time_ms"])

    def result(self) -> dict[str, Any]:
        """What it had."""
        span_s = time.monotonic() - self.begun_s
        late = sorted(self.late_ms) or [0.0]
        return {
            "pictures": self.pictures,
            "fps": round(self.pictures / span_s, 2),
            "kib_per_s": round(self.bytes / 1024 / span_s, 1),
            "late_ms_p50": round(late[len(late) // 2], 1),
            "late_ms_max": round(late[-1], 1),
        }


def main() -> int:
    """The process. Exit code 1 where a client got no picture."""
    parser = argparse.ArgumentParser(prog="python -m ispeed.bench.clients", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--fps", type=float, default=5.0)
    options = parser.parse_args()
    give_way(10)
    stop = threading.Event()
    url = options.url.replace("http://", "ws://", 1) + "ws"
    clients = [Client(url, options.fps, stop) for _ in range(options.clients)]
    for client in clients:
        client.start()
    came = all(client.first.wait(FIRST_S) for client in clients)
    if errors := [client.error for client in clients if client.error]:
        _say({"why": f"a client of the monitor failed: {errors[0]}"})
        return 1
    if not came:
        _say({"why": f"the monitor sent no picture within {FIRST_S:g} s"})
        return 1
    _say({"event": "looking", "pid": os.getpid()})
    sys.stdin.read()
    results = [client.result() for client in clients]
    stop.set()
    errors = [client.error for client in clients if client.error]
    _say({"event": "result", "clients": results} if not errors else {"why": errors[0]})
    return 0


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
