"""isp-stream --monitor: what cannot be is one sentence before anything starts; what can is printed as an address."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import zmq

from ispeed.engines.zoo.catalogue import zoo_path
from ispeed.stream.frame import topic

from ..conftest import ISP_STREAM
from .conftest import child_of, eventually

Fails = Callable[..., str]
TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--monitor", "8080"], "no port"),
        (["--monitor", ":0", "--monitor-fps", "0"], "monitor_fps"),
        (["--monitor", ":0", "--monitor-host", "https://camera.example"], "must be NAME or NAME:PORT"),
        (["--monitor", ":0", "--monitor-host", "camera.example", "--quiet"], "give --monitor-token FILE"),
        (["--monitor", "0.0.0.0:0", "--quiet"], "give --monitor-token FILE"),
    ],
)
def test_one_sentence(isp_stream_fails: Fails, arguments: list[str], part: str) -> None:
    assert part in isp_stream_fails(*arguments)


def test_a_port_that_is_taken_and_a_token_that_others_read(isp_stream_fails: Fails, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        assert "in use" in isp_stream_fails("--monitor", f":{held.getsockname()[1]}")
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o644)
    assert "chmod 600" in isp_stream_fails("--monitor", ":0", "--monitor-token", str(tmp_path / "token"))


def test_a_package_that_is_not_installed(runtime_dir: Path) -> None:
    script = "import sys; sys.modules['uvicorn'] = None; from ispeed.stream.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "--monitor", ":0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    sentence = "isp-stream: error: --monitor needs uvicorn: pip install 'ispeed[monitor]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


def test_a_public_page_has_its_token_in_the_address_that_only_the_terminal_sees(
    isp_stream: Callable[..., Any],
) -> None:
    run = isp_stream("--monitor", "0.0.0.0:0")
    url = httpx.URL(run.until("monitor")["url"])
    token = url.params["token"]
    assert len(token) >= 32
    local = f"http://127.0.0.1:{url.port}/"
    assert httpx.get(local, params={"token": token}, timeout=60).status_code == 200
    assert httpx.get(local, timeout=60).status_code == 401
    with zmq.Context() as context, context.socket(zmq.SUB) as status:
        status.subscribe(topic("s", 0))
        status.connect(run.messages[0]["endpoint"][0])
        told = [status.recv() for _ in range(4)]
    assert not any(token.encode() in message for message in told)
    run.signal()
    run.finish()


def test_a_token_of_ones_own_is_asked_for_and_not_printed(isp_stream: Callable[..., Any], tmp_path: Path) -> None:
    """On endpoints with keys, which the monitor needs as every client does."""
    keys, free = str(tmp_path / "keys"), "tcp://127.0.0.1:*"
    subprocess.run([*ISP_STREAM, "keys", keys], check=True, capture_output=True)
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN + "\n")
    secured = ("--keys", keys, "--publish", free, "--control", free)
    run = isp_stream("--monitor", "localhost:0", "--monitor-token", str(file), *secured)
    url = run.until("monitor")["url"]
    assert TOKEN not in json.dumps(run.messages)
    assert httpx.get(url, timeout=60).status_code == 401
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        eventually(lambda: client.get("/still").status_code == 200)
        assert client.post("/control", content='{"cmd": "features"}').json()["features"][0]["name"] == "ExposureTime"
    run.signal()
    run.finish()


def test_an_engine_of_the_run_can_be_gone_back_to_and_no_other_file_be_opened(
    isp_stream: Callable[..., Any], tmp_path: Path
) -> None:
    own, other = tmp_path / "own.onnx", tmp_path / "other.onnx"
    for file in (own, other):
        shutil.copy(zoo_path("light-paired"), file)
    run = isp_stream("--monitor", ":0", "--engine", str(own), fps=20)
    with httpx.Client(base_url=run.until("monitor")["url"], timeout=200) as client:

        def change(engine: str) -> tuple[int, dict[str, Any]]:
            answer = client.post("/control", content=json.dumps({"cmd": "engine", "engine": engine}))
            return answer.status_code, answer.json()

        assert change("classic")[0] == 200
        for file in (str(other), str(tmp_path / "own.plan"), f"{tmp_path}/./own.onnx", "auto"):
            status, answer = change(file)
            assert status == 409
            assert "isp-stream control" in answer["error"]
        status, answer = change(str(own))
        assert (status, answer["ok"]) == (200, True)
    run.signal()
    run.finish()


def test_a_monitor_that_cannot_be_started_again_is_told_and_the_stream_goes_on(isp_stream: Callable[..., Any]) -> None:
    run = isp_stream("--monitor", ":0")
    url, main = run.until("monitor")["url"], run.process.pid
    eventually(lambda: answers(url))
    before = resource.prlimit(main, resource.RLIMIT_NOFILE)
    resource.prlimit(main, resource.RLIMIT_NOFILE, (16, before[1]))  # it has more open, and gets none of them back
    os.kill(child_of(main, "monitor"), signal.SIGKILL)
    run.until("monitor_died")
    warned = run.until("warning")["text"]
    assert warned.startswith("the monitor cannot be started: too many open files")
    run.until("warning", text=warned)
    assert run.published(run.published()["account"]["published"] + 1)
    resource.prlimit(main, resource.RLIMIT_NOFILE, before)
    eventually(lambda: answers(url), timeout_s=90)
    run.signal()
    run.finish()


def answers(url: str) -> bool:
    """Whether the page is served."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
