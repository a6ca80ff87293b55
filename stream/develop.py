"""The develop stage: takes granted raw frames, runs the engine, writes sRGB and headers, gives the raw slots back.

Started as `python -m ispeed.stream.develop CHANNEL_FD`. Commands: `open` (find the engine), `prepare` (map the rings,
compile), `run`, `stop`. Several batches may be in flight in the engine, but frames are finished strictly in the order
they were granted, so the counts of granted, developed and failed frames are all that is needed to know which a dead
develop process still held.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np

from ..engines import RawFormat
from ..engines.engine import Engine, Ticket
from ..engines.errors import UserError
from ..engines.inputs import iso_of
from .channel import Channel, ChannelClosed, close_fds
from .develop_engine import open_as_set
from .frame import FLAG_WHITE_BALANCE_GIVEN, FrameHeader, FrameRecord
from .ledger import read_losses
from .queues import GrantQueue, ReturnQueue
from .ring import Ring, Word
from .stage import answer_user_error, run_stage

_log = logging.getLogger(__name__)
_DEVELOPED, _PUBLISHED = int(Word.DEVELOPED), int(Word.PUBLISHED)
_ENGINE_ERROR, _BUSY_NS = int(Word.ENGINE_ERROR), int(Word.DEVELOP_BUSY_NS)
_PUBLISHER_MS = 1  # how often to look whether a publisher that is a whole ring behind has gone on


class _Flight:
    """A batch that was handed to the engine, and what is needed to finish it."""

    __slots__ = ("first", "records", "slots", "start_ns", "ticket")

    def __init__(self, records: list[FrameRecord], first: int, slots: list[int], start_ns: int) -> None:
        self.records, self.first, self.slots, self.start_ns = records, first, slots, start_ns
        self.ticket: Ticket | None = None  # until the engine has taken it


class Developer:
    """The loop between the two rings: up to `lanes` batches in flight, finished in the order of their handing in.

    Nothing is allocated per frame but small Python objects. With nothing to do it sleeps: on grants, completions of the
    engine, or both where a lane is free. It takes over `fds`: of both rings, and three eventfds.

    Attributes:
        info: Of the engine that develops.
        lanes: Batches that may be in flight at once.
        batch: Most frames per batch.
    """

    def __init__(self, engine: Engine, settings: dict[str, Any], fds: list[int]) -> None:
        raw_fd, srgb_fd, self._grant_event, self._return_event, self._done_event = fds
        # The raw ring too is mapped writable: some engines refuse read-only memory, and its queues are in it.
        self._raw, self._srgb = Ring.attach(raw_fd, writable=True), Ring.attach(srgb_fd, writable=True)
        self._epoch = settings["epoch"]
        self._words = self._raw.words
        self._grants, self._returns = GrantQueue(self._raw), ReturnQueue(self._raw)
        self._geometry = settings["geometry"]
        self._format = RawFormat.from_json(settings["format"])
        self._gains_given = settings["white_balance"] is not None
        self._realtime_offset = time.time_ns() - time.monotonic_ns()
        self._running, self._closed, self._closing = True, False, threading.Lock()
        try:
            self._engine = engine = self._prepared(engine, settings)
        except BaseException:
            self._give_up_rings()
            raise
        self.info = info = engine.info  # only now: preparing may have settled how much is in flight
        self.lanes, self.batch = info.lanes, info.max_batch
        self._stream = (settings["stream_id"], self._geometry["camera"], info.engine_id)
        # One buffer per lane, because an engine may read its batch's until that is done.
        self._params = [np.full((self.batch, len(info.inputs)), np.nan, np.float32) for _ in range(self.lanes)]
        self._columns = [(k, _COLUMNS[name]) for k, name in enumerate(info.inputs) if name in _COLUMNS]
        self._iso = [(k, settings["base_iso"]) for k, name in enumerate(info.inputs) if name == "iso"]
        for k, name in enumerate(info.inputs):
            if name in _OF_THE_LENS and settings[name] is not None:
                for params in self._params:
                    params[:, k] = settings[name]
        self._flights: deque[_Flight] = deque()
        self._in_flight = 0  # frames of all flights
        self._batches = 0  # handed in so far
        self._busy_from_ns = 0  # since when the engine has been busy, as far as that is not counted yet
        self._completion_fd = engine.completion_fd
        self._watch_events()

    def _prepared(self, engine: Engine, settings: dict[str, Any]) -> Engine:
        """The engine, ready for the rings; the classic one where "auto" found a plan that cannot be made ready."""
        try:
            engine.prepare(self._format, engine.info.max_batch, self._raw, self._srgb)
            return engine
        except UserError as error:
            engine.close()
            if settings["engine"] != "auto" or engine.info.name == "classic":
                raise
            _log.warning("auto: not %s but the classic engine, because %s", engine.info.name, error)
        classic = open_as_set({**settings, "engine": "classic"})
        classic.prepare(self._format, classic.info.max_batch, self._raw, self._srgb)
        return classic

    def stop(self) -> None:
        """Makes `run` return after the batches in flight (called from the control thread)."""
        self._running = False
        with self._closing:
            if not self._closed:  # else the loop has just ended
                os.eventfd_write(self._grant_event, 1)

    def run(self) -> None:
        """Develops until stopped. An engine's failure is counted for every frame in flight and then raised."""
        self._resume()
        try:
            while self._running or self._flights:
                self._finish_what_is_done()
                if not (self._running and self._hand_in()):
                    self._wait()
        except Exception:
            self._give_up()
            raise

    def _resume(self) -> None:
        """The engine goes on with the white balance of the last frame that any develop process finished."""
        if done := self._words[_DEVELOPED]:
            last = FrameHeader.unpack(self._srgb.memory, self._srgb.header_offset((done - 1) % self._srgb.slots))
            self._engine.resume((last.wb_r, last.wb_g, last.wb_b))

    def close(self) -> None:
        """Ends the engine and gives up the rings and eventfds. Harmless when called twice."""
        self._engine.close()
        self._give_up_rings()

    def _give_up_rings(self) -> None:
        with self._closing:
            if not self._closed:
                self._closed = True
                del self._returns, self._grants  # their views would keep the memory
                self._raw.close()
                self._srgb.close()
                for fd in (self._grant_event, self._return_event, self._done_event):
                    os.close(fd)  # the process may go on, with the stages of other cameras

    def _watch_events(self) -> None:
        self._completions, self._anything = select.poll(), select.poll()
        self._anything.register(self._grant_event, select.POLLIN)
        if self._completion_fd is not None:
            self._completions.register(self._completion_fd, select.POLLIN)
            self._anything.register(self._completion_fd, select.POLLIN)

    def _room(self) -> int:
        """Frames that may be begun without lapping one that is not published yet."""
        words = self._words
        return self._srgb.slots - 1 - self._in_flight - (words[_DEVELOPED] - words[_PUBLISHED])

    def _wait(self) -> None:
        """Returns when something can have changed: a grant for a free lane, a batch that is done, or the publisher."""
        room = self._room() > 0
        if not self._flights:
            if not self._running:
                return
            if room:
                os.eventfd_read(self._grant_event)
            else:  # the publisher was descheduled for a whole ring: its frames must not be lapped
                time.sleep(_PUBLISHER_MS / 1e3)
            return
        free = self._running and len(self._flights) < self.lanes
        poll = self._anything if free and room else self._completions
        for fd, _ in poll.poll(_PUBLISHER_MS if free and not room else None):
            os.eventfd_read(fd)  # does not wait: nobody else reads it

    def _hand_in(self) -> bool:
        """Hands the oldest frames that wait to a free lane; whether there was anything to hand in, and a lane."""
        if len(self._flights) >= self.lanes or (room := self._room()) <= 0:
            return False
        records = self._grants.peek(min(room, self.batch), self._in_flight)
        if not records:
            return False
        srgb, count = self._srgb, len(records)
        first = self._words[_DEVELOPED] + self._in_flight
        slots = [(first + i) % srgb.slots for i in range(count)]
        params = self._params[self._batches % self.lanes]
        for i, slot in enumerate(slots):
            srgb.begin_write(slot, first + i)
            for column, field in self._columns:
                params[i, column] = records[i][field]
            for column, base_iso in self._iso:
                params[i, column] = iso_of(records[i].gain_db, base_iso)
        flight = _Flight(records, first, slots, time.monotonic_ns())
        if not self._flights:
            self._busy_from_ns = flight.start_ns
        self._flights.append(flight)
        self._in_flight += count
        self._batches += 1
        flight.ticket = self._engine.develop([r.slot for r in records], slots, params[:count])
        return True

    def _finish_what_is_done(self) -> None:
        """Finishes the oldest batches as far as they are done. Raises what went wrong with one."""
        flights = self._flights
        while flights:
            ticket = flights[0].ticket
            if ticket is None or not (self._completion_fd is None or ticket.done):
                return
            ticket.wait()
            self._finish(flights[0], ticket)

    def _finish(self, flight: _Flight, ticket: Ticket) -> None:
        words, srgb, count = self._words, self._srgb, len(flight.records)
        done_ns = time.monotonic_ns()
        losses, gains = read_losses(words), ticket.white_balance
        for i, record in enumerate(flight.records):
            sequence, slot = flight.first + i, flight.slots[i]
            self._write_header(record, sequence, slot, flight.start_ns, done_ns, gains[i], losses)
            srgb.end_write(slot, sequence)
        self._flights.popleft()
        self._in_flight -= count
        words[_DEVELOPED] = flight.first + count
        # Lanes overlap: what is counted is the time in which any of them was busy.
        words[_BUSY_NS] += done_ns - self._busy_from_ns
        self._busy_from_ns = done_ns
        os.eventfd_write(self._done_event, 1)
        self._give_back(flight.records)

    def _give_up(self) -> None:
        """Counts every frame in flight as failed and gives its slot back, in order."""
        self._words[_ENGINE_ERROR] += self._in_flight
        self._in_flight = 0
        while self._flights:
            self._give_back(self._flights.popleft().records)

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


