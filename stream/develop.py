"""The develop stage: takes granted raw frames, runs the engine, writes sRGB and headers, gives the raw slots back.

Started as `python -m ispeed.stream.develop CHANNEL_FD`. Commands: `open` (find the engine), `prepare` (map the rings,
compile), `stop`. Frames are developed strictly in the order they were granted, so the counts of granted, developed and
failed frames are all that is needed to know which a dead develop process still held.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np

from ..engines import RawFormat, open_engine
from ..engines.engine import Engine
from ..engines.errors import UserError
from .channel import Channel, ChannelClosed
from .frame import FLAG_WHITE_BALANCE_GIVEN, FrameHeader, FrameRecord
from .ledger import read_losses
from .queues import GrantQueue, ReturnQueue
from .ring import Ring, Word
from .stage import answer_user_error, run_stage

_DEVELOPED, _PUBLISHED = int(Word.DEVELOPED), int(Word.PUBLISHED)
_ENGINE_ERROR, _BUSY_NS = int(Word.ENGINE_ERROR), int(Word.DEVELOP_BUSY_NS)


class Developer:
    """The loop between the two rings. One batch at a time; nothing is allocated per frame but small Python objects."""

    def __init__(self, engine: Engine, settings: dict[str, Any], fds: list[int]) -> None:
        raw_fd, srgb_fd, self._grant_event, self._return_event, self._done_event = fds
        # The raw ring too is mapped writable: some engines refuse read-only memory, and its queues are in it.
        self._raw, self._srgb = Ring.attach(raw_fd, writable=True), Ring.attach(srgb_fd, writable=True)
        self._engine, self._epoch = engine, settings["epoch"]
        self._words = self._raw.words
        self._grants, self._returns = GrantQueue(self._raw), ReturnQueue(self._raw)
        self._geometry = settings["geometry"]
        self._format = RawFormat.from_json(settings["format"])
        self._batch = engine.info.max_batch
        self._stream = (settings["stream_id"], self._geometry["camera"], engine.info.engine_id)
        self._params = np.full((self._batch, len(engine.info.inputs)), np.nan, np.float32)
        self._gains_given = settings["white_balance"] is not None
        self._columns = [_COLUMNS.get(name) for name in engine.info.inputs]
        self._realtime_offset = time.time_ns() - time.monotonic_ns()
        self._running = True
        engine.prepare(self._format, self._batch, self._raw, self._srgb)
        if self._words[_DEVELOPED]:
            last = FrameHeader.unpack(
                self._srgb.memory, self._srgb.header_offset((self._words[_DEVELOPED] - 1) % self._srgb.slots)
            )
            engine.resume((last.wb_r, last.wb_g, last.wb_b))

    def stop(self) -> None:
        """Makes `run` return after the batch in hand (called from the control thread)."""
        self._running = False
        os.eventfd_write(self._grant_event, 1)

    def run(self) -> None:
        """Develops until stopped. An engine's failure is counted for its frames and then raised."""
        while self._running:
            room = self._srgb.slots - 1 - (self._words[_DEVELOPED] - self._words[_PUBLISHED])
            if room <= 0:  # the publisher was descheduled for a whole ring: its frames must not be lapped
                time.sleep(0.0005)
                continue
            records = self._grants.peek(min(room, self._batch))
            if not records:
                os.eventfd_read(self._grant_event)
                continue
            try:
                self._develop(records)
            finally:
                self._give_back(records)

    def _develop(self, records: list[FrameRecord]) -> None:
        words, srgb, count = self._words, self._srgb, len(records)
        first = words[_DEVELOPED]
        slots = [(first + i) % srgb.slots for i in range(count)]
        for i, slot in enumerate(slots):
            srgb.begin_write(slot, first + i)
            for column, field in enumerate(self._columns):
                if field is not None:
                    self._params[i, column] = records[i][field]
        start_ns = time.monotonic_ns()
        try:
            ticket = self._engine.develop([r.slot for r in records], slots, self._params[:count])
            ticket.wait()
        except Exception:
            words[_ENGINE_ERROR] += count
            raise
        done_ns = time.monotonic_ns()
        losses, gains = read_losses(words), ticket.white_balance
        for i, record in enumerate(records):
            self._write_header(record, first + i, slots[i], start_ns, done_ns, gains[i], losses)
            srgb.end_write(slots[i], first + i)
        words[_DEVELOPED] = first + count
        words[_BUSY_NS] += done_ns - start_ns
        os.eventfd_write(self._done_event, 1)

    def _give_back(self, records: list[FrameRecord]) -> None:
        for record in records:
            self._returns.put(record.slot, self._epoch)
        self._grants.take(len(records))
        os.eventfd_write(self._return_event, 1)

    def _write_header(
        self,
        record: FrameRecord,
        sequence: int,
        slot: int,
        start_ns: int,
        done_ns: int,
        gains: np.ndarray,
        losses: tuple[int, ...],
    ) -> None:
        fmt, geometry = self._format, self._geometry
        stream_id, camera, engine_id = self._stream
        wb_r, wb_g, wb_b = gains.tolist()
        FrameHeader(
            stream_id=stream_id,
            camera=camera,
            flags=record.flags | (FLAG_WHITE_BALANCE_GIVEN if self._gains_given else 0),
            slot=slot,
            segment=record.segment,
            generation=2 * sequence + 2,
            sequence=sequence,
            frame_id=record.frame_id,
            device_timestamp=record.device_timestamp,
            grabbed_ns=record.grabbed_ns,
            develop_start_ns=start_ns,
            developed_ns=done_ns,
            realtime_offset_ns=self._realtime_offset,
            width=fmt.width,
            height=fmt.height,
            stride=fmt.width * 3,
            offset_x=geometry["offset_x"],
            offset_y=geometry["offset_y"],
            pixel_format=fmt.pfnc_code,
            engine_id=engine_id,
            exposure_us=record.exposure_us,
            gain_db=record.gain_db,
            wb_r=wb_r,
            wb_g=wb_g,
            wb_b=wb_b,
            black_level=fmt.black_level,
            white_level=fmt.white_level,
            lost_camera_gap=losses[0],
            lost_incomplete=losses[1],
            lost_no_free_buffer=losses[2],
            lost_superseded=losses[3],
            lost_engine_error=losses[4],
            lost_stage_died=losses[5],
            lost_stopped=losses[6],
        ).pack_into(self._srgb.memory, self._srgb.header_offset(slot))


