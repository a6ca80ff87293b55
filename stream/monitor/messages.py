"""What a client may send, as JSON of at most 4096 bytes: checked before anything is done with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .pictures import LARGEST

MESSAGE_MAX = 4096  # bytes
FEATURES = ("ExposureTime", "Gain", "AcquisitionFrameRate")
"""Features that the page shows, and the only ones that can be set from it."""

_Camera = Annotated[int, Field(ge=0, le=999_999)]
_Id = Annotated[int, Field(ge=0, le=2**53)]
_Gain = Annotated[float, Field(gt=0, le=64, allow_inf_nan=False)]


class BadMessage(ValueError):
    """A message that is not understood. The text is one sentence; `id` is that of a command, None of anything else."""

    id: int | None = None


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Look(_Message):
    """What to send pictures of: nothing, with `camera` null. `overlay` asks for the mask of clipped pixels."""

    type: Literal["view"]
    camera: _Camera | None
    width: Annotated[int, Field(ge=64, le=LARGEST)] = 960
    fps: Annotated[float, Field(ge=0.1, le=120, allow_inf_nan=False)] = 10.0
    overlay: bool = False


class Ack(_Message):
    """The picture of this frame was shown; the next may come."""

    type: Literal["ack"]
    sequence: Annotated[int, Field(ge=0, lt=2**64)]


class _Command(_Message):
    type: Literal["command"] = "command"
    id: _Id = 0
    camera: _Camera = 0

    def arguments(self) -> dict[str, Any]:
        """What the control socket is given, beside the camera."""
        return self.model_dump(exclude={"type", "id", "camera", "cmd"}, exclude_unset=True)


class Set(_Command):
    """Sets a feature of the camera."""

    cmd: Literal["set"]
    feature: Literal["ExposureTime", "Gain", "AcquisitionFrameRate"]
    value: Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]


class Trigger(_Command):
    """Triggers the camera by software."""

    cmd: Literal["trigger"]


class Record(_Command):
    """Starts, stops or triggers a recording."""

    cmd: Literal["record"]
    action: Literal["start", "stop", "trigger"]
    reason: Annotated[str, Field(max_length=100)] = "page"

    def arguments(self) -> dict[str, Any]:
        """With the reason, which the recording keeps."""
        return {"action": self.action, "reason": self.reason}


class Engine(_Command):
    """Changes what develops, or its white balance: gains of red, green and blue, or "auto", which finds them."""

    cmd: Literal["engine"]
    engine: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")] | None = None
    white_balance: Literal["auto"] | Annotated[list[_Gain], Field(min_length=3, max_length=3)] | None = None


class Features(_Command):
    """Asks for the camera's settings and their ranges."""

    cmd: Literal["features"]

    def arguments(self) -> dict[str, Any]:
        """Those that the page shows."""
        return {"names": list(FEATURES)}


Command = Annotated[Set | Trigger | Record | Engine | Features, Field(discriminator="cmd")]
Message = Annotated[Look | Ack | Command, Field()]

_COMMAND: TypeAdapter[Any] = TypeAdapter(Command)
_BY_TYPE = {"view": TypeAdapter(Look), "ack": TypeAdapter(Ack), "command": _COMMAND}


def read_message(text: str | bytes) -> Look | Ack | Set | Trigger | Record | Engine | Features:
    """A message of the WebSocket. Raises BadMessage."""
    values = _parse(text)
    kind = values.get("type")
    adapter = _BY_TYPE.get(kind) if isinstance(kind, str) else None
    if adapter is None:
        raise BadMessage(f"type must be view, ack or command, not {str(kind)[:40]!r}")
    try:
        return _validated(adapter, text)
    except BadMessage as error:
        if kind == "command" and type(values.get("id")) is int:
            error.id = values["id"]
        raise


def read_command(text: str | bytes) -> Set | Trigger | Record | Engine | Features:
    """A command of POST /control. Raises BadMessage."""
    _parse(text)
    return _validated(_COMMAND, text)


def _parse(text: str | bytes) -> dict[str, Any]:
    import json

    if len(text) > MESSAGE_MAX:
        raise BadMessage(f"a message has at most {MESSAGE_MAX} bytes")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessage("the message is no JSON") from error
    if not isinstance(values, dict):
        raise BadMessage("the message is no JSON object")
    return values


def _validated(adapter: TypeAdapter[Any], text: str | bytes) -> Any:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Of a command the place begins with its name, by which the model was chosen.
        place = ".".join(str(part) for part in first["loc"][adapter is _COMMAND :])
        raise BadMessage(f"{place or 'message'}: {first['msg'][:1].lower()}{first['msg'][1:]}"[:300]) from error
