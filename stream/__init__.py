"""The live pipeline, and the door for other programs: `from ispeed.stream import Subscriber`.

Names are loaded when they are first asked for, so that a subscriber loads numpy and zmq and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engines.lazy import lazily

if TYPE_CHECKING:
    from .control import Control, ControlError
    from .endpoint import default_endpoint
    from .frame import LOSS_REASONS, FrameHeader
    from .publish import Publisher
    from .reader import Frame, FrameOverwritten, StreamError, StreamInfo, StreamTimeout
    from .ring import Ring
    from .subscribe import Subscriber
    from .synchronised import FrameSet, Synchronised

__all__ = [
    "LOSS_REASONS",
    "Control",
    "ControlError",
    "Frame",
    "FrameHeader",
    "FrameOverwritten",
    "FrameSet",
    "Publisher",
    "Ring",
    "StreamError",
    "StreamInfo",
    "StreamTimeout",
    "Subscriber",
    "Synchronised",
    "default_endpoint",
]

_HOMES = {
    "LOSS_REASONS": "frame",
    "Control": "control",
    "ControlError": "control",
    "Frame": "reader",
    "FrameHeader": "frame",
    "FrameOverwritten": "reader",
    "FrameSet": "synchronised",
    "Publisher": "publish",
    "Ring": "ring",
    "StreamError": "reader",
    "StreamInfo": "reader",
    "StreamTimeout": "reader",
    "Subscriber": "subscribe",
    "Synchronised": "synchronised",
    "default_endpoint": "endpoint",
}


__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
