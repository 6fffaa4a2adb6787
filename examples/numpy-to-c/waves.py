#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compute the waves of two sources, each step in the memory where the receiver reads it.

    python3 waves.py 'memfd name=waves capacity=4' [STEPS]
"""

from __future__ import annotations

import sys

import ferry
import numpy as np

SHAPE = (480, 640)
#: In cells, row and column.
SOURCES = ((240, 160), (240, 480))
#: In cells.
WAVELENGTH = 80
#: Steps.
PERIOD = 40


def phases_of_sources() -> list[np.ndarray]:
    """Return for each source how far its waves have turned at each cell, in radians."""
    row, column = np.indices(SHAPE)
    return [
        (2 * np.pi / WAVELENGTH * np.hypot(row - at_row, column - at_column)).astype(np.float32)
        for at_row, at_column in SOURCES
    ]


def compute(step: int, phases: list[np.ndarray], scratch: np.ndarray, out: np.ndarray) -> None:
    """Write the height of the water at a step to `out`."""
    turned = np.float32(2 * np.pi * step / PERIOD)
    out[...] = 0
    for phase in phases:
        np.subtract(phase, turned, out=scratch)
        np.sin(scratch, out=scratch)
        out += scratch


def send_steps(channel: ferry.Channel, n_steps: int) -> None:
    """Compute and send each step."""
    phases = phases_of_sources()
    scratch = np.empty(SHAPE, np.float32)
    for step in range(n_steps):
        heights = channel.loan(SHAPE, np.float32)
        compute(step, phases, scratch, out=heights)
        # From here on the memory is the receiver's.
        channel.send(heights)


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(f"Usage: {sys.argv[0]} DESCRIPTION [STEPS]", file=sys.stderr)
        return 2
    try:
        with ferry.Channel(sys.argv[1], "sender") as channel:
            send_steps(channel, int(sys.argv[2]) if len(sys.argv) > 2 else 100)
            channel.end_of_stream()
            # The channel lives as long as somebody has it open, and its messages with it.
            channel.flush()
    except (ferry.FerryError, OSError, ValueError) as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
