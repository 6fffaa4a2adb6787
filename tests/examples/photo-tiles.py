#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run examples/tiles on a photograph made for it, and compare with the filter applied to the whole.

    photo-tiles.py FOLDER

FOLDER is where to work. Skipped where Pillow is missing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SKIPPED = 77  # to Meson
TIMEOUT = 60  # seconds

try:
    # Of the example, whose folder is in PYTHONPATH.
    import bilateral
    import tiles
    from PIL import Image
except ModuleNotFoundError as missing:
    if missing.name != "PIL":
        raise
    print(missing)
    sys.exit(SKIPPED)

#: Neither is a multiple of the tiles' sizes.
HEIGHT, WIDTH = 307, 411


def make_photograph() -> np.ndarray:
    """Return a noisy picture: dark on the left, bright on the right, with a smooth gradient in each half."""
    picture = np.empty((HEIGHT, WIDTH, 3))
    picture[:] = np.linspace(40, 60, HEIGHT)[:, None, None]
    picture[:, WIDTH // 2 :] += 120
    picture += np.random.default_rng(1).normal(0, 6, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def check_filter(before: np.ndarray, after: np.ndarray) -> None:
    """It does what the README says: noise goes, edges stay."""
    assert after.shape == before.shape and after.dtype == np.uint8
    for half in (slice(20, WIDTH // 2 - 20), slice(WIDTH // 2 + 20, WIDTH - 20)):
        rows_before, rows_after = (np.diff(picture[:, half].astype(float), axis=1).std() for picture in (before, after))
        assert rows_after < 0.4 * rows_before, (rows_before, rows_after)
    step = after[:, WIDTH // 2].astype(float).mean() - after[:, WIDTH // 2 - 1].astype(float).mean()
    assert 115 < step < 125, step


def check_one_pixel(before: np.ndarray, after: np.ndarray) -> None:
    """One pixel by the formula, in Python's own numbers."""
    y, x, radius = 100, 150, bilateral.RADIUS
    brightness = before.astype(int) @ np.array([77, 150, 29]) >> 8
    total, summed = 0.0, np.zeros(3)
    for v in range(y - radius, y + radius + 1):
        for u in range(x - radius, x + radius + 1):
            near = ((v - y) ** 2 + (u - x) ** 2) / (2 * bilateral.SPREAD**2)
            alike = (brightness[v, u] - brightness[y, x]) ** 2 / (2 * bilateral.TOLERANCE**2)
            weight = np.exp(-near - alike)
            total += weight
            summed += weight * before[v, u]
    assert np.abs(summed / total - after[y, x]).max() <= 0.51, (summed / total, after[y, x])


def check_tiles(before: np.ndarray, whole: np.ndarray) -> None:
    """In tiles of any size it is the same; without overlap it would not be."""
    for size in (64, 100, 307, 1000):
        assert np.array_equal(tiles.filter_in_tiles(before, size, 2), whole), size
    small = before[:40, :30]
    assert np.array_equal(tiles.filter_in_tiles(small, 7, 2), tiles.filter_whole(small))

    seams = np.empty_like(before)
    for place, _ in tiles.cut(before, 64):
        seams[place] = tiles.filter_whole(before[place])
    differs = (seams != whole).any(axis=2)
    assert differs[60:68].mean() > 0.5, "tiles without their neighbours should show"
    assert not differs[10:50, 10:50].any()


def check_program(folder: Path, before: np.ndarray, whole: np.ndarray) -> None:
    """The program as a user runs it."""
    Image.fromarray(before).save(folder / "photograph.png")
    command = [sys.executable, tiles.__file__, folder / "photograph.png", "--size", "90", "--check"]
    completed = subprocess.run(
        [*command, "--output", folder / "out"], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    printed = completed.stdout + completed.stderr
    assert completed.returncode == 0, printed
    assert "411 x 307 pixels in 20 tiles" in printed and "every pixel is the same" in printed, printed
    with Image.open(folder / "out/after.png") as written:
        assert np.array_equal(np.asarray(written), whole)
    with Image.open(folder / "out/before-after.png") as sheet:
        assert sheet.width == 2 * tiles.ZOOM * tiles.DETAIL + tiles.GAP
        detail = np.asarray(sheet)[-tiles.ZOOM * tiles.DETAIL :: tiles.ZOOM]
        place = tiles.busiest(before, whole)
        assert np.array_equal(detail[:, : tiles.ZOOM * tiles.DETAIL : tiles.ZOOM], before[place])
        assert np.array_equal(detail[:, -tiles.ZOOM * tiles.DETAIL :: tiles.ZOOM], whole[place])

    (folder / "text.jpg").write_text("not a photograph")
    command = [sys.executable, tiles.__file__, folder / "text.jpg", "--output", folder / "none"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert completed.returncode == 1 and "text.jpg" in completed.stderr, completed.stderr
    assert not (folder / "none").exists()


def main() -> int:
    before = make_photograph()
    whole = tiles.filter_whole(before)
    check_filter(before, whole)
    check_one_pixel(before, whole)
    check_tiles(before, whole)
    with tempfile.TemporaryDirectory(prefix="tiles-", dir=sys.argv[1]) as folder:
        check_program(Path(folder), before, whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
