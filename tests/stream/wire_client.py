"""Reads a stream with nothing of ours, from docs/wire.md alone: python wire_client.py ENDPOINT CAMERA FRAMES"""

import json
import mmap
import os
import struct
import sys

import numpy as np
import zmq

endpoint, camera, wanted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = zmq.Context()


def subscribe(kind: str) -> zmq.Socket:
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVTIMEO, 20000)
    socket.setsockopt(zmq.SUBSCRIBE, f"{kind}/{camera}".encode().ljust(8, b"\0"))
    socket.connect(endpoint)
    return socket


def map_ring(info: dict) -> mmap.mmap:
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert file.read().strip() == info["boot_id"], "the publisher is on another machine"
    path = info.get("ring_path") or f"/proc/{info['pid']}/fd/{info['ring_fd']}"
    fd = os.open(path, os.O_RDONLY)
    ring = mmap.mmap(fd, info["total"], mmap.MAP_SHARED, mmap.PROT_READ)
    magic, version, kind, slots, payload = struct.unpack_from("<8sIIQQ", ring)
    (stream_id,) = struct.unpack_from("<Q", ring, 80)
    assert (magic, version, kind, slots, payload) == (b"ISPRING1", 1, 2, info["slots"], info["payload"])
    assert stream_id == int(info["stream_id"], 16)
    return ring


infos, descriptors = subscribe("i"), subscribe("d")
info = json.loads(infos.recv()[8:])
assert info["version"] == 1
ring, got, lapped = map_ring(info), [], 0
while len(got) < wanted:
    message = descriptors.recv()
    assert len(message) == 8 + 256
    header = message[8:]
    magic, version, size, stream_id = struct.unpack_from("<4sHHQ", header, 0)
    assert (magic, version, size) == (b"ISPF", 1, 256)
    assert stream_id == int(info["stream_id"], 16), "the stream began anew"
    slot, _, generation, sequence, frame_id = struct.unpack_from("<IIQQQ", header, 24)
    width, height, stride = struct.unpack_from("<III", header, 104)
    exposure_us, gain_db = struct.unpack_from("<dd", header, 136)
    where = info["generations_offset"] + 8 * slot
    start = info["data_offset"] + slot * info["slot_stride"]
    pixels = np.frombuffer(ring[start : start + stride * height], np.uint8).reshape(height, stride)[:, : 3 * width]
    if struct.unpack_from("<Q", ring, where)[0] != generation:
        lapped += 1
        continue
    image = pixels.reshape(height, width, 3)
    got.append([sequence, frame_id, list(image.shape), int(image.min()), int(image.max()), exposure_us])
sys.stdout.write(json.dumps({"frames": got, "lapped": lapped}))