#: Engine inputs that come with every frame: name -> field of FrameRecord. Others stay NaN, "not given".
_COLUMNS = {
    "exposure_us": FrameRecord._fields.index("exposure_us"),
    "gain_db": FrameRecord._fields.index("gain_db"),
}


def _open(settings: dict[str, Any]) -> Engine:
    white_balance = settings["white_balance"]
    return open_engine(
        settings["engine"],
        threads=settings["threads"],
        white_balance="auto" if white_balance is None else tuple(white_balance),
        colour_matrix=settings["colour_matrix"],
        defects=[tuple(xy) for xy in settings["defects"]],
    )


def _set_up(channel: Channel) -> Developer:
    """Answers `open` and `prepare`, in that order; a UserError is answered and the next command awaited."""
    engine: Engine | None = None
    config: dict[str, Any] = {}
    while True:
        got = channel.receive()
        if got is None:
            continue
        request, fds = got
        try:
            if request["cmd"] == "open":
                config = request["config"]
                engine = _open(config)
                channel.answer(request)
            elif request["cmd"] == "prepare" and engine is not None:
                developer = Developer(engine, {**config, **request}, fds)
                info = engine.info
                channel.answer(
                    request,
                    engine={
                        "name": info.name,
                        "backend": info.backend,
                        "precision": info.precision,
                        "engine_id": info.engine_id,
                        "weights_sha256": info.weights_sha256,
                    },
                    depth=info.max_batch * info.lanes + 1,
                )
                return developer
            else:
                raise ChannelClosed
        except UserError as error:
            answer_user_error(channel, request, error)


def _obey(channel: Channel, developer: Developer) -> None:
    """The control thread: `stop`, or the end of the main process."""
    try:
        while (got := channel.receive()) is None or got[0]["cmd"] != "stop":
            pass
    except ChannelClosed:
        pass
    developer.stop()


def _body(channel: Channel) -> None:
    developer = _set_up(channel)
    threading.Thread(target=_obey, args=(channel, developer), daemon=True).start()
    developer.run()


if __name__ == "__main__":
    raise SystemExit(run_stage("develop", _body))
