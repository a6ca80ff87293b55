"""A camera's features: read and set by name, with errors that say what would be possible."""

from __future__ import annotations

import difflib
import functools
import math
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from ...engines.errors import UserError
from .discovery import plain_text
from .simcam import FAULTS_ONCE

Scalar = bool | int | float | str
P = ParamSpec("P")
R = TypeVar("R")

#: Older names of SFNC features that cameras still use.
OLD_NAMES = {
    "AcquisitionFrameRate": ("AcquisitionFrameRateAbs",),
    "ExposureTime": ("ExposureTimeAbs",),
    "AcquisitionFrameRateEnable": ("AcquisitionFrameRateEnabled",),
    "AcquisitionResultingFrameRate": ("ResultingFrameRate", "ResultingFrameRateAbs"),
    "PtpStatus": ("GevIEEE1588Status",),
}


class CameraUnreachable(Exception):
    """The camera does not answer: a register could not be read or written."""


def _alone(method: Callable[Concatenate[Features, P], R]) -> Callable[Concatenate[Features, P], R]:
    @functools.wraps(method)
    def locked(self: Features, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return method(self, *args, **kwargs)

    return locked


class Features:
    """The features of one camera. `serial` names it in errors.

    `lock` is held while nodes are used, and whoever attaches chunk data to them holds it too. The binding enters GenApi
    with the GIL held, GenApi takes the lock of its nodes and comes back to Python for the camera's registers: two
    threads in there would wait for each other for ever.
    """

    def __init__(self, node_map: Any, serial: str) -> None:
        from genicam import genapi, gentl

        self._map = node_map
        self.serial = serial
        self.lock = threading.RLock()
        self._genapi = genapi
        self._errors = (genapi.GenericException, gentl.GenericException)

    @_alone
    def node(self, name: str) -> Any | None:
        """The binding's node of this name, or of an older name of the same feature; None where there is none."""
        for candidate in (name, *OLD_NAMES.get(name, ())):
            try:
                return self._map.get_node(candidate)
            except self._errors:
                continue
        return None

    @_alone
    def readable(self, name: str) -> bool:
        """Whether the feature is there and can be read now."""
        return self._mode(self.node(name)) in ("RO", "RW")

    @_alone
    def writable(self, name: str) -> bool:
        """Whether the feature is there and can be set now."""
        return self._mode(self.node(name)) in ("WO", "RW")

    @_alone
    def entries(self, name: str) -> tuple[str, ...]:
        """The entries of an enumeration; empty where it is none, or not there."""
        node = self.node(name)
        return tuple(node.symbolics) if isinstance(node, self._genapi.IEnumeration) else ()

    @_alone
    def read(self, name: str, default: Any = None, fresh: bool = False) -> Any:
        """The feature's value, or `default` where it cannot be read. `fresh` asks the camera, not a cache."""
        node = self.node(name)
        if self._mode(node) not in ("RO", "RW") or node is None:
            return default
        try:
            return node.get_value(False, True) if fresh else node.value
        except (*self._errors, AttributeError):
            return default

    @_alone
    def probe(self) -> None:
        """Asks the camera for a register. Raises CameraUnreachable when it does not answer."""
        node = self.node("Width")
        try:
            node.get_value(False, True)  # type: ignore[union-attr]  # every camera has a Width
        except (*self._errors, AttributeError) as error:
            raise CameraUnreachable(plain_text(error)) from error

    @_alone
    def set(self, name: str, value: Scalar) -> Any:
        """Sets a feature and returns its value read back; a command is executed.

        Raises UserError that names the camera, the feature and what would be possible.
        """
        node = self._settable(name)
        if isinstance(node, self._genapi.ICommand):
            return self._execute(node, name)
        converted = self._convert(node, name, value)
        try:
            node.value = converted
        except self._errors as error:
            raise UserError(f"camera {self.serial}: {name} {converted} was refused: {plain_text(error)}") from error
        try:
            return node.value
        except self._errors:  # write-only, or the setting made the camera go away
            return converted

    @_alone
    def check(self, name: str, value: Scalar | None) -> None:
        """Whether `set` would send `value` to the camera now; None asks only whether the feature is there.

        Raises UserError as `set` does.
        """
        if value is None:
            self._there(name)
        elif not isinstance(node := self._settable(name), self._genapi.ICommand):
            self._convert(node, name, value)

    @_alone
    def describe(self, name: str) -> dict[str, Any]:
        """What a feature is set to and can be set to, as JSON: name, value, writable, min, max, inc, unit, entries.

        Only name and `writable` (false) of one that is not there; the others as far as they are known.
        """
        node: Any = self.node(name)
        api = self._genapi
        found: dict[str, Any] = {"name": name, "writable": self._mode(node) in ("WO", "RW")}
        if (value := self.read(name)) is not None:
            found["value"] = value
        try:
            if isinstance(node, api.IEnumeration):
                found["entries"] = list(node.symbolics)
            elif isinstance(node, (api.IInteger, api.IFloat)):
                found |= {"min": node.min, "max": node.max, "unit": str(node.unit)}
                if isinstance(node, api.IInteger):
                    found["inc"] = node.inc
        except self._errors:
            pass
        # Cameras tell infinity where there is no limit, for which JSON has no number.
        return {key: value for key, value in found.items() if not isinstance(value, float) or math.isfinite(value)}

    @_alone
    def lasts(self, name: str) -> bool:
        """Whether the feature is a setting; not, where it makes something happen once."""
        return name not in FAULTS_ONCE and not isinstance(self.node(name), self._genapi.ICommand)

    def set_if_there(self, name: str, value: Scalar) -> bool:
        """Sets a feature that not every camera has; whether it could be set."""
        if not self.writable(name):
            return False
        try:
            self.set(name, value)
        except UserError:
            return False
        return True

    def _there(self, name: str) -> Any:
        node = self.node(name)
        if node is None:
            raise UserError(f"camera {self.serial} has no feature {name}{self._similar(name)}")
        return node

    def _settable(self, name: str) -> Any:
        node = self._there(name)
        if self._mode(node) not in ("WO", "RW"):
            state = {"RO": "can only be read", "NA": "is not available now"}.get(self._mode(node), "is not implemented")
            raise UserError(f"camera {self.serial}: {name} cannot be set, it {state} (another feature may lock it)")
        return node

    def _execute(self, node: Any, name: str) -> bool:
        try:
            node.execute()
        except self._errors as error:
            raise UserError(f"camera {self.serial}: {name} failed: {plain_text(error)}") from error
        return True

    def _mode(self, node: Any) -> str:
        if node is None:
            return "NI"
        try:
            return self._genapi.EAccessMode(node.get_access_mode()).name
        except (*self._errors, ValueError):
            return "NA"

    def _convert(self, node: Any, name: str, value: Scalar) -> Any:
        """`value` as the node's type; refuses what is out of its range."""
        api = self._genapi
        try:
            if isinstance(node, api.IEnumeration):
                # YAML reads a bare On as true.
                text = {True: "On", False: "Off"}[value] if isinstance(value, bool) else str(value)
                if text not in node.symbolics:
                    raise ValueError(text)
                return text
            if isinstance(node, api.IBoolean):
                return _to_bool(value)
            if isinstance(node, api.IInteger):
                number = int(value, 0) if isinstance(value, str) else int(value)
                low, high, step = node.min, node.max, max(1, node.inc)
                if number != float(value if not isinstance(value, str) else number) or not low <= number <= high:
                    raise ValueError(value)
                if (number - low) % step:
                    raise ValueError(value)
                return number
            if isinstance(node, api.IFloat):
                real = float(value)
                if not node.min <= real <= node.max:
                    raise ValueError(value)
                return real
            if isinstance(node, api.IString):
                return str(value)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"camera {self.serial}: {name} {value} is not possible: {self._possible(node)}") from error
        except self._errors as error:
            raise UserError(f"camera {self.serial}: {name} cannot be set: {plain_text(error)}") from error
        raise UserError(f"camera {self.serial}: {name} is no feature that can be set by value")

    def _possible(self, node: Any) -> str:
        """What a node can be set to, in words; empty where it does not tell."""
        api = self._genapi
        try:
            if isinstance(node, api.IEnumeration):
                return f"choose one of {', '.join(node.symbolics)}"
            if isinstance(node, api.IBoolean):
                return "true or false"
            if isinstance(node, api.IInteger):
                return f"{node.min} to {node.max}" + (f" in steps of {node.inc}" if node.inc > 1 else "")
            if isinstance(node, api.IFloat):
                return f"{node.min:g} to {node.max:g} {node.unit}".rstrip()
        except self._errors:
            pass
        return ""

    def _similar(self, name: str) -> str:
        try:
            names = [node.node.name for node in self._map.nodes if node.node.is_feature()]
        except (*self._errors, AttributeError):
            return ""
        close = difflib.get_close_matches(name, names, 1)
        return f"; did you mean {close[0]}?" if close else ""


def _to_bool(value: Scalar) -> bool:
    words = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
    return words[str(value).strip().lower()]
