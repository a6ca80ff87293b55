"""docs/wire.md says what the code does, and is enough to read a stream with nothing of ours."""

from __future__ import annotations

import ast
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import zmq

from ispeed.stream import Ring, StreamInfo, frame

DOCUMENT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
CLIENT = Path(__file__).parent / "wire_client.py"
CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}


def table(name: str) -> list[list[str]]:
    """The rows of a marked table of the document, without its head."""
    marked = re.search(rf"<!-- {name}: .*?-->\n(.*?)<!-- end of {name} -->", DOCUMENT, re.DOTALL)
    assert marked is not None
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in marked[1].strip().splitlines()[2:]]


def code_of(kind: str) -> str:
    """The struct code of a type in the document."""
    return f"{kind.split(maxsplit=1)[0]}s" if kind.endswith("bytes") else CODES[kind]


def test_the_header_is_as_documented() -> None:
    rows = table("header")
    assert {name: int(offset) for offset, _, name, _ in rows} == frame.OFFSETS
    assert {name: code_of(kind) for _, kind, name, _ in rows} == frame.FIELD_CODES
    assert [name for _, _, name, _ in rows] == list(frame.OFFSETS)


def test_the_flags_are_as_documented() -> None:
    flags = {name.removeprefix("FLAG_"): value for name, value in vars(frame).items() if name.startswith("FLAG_")}
    assert {name: 1 << int(bit) for bit, name, _ in table("flags")} == flags


def test_the_rings_own_header_is_as_documented() -> None:
    ring = Ring.create("srgb", 3, 5000, 0x123456789ABCDEF0)
    expected = ring.layout.to_json() | {"magic": b"ISPRING1", "version": 1, "kind": 2, "stream_id": 0x123456789ABCDEF0}
    rows = table("ring")
    assert len(rows) == 12
    for offset, kind, name, _ in rows:
        assert struct.unpack_from("<" + code_of(kind), ring.memory, int(offset)) == (expected[name],), name
    ring.close()


def test_every_key_of_the_info_is_documented(runtime_dir: Path, source: ModuleType) -> None:
    section = DOCUMENT.split("## Stream info")[1].split("\n## ")[0]
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", section, re.MULTILINE))))
    assert documented >= set(StreamInfo.__dataclass_fields__)
    with source.Source() as stream, zmq.Context() as context, context.socket(zmq.SUB) as infos:
        infos.subscribe(b"i/")
        infos.connect(stream.publisher.endpoints[0])
        while not infos.poll(10):
            stream.publisher.poll_subscriptions()
        sent = set(json.loads(infos.recv()[8:]))
    assert sent | {"ring_path", "clock"} == documented  # which are left out where there is nothing to say


def test_the_client_is_short_and_imports_nothing_of_ours() -> None:
    text = CLIENT.read_text()
    assert len(text.splitlines()) <= 60
    names = {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"json", "mmap", "os", "struct", "sys", "numpy", "zmq"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(ast.parse(text)))


@pytest.mark.parametrize("named", [False, True], ids=["memfd", "named ring"])
def test_the_client_reads_the_stream(runtime_dir: Path, source: ModuleType, named: bool) -> None:
    settings = {"name": f"ispeed-test-wire-{runtime_dir.name}"} if named else {}
    with source.RemoteSource(camera=3, width=30, height=20, slots=32, **settings) as stream:
        command = [sys.executable, str(CLIENT), stream.endpoints[0], "3", "25"]
        reading = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stream.do("await", descriptors=1)
        stream.do("publish", count=25)
        told, _ = reading.communicate(timeout=60)
        assert reading.returncode == 0
    result = json.loads(told)
    assert result["lapped"] == 0
    assert result["frames"] == [[n, n + 100, [20, 30, 3], n, n, 250.0] for n in range(25)]
