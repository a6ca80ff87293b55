"""The develop stages of several cameras in one process: `python -m ispeed.stream.develop_host CHANNEL_FD`.

Each camera's stage is what it is in a process of its own (`develop.py`), in a thread, with a channel of its own that
comes as a descriptor with the command `host`. On a GPU they share one context, so that their work overlaps; on the
processor they share no more than the process. A stage that fails ends alone; what ends the process ends all of them.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback

from .channel import Channel, ChannelClosed
from .develop import body
from .stage import run_stage


def _serve(channel: Channel) -> None:
    try:
        body(channel)
    except ChannelClosed:
        pass
    except BaseException as error:  # as run_stage does for a process: one line, and the end of this stage
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        sys.stderr.write(f"isp-stream: the develop stage failed: {type(error).__name__}: {error} ({place})\n")
    finally:
        channel.shut()


def _main(channel: Channel) -> None:
    while True:
        got = channel.receive()
        if got is None:
            continue
        for fd in got[1]:
            threading.Thread(target=_serve, args=(Channel.from_fd(fd),), daemon=True).start()


if __name__ == "__main__":
    raise SystemExit(run_stage("develop", _main))
