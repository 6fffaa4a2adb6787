#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run examples/photo-pipeline on photographs made for it, and hold it to what it finds out about them.

    photo-pipeline.py FOLDER

FOLDER is where to work. Skipped where Pillow, rich or Matplotlib is missing.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ferry
import numpy as np

SKIPPED = 77  # to Meson
TIMEOUT = 60  # seconds

try:
    # Of the example, whose folder is in PYTHONPATH.
    import photos
    import pipeline
    from PIL import Image, ImageFilter
except ModuleNotFoundError as missing:
    if missing.name not in ("PIL", "rich", "rich.console"):
        raise
    print(missing)
    sys.exit(SKIPPED)
if importlib.util.find_spec("matplotlib") is None:
    print("Matplotlib is missing")
    sys.exit(SKIPPED)


def make_photographs(folder: Path) -> None:
    """Noise in green, the same out of focus, plain red; what is no photograph; what was cut off."""
    noise = np.zeros((240, 320, 3), np.uint8)
    noise[..., 1] = np.random.default_rng(1).integers(0, 256, noise.shape[:2])
    sharp = Image.fromarray(noise)
    sharp.save(folder / "sharp.png")
    sharp.filter(ImageFilter.GaussianBlur(2)).save(folder / "blurred.png")
    Image.new("RGB", (320, 240), (200, 0, 0)).save(folder / "plain.png")
    Image.new("RGB", (16, 16)).save(folder / "icon.png")
    (folder / "broken.png").write_bytes((folder / "sharp.png").read_bytes()[:20000])
    (folder / "text.jpg").write_text("not a photograph")


def check_program(folder: Path, output: Path) -> None:
    """The program as a user runs it."""
    command = [sys.executable, photos.__file__, folder, "--output", output, "--frames", "48"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    printed = completed.stdout + completed.stderr
    assert completed.returncode == 0, printed
    assert "4 photographs, each decoded 2 times" in printed, printed
    assert printed.count("skipped ") == 1 and "broken.png" in printed, printed
    assert "\n36 frames, " in printed, printed
    assert "All results are the same" in printed, printed
    sheets = []
    for name in ("ferry", "multiprocessing"):
        with Image.open(output / name / "contact-sheet.png") as sheet:
            sheets.append(sheet.tobytes())
        page = (output / name / "index.html").read_text(encoding="utf-8")
        assert page.count("<figure>") == 3, page
    assert sheets[0] == sheets[1]
    with Image.open(output / "throughput.png") as plot:
        assert min(plot.size) > 100


def check_analysis(folder: Path, output: Path) -> pipeline.Result:
    """What the analysis says about the photographs, and what the runs are compared by."""
    sharp, blurred, plain = (
        pipeline.analyse(pipeline.decode(str(folder / f"{name}.png")), True) for name in ("sharp", "blurred", "plain")
    )
    assert sharp["sharpness"] > 10 * blurred["sharpness"] > 0
    assert plain["sharpness"] == 0
    assert list(plain["mean"]) == [200, 0, 0]
    assert plain["histogram"][(200 >> 4) << 8] == 60 * 80

    result = pipeline.run(ferry.Queue, [str(folder / "sharp.png")], output)
    again = pipeline.run(ferry.Queue, [str(folder / "sharp.png")], output, n_workers=1)
    other = pipeline.run(ferry.Queue, [str(folder / "blurred.png")], output)
    assert not photos.differences({"one": result, "another": again})
    assert photos.differences({"one": result, "another": other})
    return result


def check_failures(folder: Path, output: Path, result: pipeline.Result) -> None:
    """Runs that go wrong, and runs that don't agree, are told."""
    fewer = dataclasses.replace(result, timeline=result.timeline[1:])
    assert photos.differences({"one": result, "another": fewer})

    def fail(*_: Any) -> None:
        raise ArithmeticError("this is part of the test")

    analyse, pipeline.analyse = pipeline.analyse, fail
    try:
        pipeline.run(ferry.Queue, [str(folder / "sharp.png")], output)
    except RuntimeError:
        pass
    else:
        raise AssertionError("a worker failed, and nobody was told")
    finally:
        pipeline.analyse = analyse


with tempfile.TemporaryDirectory(dir=sys.argv[1], prefix="photo-pipeline-") as scratch:
    photographs, written = Path(scratch, "photographs"), Path(scratch, "output")
    photographs.mkdir()
    written.mkdir()
    make_photographs(photographs)
    check_program(photographs, written)
    check_failures(photographs, written, check_analysis(photographs, written))
