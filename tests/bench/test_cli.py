"""The command line of `isp-bench`: help, and one clear sentence for each wrong input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ispeed.bench import cli

_NAMES = (
    "compare",
    "memory",
    "kill",
    "max",
    "engines",
    "train",
    "monitor",
    "record",
    "pretrigger",
    "develop",
    "soak",
    "fuzz",
)
COMMANDS = ([], *([name] for name in _NAMES))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_its_help(command: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as leaving:
        cli.run([*command, "--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert "Exit codes" in text
    parser = cli.make_parser()
    for action in parser._actions:
        assert action.help or action.dest == "command", action.dest


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--fps", "0"], "must be above 0"),
        (["--fps", "nan"], "must be above 0"),
        (["--repeat", "0"], "must be 1 or more"),
        (["--repeat", "x"], "must be 1 or more, not x"),
        (["--fps", "x"], "must be above 0, not x"),
        (["memory", "--width", "many"], "must be 1 or more, not many"),
        (["kill", "--policy", "best"], "invalid choice"),
        (["nonsense"], "invalid choice"),
    ],
)
def test_a_wrong_option_is_refused(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as leaving:
        cli.run(argv)
    assert leaving.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--out", "/nonexistent/out.json"], "there is no folder /nonexistent"),
        (["kill", "--only", "camera"], "there is no scenario 'camera'"),
        (["memory", "--minutes", "0.5", "--settle", "30"], "ends before --settle"),
        (["record", "--folder", "/nonexistent"], "/nonexistent is no folder that can be written"),
        (["record", "--folder", "/dev/shm", "--mib", "100000000"], "ask for fewer --mib"),
        (["pretrigger", "--folder", "/dev/shm", "--triggers", "1000000"], "ask for fewer --triggers"),
        (["--camera", "NOSUCH", "--seconds", "1"], "NOSUCH"),
        (["--pixel-format", "RGB8", "--seconds", "1"], "RGB8"),
    ],
)
@pytest.mark.usefixtures("runtime_dir")
def test_a_wrong_input_is_one_sentence(argv: list[str], sentence: str, capfd: pytest.CaptureFixture[str]):
    assert cli.run(argv) == 2
    said = capfd.readouterr().err
    assert sentence in said
    assert said.startswith("isp-bench: error: ")
    assert said.count("\n") == 1


def test_the_console_script_leaves_quietly_on_ctrl_c(tmp_path: Path):
    code = (
        "import os, signal, sys\n"
        "from ispeed.bench import cli, entry\n"
        "cli.run = lambda argv: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(entry.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 130
    assert done.stderr == ""


@pytest.mark.usefixtures("runtime_dir")
def test_ctrl_c_in_mid_run_ends_everything_quietly():
    code = "import sys; from ispeed.bench.entry import main; sys.exit(main())"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code, "--seconds", "60"], start_new_session=True, **pipes
    ) as bench:
        assert "machine" in bench.stdout.readline()
        time.sleep(2.5)  # the pipeline is starting, or runs: whatever it does must end with us
        os.killpg(bench.pid, signal.SIGINT)
        _, said = bench.communicate(timeout=40)
    assert (bench.returncode, said) == (130, "")


def test_what_isp_stream_refuses_is_its_own_sentence(runtime_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--engine", "none.plan", "--seconds", "1"]) == 2
    sentence = capsys.readouterr().err
    assert sentence == "isp-bench: error: engine file none.plan does not exist; give the path of a file, or classic\n"
