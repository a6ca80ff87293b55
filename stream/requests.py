"""What may be asked over the control socket, one model for each command. All is bounded, and nothing else is taken."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from ..engines.engine import Mode
from ..engines.errors import UserError

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Text = Annotated[str, StringConstraints(max_length=200)]
Gain = Annotated[float, Field(gt=0, le=1000)]
Whole = Annotated[int, Field(ge=-(1 << 62), le=1 << 62)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    id: Annotated[int, Field(ge=0, le=1 << 53)]
    camera: Annotated[int, Field(ge=0, lt=1_000_000)] = 0


class StatusRequest(_Request):
    """The last messages of every camera."""

    cmd: Literal["status"]


class FeaturesRequest(_Request):
    """What features of the camera are set to, and can be set to."""

    cmd: Literal["features"]
    names: Annotated[list[Name], Field(min_length=1, max_length=32)]


class SetRequest(_Request):
    """Sets a feature of the camera."""

    cmd: Literal["set"]
    feature: Name
    value: bool | Whole | float | Text


class TriggerRequest(_Request):
    """Fires the camera's software trigger."""

    cmd: Literal["trigger"]


class EngineRequest(_Request):
    """Changes what develops, without stopping the camera. What is left out stays as it is."""

    cmd: Literal["engine"]
    engine: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    engine_mode: Mode | None = None
    white_balance: tuple[Gain, Gain, Gain] | Literal["auto"] | None = None

    def changes(self) -> dict[str, Any]:
        """The fields of StreamConfig that change, by name."""
        given: dict[str, Any] = self.model_dump(mode="json", exclude={"id", "camera", "cmd"}, exclude_none=True)
        if given.get("white_balance") == "auto":
            given["white_balance"] = None
        return given


class RecordRequest(_Request):
    """Begins or ends a recording, or triggers one."""

    cmd: Literal["record"]
    action: Literal["start", "stop", "trigger"]
    reason: Text = ""


class StopRequest(_Request):
    """Ends the run, as Ctrl-C does."""

    cmd: Literal["stop"]


Request = Annotated[
    StatusRequest | FeaturesRequest | SetRequest | TriggerRequest | EngineRequest | RecordRequest | StopRequest,
    Field(discriminator="cmd"),
]
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)


def parse_request(data: bytes) -> Request:
    """Reads a request. Raises UserError with one sentence."""
    try:
        return _REQUEST.validate_json(data, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        raise UserError(f"no command of isp-stream: {place + ': ' if place else ''}{first['msg'].lower()}") from error
    except (ValueError, RecursionError) as error:
        raise UserError("no command of isp-stream: it is no JSON object") from error