#: Engine inputs that the config tells, because the lens of a machine-vision camera does not.
_OF_THE_LENS = ("f_number", "focal_length_mm")

#: Engine inputs that come with every frame: name -> field of FrameRecord. Others stay NaN, "not given".
_COLUMNS = {
    "exposure_us": FrameRecord._fields.index("exposure_us"),
    "gain_db": FrameRecord._fields.index("gain_db"),
}


def _set_up(channel: Channel) -> Developer:
    """Answers `open` and `prepare`, in that order; a UserError is answered and the next command awaited."""
    engine: Engine | None = None
    config: dict[str, Any] = {}
    while True:
        try:
            got = channel.receive()
        except ChannelClosed:
            if engine is not None:
                engine.close()
            raise
        if got is None:
            continue
        request, fds = got
        try:
            if request["cmd"] == "open":
                config = request["config"]
                engine = open_as_set(config)
                channel.answer(request)
            elif request["cmd"] == "prepare" and engine is not None:
                if config["engine"] == "auto":  # the format, which a plan must fit, is known only now
                    engine.close()
                    try:
                        engine = open_as_set(config, RawFormat.from_json(request["format"]))
                    except UserError:
                        close_fds(fds)
                        raise
                developer = Developer(engine, {**config, **request}, fds)
                try:
                    channel.answer(request, **_about(developer))
                    _await_turn(channel)
                except ChannelClosed:
                    developer.close()  # the process may go on, with the stages of other cameras
                    raise
                return developer
            else:
                close_fds(fds)
                raise ChannelClosed
        except UserError as error:
            answer_user_error(channel, request, error)


