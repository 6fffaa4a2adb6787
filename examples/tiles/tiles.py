#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Filter a photograph in tiles, in parallel, without seams."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# The processes are the parallelism; threads of a BLAS would only get in their way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ferry
import numpy as np
from bilateral import RADIUS, bilateral
from PIL import Image, ImageDraw

#: Of the detail that is shown before and after, in pixels, and how many times as large it is shown.
DETAIL = 200
ZOOM = 3
#: What separates the two, in pixels.
GAP = 12

Place = tuple[slice, slice]


def cut(photograph: np.ndarray, size: int, overlap: int = RADIUS) -> Iterator[tuple[Place, np.ndarray]]:
    """Yield each tile's place, and the tile with `overlap` pixels of its neighbours around it.

    At the photograph's own edges the outermost pixels are repeated.
    """
    padded = np.pad(photograph, ((overlap, overlap), (overlap, overlap), (0, 0)), mode="edge")
    height, width = photograph.shape[:2]
    for y in range(0, height, size):
        for x in range(0, width, size):
            place = slice(y, min(y + size, height)), slice(x, min(x + size, width))
            yield place, padded[y : place[0].stop + 2 * overlap, x : place[1].stop + 2 * overlap]


def filter_tile(place: Place, tile: np.ndarray) -> tuple[Place, np.ndarray]:
    """Filter one tile; this is what the workers do."""
    return place, bilateral(tile)


def filter_whole(photograph: np.ndarray) -> np.ndarray:
    """Filter all of it at once, in this process."""
    ((_, padded),) = cut(photograph, max(photograph.shape))
    return bilateral(padded)


def filter_in_tiles(
    photograph: np.ndarray, size: int, workers: int | None = None, progress: bool | str = False
) -> np.ndarray:
    """Filter it in tiles, in parallel."""
    result = np.empty_like(photograph)
    places, tiles = zip(*cut(photograph, size), strict=True)
    # Tiles are put into shared memory a few at a time, results come back there, in order.
    for place, tile in ferry.imap(filter_tile, places, tiles, workers=workers, progress=progress):
        result[place] = tile
    return result


def busiest(before: np.ndarray, after: np.ndarray) -> Place:
    """Return where the filter did most."""
    changed = np.abs(before.astype(np.int16) - after).sum(axis=2)
    height, width = (min(DETAIL, length) for length in changed.shape)
    places = [
        (slice(y, y + height), slice(x, x + width))
        for y in range(0, changed.shape[0] - height + 1, height)
        for x in range(0, changed.shape[1] - width + 1, width)
    ]
    return max(places, key=lambda place: changed[place].sum())


def before_and_after(before: np.ndarray, after: np.ndarray) -> Image.Image:
    """Return a picture: the photograph, its left half as it was and its right half filtered, and below it a detail."""
    place = busiest(before, after)
    details = [
        Image.fromarray(picture[place]).resize(
            ((place[1].stop - place[1].start) * ZOOM, (place[0].stop - place[0].start) * ZOOM), Image.Resampling.NEAREST
        )
        for picture in (before, after)
    ]
    width, height = 2 * details[0].width + GAP, details[0].height
    both = before.copy()
    middle = before.shape[1] // 2
    both[:, middle:] = after[:, middle:]
    photograph = Image.fromarray(both)
    photograph = photograph.resize((width, max(round(photograph.height * width / photograph.width), 1)))
    draw = ImageDraw.Draw(photograph)
    draw.line([(width / 2, 0), (width / 2, photograph.height)], "white", 2)
    sheet = Image.new("RGB", (width, photograph.height + GAP + height), "white")
    sheet.paste(photograph, (0, 0))
    sheet.paste(details[0], (0, photograph.height + GAP))
    sheet.paste(details[1], (details[0].width + GAP, photograph.height + GAP))
    return sheet


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photograph", type=Path, help="any picture that Pillow reads")
    parser.add_argument("--output", type=Path, default=Path("tiles"), help="folder for what is written")
    parser.add_argument("--size", type=int, default=256, help="of a tile, in pixels (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes (as many as there are CPUs)")
    parser.add_argument("--check", action="store_true", help="filter it in this process as well, and compare")
    arguments = parser.parse_args()
    if arguments.size < 1 or (arguments.workers is not None and arguments.workers < 1):
        parser.error("size and workers must be positive")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    try:
        with Image.open(arguments.photograph) as image:
            before = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        print(f"{sys.argv[0]}: {arguments.photograph}: {error}", file=sys.stderr)
        return 1
    n_tiles = -(-before.shape[0] // arguments.size) * -(-before.shape[1] // arguments.size)

    began = time.perf_counter()
    after = filter_in_tiles(before, arguments.size, arguments.workers, progress="tiles")
    parallel = time.perf_counter() - began
    print(f"{before.shape[1]} x {before.shape[0]} pixels in {n_tiles} tiles: {parallel:.2f} s")

    if arguments.check:
        began = time.perf_counter()
        whole = filter_whole(before)
        alone = time.perf_counter() - began
        if not np.array_equal(whole, after):
            print(f"{np.count_nonzero((whole != after).any(axis=2))} pixels differ from the whole", file=sys.stderr)
            return 1
        print(f"at once in one process: {alone:.2f} s, {alone / parallel:.2f} times as long; every pixel is the same")

    arguments.output.mkdir(parents=True, exist_ok=True)
    Image.fromarray(after).save(arguments.output / "after.png")
    before_and_after(before, after).save(arguments.output / "before-after.png")
    print(f"written: {arguments.output / 'after.png'}, {arguments.output / 'before-after.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
