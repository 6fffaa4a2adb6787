#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watch the pictures of camera.c and follow the ball in them.

    python3 watch.py 'memfd name=camera capacity=4' [EVERY]

Each picture is a NumPy array in the memory in which the camera drew it. What is found is
printed for one picture of EVERY (default: 30), and what it took at the end.
"""

from __future__ import annotations

import sys
import time

import ferry
import numpy as np

# The ball is the only thing that is this red.
RED = 200
# Every fourth pixel of every fourth row is enough to find it.
STEP = 4


def mapping_of(array: np.ndarray) -> str:
    """Return what is mapped where the array's elements are, as the kernel names it."""
    address = array.ctypes.data
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            begin, end = (int(number, 16) for number in fields[0].split("-"))
            if begin <= address < end:
                return fields[5].strip() if len(fields) > 5 else "private memory"
    raise ValueError(f"nothing is mapped at {address:#x}")


def find_ball(picture: np.ndarray) -> tuple[float, float]:
    """Return the centre of the ball in pixels, x and y."""
    y, x = np.nonzero(picture[::STEP, ::STEP, 0] > RED)
    if len(x) == 0:
        raise ValueError("there is no ball in the picture")
    return STEP * float(x.mean()), STEP * float(y.mean())


def watch(channel: ferry.Channel, every: int) -> None:
    """Look at all pictures until the camera ends its stream."""
    n_pictures = size = 0
    latencies = []
    began = 0.0
    while True:
        try:
            message = channel.receive_buffer()
        except EOFError:
            break
        latencies.append(time.monotonic() - message.timestamp / 1e6)
        picture = channel.decode(message)
        if n_pictures == 0:
            began = time.perf_counter()
            print(f"{picture.shape} {picture.dtype}, own data: {picture.flags.owndata}, in {mapping_of(picture)}")
        x, y = find_ball(picture)
        if message.sequence % every == 0:
            print(f"picture {message.sequence}: ball at {x:.1f}, {y:.1f}", flush=True)
        n_pictures += 1
        size = picture.nbytes

    if n_pictures > 1:
        # From the first to the last.
        rate = (n_pictures - 1) / (time.perf_counter() - began)
        print(
            f"{n_pictures} pictures, {rate:.1f}/s, {rate * size / 1e6:.0f} MB/s; "
            f"median {1e3 * np.median(latencies):.2f} ms from the start of drawing to here"
        )


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(f"Usage: {sys.argv[0]} DESCRIPTION [EVERY]", file=sys.stderr)
        return 2
    try:
        with ferry.Channel(sys.argv[1], "receiver") as channel:
            watch(channel, int(sys.argv[2]) if len(sys.argv) > 2 else 30)
    except (ferry.FerryError, OSError, ValueError) as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