def _about(developer: Developer) -> dict[str, Any]:
    """What the main process is told of an engine that is ready."""
    info = developer.info
    engine = {name: getattr(info, name) for name in ("name", "backend", "precision", "engine_id", "weights_sha256")}
    return {"engine": engine, "depth": developer.batch * developer.lanes + 1, "lanes": developer.lanes}


def _await_turn(channel: Channel) -> None:
    """Waits until it is told to run: another process may still develop, or take its place. Raises ChannelClosed."""
    while (got := channel.receive()) is None or got[0]["cmd"] not in ("run", "stop"):
        pass
    if got[0]["cmd"] == "stop":
        raise ChannelClosed


def _obey(channel: Channel, developer: Developer, asked: list[dict[str, Any]]) -> None:
    """The control thread: `stop`, which is answered when the loop has ended, or the end of the main process."""
    try:
        while (got := channel.receive()) is None or got[0]["cmd"] != "stop":
            pass
        asked.append(got[0])
    except ChannelClosed:
        pass
    developer.stop()


def body(channel: Channel) -> None:
    """The stage, from its first command to its end. Raises what the engine raises."""
    developer = _set_up(channel)
    asked: list[dict[str, Any]] = []
    threading.Thread(target=_obey, args=(channel, developer, asked), daemon=True).start()
    try:
        developer.run()
    except Exception:
        with suppress(Exception):  # of an engine that has failed already: the first failure is the one to tell
            developer.close()
        raise
    if asked:
        with suppress(ChannelClosed):
            channel.answer(asked[0])
    developer.close()


if __name__ == "__main__":
    raise SystemExit(run_stage("develop", body))
