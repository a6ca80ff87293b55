"""What the grab stage needs of a camera, be it a device behind a GenTL producer or a recording."""

from __future__ import annotations

from typing import Any, Protocol

from ...engines.errors import UserError
from ..config import StreamConfig
from .settings import Geometry
from .sources import Source


class FeatureSet(Protocol):
    """A camera's features by their SFNC names; what a name means, and errors, are as in nodes.Features."""

    def read(self, name: str, default: Any = None, fresh: bool = False) -> Any:
        """The feature's value, or `default` where it cannot be read."""
        ...

    def describe(self, name: str) -> dict[str, Any]:
        """What a feature is set to and can be set to, as JSON: name, value, writable, min, max, inc, unit, entries."""
        ...

    def set(self, name: str, value: Any) -> Any:
        """Sets a feature and returns its value read back. Raises UserError."""
        ...

    def check(self, name: str, value: Any) -> None:
        """Whether `set` would take `value` now; None asks only whether the feature is there. Raises UserError."""
        ...

    def lasts(self, name: str) -> bool:
        """Whether the feature is a setting; not, where it makes something happen once."""
        ...

    def set_if_there(self, name: str, value: Any) -> bool:
        """Sets a feature that not every camera has; whether it could be set."""
        ...

    def probe(self) -> None:
        """Asks the camera whether it is there. Raises nodes.CameraUnreachable when it does not answer."""
        ...


class Camera(Protocol):
    """An opened camera that is set up as the config asks.

    Attributes:
        label: What it is called in sentences, such as "camera SIM0001".
        geometry: What frames it will deliver.
        features: What can be read and set.
        source: Where its frames come from.
    """

    label: str
    geometry: Geometry
    source: Source

    @property
    def features(self) -> FeatureSet: ...

    def may_be_silent(self) -> bool:
        """Whether no frame for a while is nothing odd: with a trigger, or where a recording has a pause."""
        ...

    def close(self) -> None:
        """Lets go of the camera. The source is released before. Raises the binding's exceptions where it is gone."""
        ...


def open_camera(config: StreamConfig, warnings: list[str]) -> Camera:
    """The camera or recording that `config` names, set up as it asks; what the user should know goes to `warnings`.

    Raises:
        UserError: There is none, it is in use, cannot be read, or refuses a setting.
    """
    if config.recording:
        from .replay import ReplayCamera

        return ReplayCamera(config, warnings)
    if config.cfa:
        raise UserError(f"--cfa is for recordings, and camera {config.camera} is none: choose its --pixel-format")
    from .live import LiveCamera

    return LiveCamera(config, warnings)
