"""What clients send is taken as it is meant, or refused with a sentence, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ispeed.stream.monitor.messages import BadMessage, Look, read_command, read_message


@pytest.mark.parametrize(
    ("message", "cmd", "arguments"),
    [
        ({"cmd": "set", "feature": "Gain", "value": 6}, "set", {"feature": "Gain", "value": 6.0}),
        ({"cmd": "trigger"}, "trigger", {}),
        ({"cmd": "record", "action": "stop"}, "record", {"action": "stop", "reason": "page"}),
        ({"cmd": "engine", "engine": "lwisp-xs"}, "engine", {"engine": "lwisp-xs"}),
        ({"cmd": "engine", "white_balance": "auto"}, "engine", {"white_balance": "auto"}),
        ({"cmd": "engine", "white_balance": [2, 1, 1.5]}, "engine", {"white_balance": [2.0, 1.0, 1.5]}),
    ],
)
def test_commands(message: dict[str, Any], cmd: str, arguments: dict[str, Any]) -> None:
    command = read_command(json.dumps({"camera": 3, **message}))
    assert (command.camera, command.cmd, command.arguments()) == (3, cmd, arguments)
    assert read_message(json.dumps({"type": "command", "camera": 3, **message})).arguments() == arguments


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ({"type": "view"}, "camera"),
        ({"type": "view", "camera": 0, "fps": 0}, "fps"),
        ({"type": "view", "camera": 0, "width": 1e9}, "width"),
        ({"type": "view", "camera": True}, "camera"),
        ({"type": "view", "camera": 0, "more": 1}, "more"),
        ({"type": "ack", "sequence": -1}, "sequence"),
        ({"type": ["x"]}, "type must be"),
        ({"type": "command", "cmd": "stop"}, "tag"),
        ({"type": "command", "cmd": "set", "feature": "DeviceReset", "value": 1}, "feature"),
        ({"type": "command", "cmd": "set", "feature": "Gain", "value": "1"}, "value"),
        ({"type": "command", "cmd": "engine", "engine": "a\nb"}, "engine"),
        ({"type": "command", "cmd": "engine", "white_balance": [1, 1]}, "white_balance"),
        ({"type": "command", "cmd": "engine", "white_balance": [0, 1, 1]}, "white_balance"),
        ({"type": "command", "cmd": "record", "action": "erase"}, "action"),
    ],
)
def test_refusals(message: dict[str, Any], part: str) -> None:
    with pytest.raises(BadMessage, match=part) as refusal:
        read_message(json.dumps(message))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "[" * 4000, '{"type": "ack", "sequence": NaN}', "x" * 5000])
def test_no_messages(text: str) -> None:
    with pytest.raises(BadMessage):
        read_message(text)
    with pytest.raises(BadMessage):
        read_command(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=10), inside, max_size=4),
    max_leaves=10,
)
_KEYS = ("type", "id", "camera", "cmd", "feature", "value", "width", "fps", "overlay", "sequence", "engine", "action")
_WORDS = st.sampled_from(["view", "ack", "command", "set", "engine", "record", "trigger", "features", "Gain", "auto"])


@given(st.dictionaries(st.sampled_from(_KEYS), _WORDS | _JSON) | _JSON)
def test_any_json_is_a_message_or_a_sentence(values: Any) -> None:
    for read in (read_message, read_command):
        message = _read(read, json.dumps(values))
        if isinstance(message, str):
            assert 0 < len(message) <= 400
        elif isinstance(message, Look):
            assert 64 <= message.width <= 1920


def _read(read: Any, text: str) -> Any:
    try:
        return read(text)
    except BadMessage as error:
        return str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_sentence(data: bytes) -> None:
    for read in (read_message, read_command):
        with pytest.raises(BadMessage):
            read(data)
