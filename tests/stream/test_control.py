"""The control socket of a real isp-stream: what may be asked, what is refused, and that frames go on meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from contextlib import suppress

import pytest
import zmq

from ispeed.engines.errors import UserError
from ispeed.stream import Control, ControlError, Subscriber, default_endpoint
from ispeed.stream.control import MESSAGE_MAX, default_control
from ispeed.stream.control_cli import _argument
from ispeed.stream.control_server import ControlServer
from ispeed.stream.requests import EngineRequest, parse_request

from .conftest import ISP_STREAM


def test_features_are_read_and_set_while_frames_come(isp_stream):
    run = isp_stream("--slots", "200")
    run.published(20)
    with Control() as control, Subscriber(mode="every", timeout_ms=20_000) as frames:
        (feature,) = control.call("features", names=["ExposureTime"])["features"]
        assert feature == {
            "name": "ExposureTime",
            "writable": True,
            "value": 500.0,
            "min": 1.0,
            "max": 1e6,
            "unit": "us",
        }
        assert control.call("set", feature="ExposureTime", value=250)["value"] == 250.0
        while frames.receive().exposure_us != 250.0:
            pass
        assert frames.missed == frames.lapped == 0
        with pytest.raises(ControlError, match=r"ExposureTime -5 is not possible: 1 to 1e\+06 us"):
            control.call("set", feature="ExposureTime", value=-5)
        with pytest.raises(ControlError, match="no feature Exposuretim; did you mean ExposureTime"):
            control.call("set", feature="Exposuretim", value=5)
        assert control.call("features", names=["Nope"])["features"] == [{"name": "Nope", "writable": False}]
    assert run.until("changed")["text"] == "ExposureTime 250"
    run.signal()
    assert sum(run.finish()["lost"].values()) == 0


def rate_in_info(frames, fps):
    frames.receive()
    while frames.info.fps != fps:
        frames.receive()


def test_a_change_of_the_rate_reaches_info_and_status(isp_stream):
    run = isp_stream("--at", "20:AcquisitionFrameRate=100")
    with Control(timeout_ms=60_000) as control, Subscriber(mode="every", timeout_ms=60_000) as frames:
        run.until("status", fps=100.0)
        rate_in_info(frames, 100.0)
        control.call("set", feature="AcquisitionFrameRate", value=50)
        run.until("status", fps=50.0)
        rate_in_info(frames, 50.0)
        assert control.call("features", names=["AcquisitionFrameRate"])["features"][0]["value"] == 50.0
        control.call("set", feature="TriggerMode", value="On")
        run.until("status", fps=0.0)
        control.call("stop")
    run.finish()


def test_another_engine_takes_over_without_a_lost_frame(isp_stream, core_file):
    run = isp_stream("--slots", "400", "--engine", "classic", fps=50)
    run.published(20)
    with Control(timeout_ms=60_000) as control, Subscriber(mode="every", timeout_ms=20_000) as frames:
        before = frames.receive().header.engine_id
        assert control.call("engine", engine=str(core_file))["engine"]["name"] == "tiny"
        header = frames.receive().header
        while header.engine_id == before:
            header = frames.receive().header
        assert frames.missed == 0  # lapped it was, while it waited for the answer
        with pytest.raises(ControlError, match="there is no engine 'nope'"):
            control.call("engine", engine="nope")
        with pytest.raises(ControlError, match="say what shall change"):
            control.call("engine")
        control.call("engine", engine="classic", white_balance=[2, 1, 1.5])
        while frames.receive().white_balance != (2.0, 1.0, 1.5):
            pass
        control.call("stop")
    ledger = run.finish()
    assert sum(ledger["lost"].values()) == 0


def test_status_stop_and_an_unknown_camera(isp_stream):
    run = isp_stream()
    run.published(20)
    with Control(default_control(0), camera=7) as control:
        (camera,) = control.call("status")["cameras"]
        assert camera["started"]["geometry"]["width"] == 160
        assert camera["status"]["account"]["published"] >= 20
        with pytest.raises(ControlError, match="no camera 7 in this run: there are 0"):
            control.call("trigger")
        control.camera = 0
        with pytest.raises(ControlError, match="nothing is recorded"):
            control.call("record", action="start")
        control.call("stop")
    run.finish()


def test_the_software_trigger(isp_stream):
    run = isp_stream("--trigger", "--set", "TriggerSource=Software")
    run.until("started")
    with Control() as control, Subscriber(mode="every", timeout_ms=20_000) as frames:
        first = None
        while first is None:  # the subscription takes a moment to arrive
            control.call("trigger")
            with suppress(TimeoutError):
                first = frames.receive(timeout_ms=1000)
        control.call("trigger")
        assert frames.receive().frame_id == first.frame_id + 1
        control.call("stop")
    assert run.finish()["published"] == first.sequence + 2


def test_on_the_command_line(isp_stream):
    def ask(*words: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run([*ISP_STREAM, "control", *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    run = isp_stream()
    run.published(10)
    assert json.loads(ask("set", "feature=Gain", "value=6")[0]) == {"value": 6.0}
    out, _ = ask("features", "names=Gain,Width")
    assert [f["value"] for f in json.loads(out)["features"]] == [6.0, 160]
    assert "0 to 24 dB" in ask("set", "feature=Gain", "value=60", code=1)[1]
    assert "does not match any of the expected" in ask("jump", code=1)[1]
    assert ask("set", "feature", code=2)[1] == (
        "isp-stream: error: write NAME=VALUE, not 'feature': see isp-stream control --help\n"
    )
    assert ask("stop")[0] == "{}\n"
    run.finish()
    assert "nobody listens at ipc:" in ask("stop", code=1)[1]


def test_what_is_no_request_is_answered_with_a_sentence(isp_stream):
    run = isp_stream()
    run.published(10)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(default_control(0))
    for parts in ([b"{"], [b"{}", b"{}"], [b'{"cmd": "stop"}'], [b"[" * 4000]):
        socket.send_multipart(parts)
        assert socket.poll(20_000)
        answer = json.loads(socket.recv())
        assert (answer["id"], answer["ok"]) == (None, False)
        assert answer["error"].startswith("no command of isp-stream: ")
    socket.send(b" " * (MESSAGE_MAX + 1))  # such an asker is disconnected, and may come back
    socket.send(b'{"id": 1, "cmd": "status"}')
    context.destroy(linger=0)
    with Control() as control:
        control.call("stop")
    run.finish()


def test_what_is_asked_as_the_run_ends_is_answered_too(isp_stream):
    run = isp_stream()
    run.published(10)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(default_control(0))
    for number, command in enumerate(("stop", "trigger", "status")):
        socket.send(json.dumps({"id": number, "cmd": command}).encode())
    answers = {}
    while len(answers) < 3:
        assert socket.poll(20_000)
        answer = json.loads(socket.recv())
        answers[answer["id"]] = answer
    context.destroy(linger=0)
    assert answers[0]["ok"]
    assert answers[1]["error"] == answers[2]["error"] == "the run has ended"
    run.finish()


def test_what_was_given_up_is_not_done_later(runtime_dir):
    endpoint = f"ipc://{runtime_dir}/control"
    with Control(endpoint, timeout_ms=1) as control:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                control.call("stop")  # nobody is there
        with ControlServer([endpoint]) as server:
            asking = threading.Thread(target=control.call, args=("status", 60_000))
            asking.start()
            while not server.waiting:
                server.poll()
            (asked,) = server.waiting
            assert asked.request.cmd == "status"
            server.answer(asked)
            asking.join()


@pytest.mark.parametrize("timeout", ["nan", "inf", "1e12", "0", "-5"])
def test_a_patience_that_cannot_be_is_one_sentence(isp_stream_fails, timeout):
    sentence = isp_stream_fails("control", "status", "--timeout-ms", timeout)
    assert sentence == f"--timeout-ms {float(timeout):g} cannot be: give milliseconds, at most 86400000"


def test_ctrl_c_while_it_waits_is_no_success(runtime_dir):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as silent:
        silent.bind(f"ipc://{runtime_dir}/silent")
        command = [*ISP_STREAM, "control", "status", "--endpoint", f"ipc://{runtime_dir}/silent"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
            assert silent.poll(60_000)
            asking.send_signal(signal.SIGINT)
            assert asking.communicate(timeout=60) == (b"", b"")
        assert asking.returncode == -signal.SIGINT


def test_text_of_digits_is_text():
    assert _argument("reason=42") == ("reason", "42")
    assert _argument("value=42") == ("value", 42)
    assert _argument("white_balance=2,1,1.5") == ("white_balance", [2, 1, 1.5])


def test_a_control_endpoint_that_is_taken(isp_stream, isp_stream_fails):
    run = isp_stream()
    run.until("started")
    taken = default_control(0)
    sentence = isp_stream_fails("--camera", "1", "--control", taken)
    assert sentence.startswith(f"endpoint {taken} is taken by another isp-stream")
    assert "can be reached from other hosts" in isp_stream_fails("--camera", "1", "--control", "tcp://0.0.0.0:5999")
    run.signal()
    run.finish()


def test_the_status_comes_to_whoever_subscribes_also_late(isp_stream):
    run = isp_stream()
    run.published(10)
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.subscribe(b"s/0")
    socket.connect(default_endpoint(0))
    events: dict[str, dict] = {}
    while not {"started", "status"} <= set(events):
        assert socket.poll(20_000)
        message = socket.recv()
        assert message[:8] == b"s/0\0\0\0\0\0"
        told = json.loads(message[8:])
        events[told["event"]] = told
    assert events["started"]["geometry"]["height"] == 120
    assert events["status"]["camera"] == 0
    run.signal()
    while told["event"] != "final":  # and until the very end
        assert socket.poll(20_000)
        told = json.loads(socket.recv()[8:])
    context.destroy(linger=0)
    assert told["ledger"] == run.finish()
    assert run.errors() == ""


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1, "cmd": "set", "feature": "Gain"},
        {"id": 1, "cmd": "set", "feature": "../x", "value": 1},
        {"id": 1, "cmd": "set", "feature": "Gain", "value": [1]},
        {"id": 1, "cmd": "set", "feature": "Gain", "value": "x" * 201},
        {"id": -1, "cmd": "stop"},
        {"id": 1, "cmd": "stop", "more": 1},
        {"id": 1, "cmd": "features", "names": []},
        {"id": 1, "cmd": "engine", "white_balance": [0, 1, 1]},
        {"id": 1, "cmd": "record", "action": "pause"},
        {"id": 1, "cmd": "trigger", "camera": 1 << 40},
    ],
)
def test_requests_out_of_bounds_are_refused(message):
    with pytest.raises(UserError, match="no command of isp-stream"):
        parse_request(json.dumps(message).encode())


def test_numbers_that_are_none_are_refused():
    for value in ("NaN", "Infinity", "1e999"):
        with pytest.raises(UserError, match="no command of isp-stream"):
            parse_request(b'{"id": 1, "cmd": "set", "feature": "Gain", "value": %s}' % value.encode())


def test_what_an_engine_request_changes():
    request = parse_request(b'{"id": 1, "cmd": "engine", "white_balance": "auto", "engine_mode": "latency"}')
    assert isinstance(request, EngineRequest)
    assert request.changes() == {"white_balance": None, "engine_mode": "latency"}
