"""Fixtures for every room, and the check that a test module leaves nothing behind."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# On a loaded machine any example may take long; the tests themselves have a time limit.
settings.register_profile("ispeed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ispeed")

_MARK = f"ISPEED_TEST_RUN={uuid.uuid4().hex}"  # in the environment of all that the tests start, so they can be found
os.environ.update([_MARK.split("=")])
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")  # Python's own, which live on


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data, from ISPEED_DATA."""
    folder = os.environ.get("ISPEED_DATA")
    if not folder:
        pytest.skip("needs real data: set ISPEED_DATA to its folder")
    return Path(folder)


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private XDG_RUNTIME_DIR with a short path, because a socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="isp-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def source() -> ModuleType:
    """tests/stream/source.py: streams for tests, in this process (`Source`) or another one (`RemoteSource`)."""
    path = Path(__file__).parent / "stream" / "source.py"
    spec = importlib.util.spec_from_file_location("ispeed_test_source", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No process, shared memory, or socket that was not there before the module."""
    before = _remains()
    yield
    gc.collect()
    deadline = time.monotonic() + 20
    while (left := _remains() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"left behind: {sorted(left)}"


def _remains() -> set[str]:
    return {*_processes(), *_memory(), *_sockets()}


def _processes() -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) == os.getpid() or _MARK.encode() not in (folder / "environ").read_bytes():
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # ended meanwhile, or not ours
            continue
        if command and not any(helper in command for helper in _HELPERS):
            yield f"process {folder.name}: {command}"


def _memory() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("/memfd:ispeed-"):
            yield f"descriptor {link.name} of {target}"
    for path in Path("/dev/shm").glob("*ispeed*"):
        if os.getpid() in (users := list(_users(path))) or not users:  # else those of tests that run beside these
            yield str(path)


def _users(path: Path) -> Iterator[int]:
    """Processes that have a file in their memory."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or not ours
            if str(path) in (folder / "maps").read_text():
                yield int(folder.name)


def _sockets() -> Iterator[str]:
    # Those of the default endpoints; whatever lies in a `runtime_dir` goes with it.
    folders = [
        Path(f"/tmp/ispeed-{os.geteuid()}"),
        Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent") / "ispeed",
    ]
    yield from (str(path) for folder in folders if folder.is_dir() for path in folder.iterdir())
