#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pass arrays from C to NumPy and from NumPy to C, and compare what came out.

    arrays.py TRANSPORT CAMERA METER

CAMERA and METER are the programs of examples/c-camera-to-numpy and examples/numpy-to-c.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

TIMEOUT = 40  # seconds
N_PICTURES = 120
N_STEPS = 30
# Pixels: the ball is found on every fourth.
TOLERANCE = 4

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRANSPORT, CAMERA, METER = sys.argv[1:4]
#: How the kernel names the memory of a transport.
MEMORY = {"memfd": "/memfd:", "posix-shm": "/dev/shm/"}[TRANSPORT]


def pass_on(sender: list[str | Path], receiver: list[str | Path]) -> str:
    """Run both, and return what the receiver printed."""
    with subprocess.Popen(sender) as sending:
        try:
            received = subprocess.run(receiver, check=True, capture_output=True, text=True, timeout=TIMEOUT)
            assert sending.wait(TIMEOUT) == 0, f"{sender[0]} failed"
        finally:
            sending.kill()
    return received.stdout


def from_c() -> None:
    """The pictures of the camera."""
    channel = f"{TRANSPORT} name=camera-{os.getpid()} capacity=4"
    output = pass_on(
        [CAMERA, f"{channel} ! numpy", str(N_PICTURES), "0"],
        [sys.executable, EXAMPLES / "c-camera-to-numpy/watch.py", channel, "10"],
    )
    first = output.splitlines()[0]
    assert first.startswith(f"(720, 1280, 3) uint8, own data: False, in {MEMORY}"), first
    balls = re.findall(r"^picture (\d+): ball at ([\d.]+), ([\d.]+)$", output, re.MULTILINE)
    assert [int(number) for number, _, _ in balls] == list(range(0, N_PICTURES, 10)), output
    for number, x, y in balls:
        expected_x = 640 + 480 * math.sin(2 * math.pi * int(number) / 240)
        expected_y = 360 + 240 * math.sin(2 * math.pi * int(number) / 160)
        distance = math.hypot(float(x) - expected_x, float(y) - expected_y)
        assert distance < TOLERANCE, f"picture {number}: the ball is {distance:.1f} pixels from where it was drawn"
    assert f"\n{N_PICTURES} pictures, " in output, output


def to_c() -> None:
    """The waves, computed here once more."""
    script = EXAMPLES / "numpy-to-c/waves.py"
    channel = f"{TRANSPORT} name=waves-{os.getpid()} capacity=4"
    output = pass_on([sys.executable, script, channel, str(N_STEPS)], [METER, f"{channel} ! numpy"])

    first, output = output.split("\n", 1)
    assert first.startswith(f"in {MEMORY}"), first

    spec = importlib.util.spec_from_file_location("waves", script)
    assert spec is not None and spec.loader is not None
    waves = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(waves)
    phases = waves.phases_of_sources()
    scratch, heights = np.empty((2, *waves.SHAPE), np.float32)
    measured = re.findall(r"^array (\d+), 480 x 640: (\S+) to (\S+), mean (\S+)$", output, re.MULTILINE)
    assert len(measured) == N_STEPS, output
    for step, numbers in enumerate(measured):
        waves.compute(step, phases, scratch, heights)
        expected = [step, heights.min(), heights.max(), heights.mean(dtype=np.float64)]
        assert np.allclose([float(number) for number in numbers], expected, atol=1e-4), f"{numbers}, not {expected}"
    picture = output.splitlines()[N_STEPS:]
    assert len(picture) == 24 and all(len(line) == 64 for line in picture), output


from_c()
to_c()
