# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bilateral filter: noise goes, edges stay.

Each pixel becomes the mean of its neighbours, weighted by how near they are and how alike in
brightness (C. Tomasi and R. Manduchi, "Bilateral Filtering for Gray and Color Images", 1998).
"""

from __future__ import annotations

import numpy as np

#: How many pixels around each one are looked at.
RADIUS = 5
#: How quickly neighbours count less with their distance, in pixels.
SPREAD = 2.5
#: The same with their difference in brightness, in steps of 256.
TOLERANCE = 18.0


def bilateral(padded: np.ndarray) -> np.ndarray:
    """Filter a picture.

    Parameters
    ----------
    padded : numpy.ndarray
        Of shape (height + 2 * RADIUS, width + 2 * RADIUS, 3) and type uint8: what is filtered and,
        around it, what it is filtered with.

    Returns
    -------
    numpy.ndarray
        Of shape (height, width, 3) and type uint8. A pixel depends on its surroundings only, and
        not on where it is in the array.
    """
    height, width = padded.shape[0] - 2 * RADIUS, padded.shape[1] - 2 * RADIUS
    colours = np.moveaxis(padded, 2, 0).astype(np.float32)
    # Rec. 601, in integers: the same in each tile.
    brightness = (padded @ np.array([77, 150, 29], np.uint32) >> 8).astype(np.int16)
    middle = (slice(RADIUS, RADIUS + height), slice(RADIUS, RADIUS + width))
    total = np.zeros((height, width), np.float32)
    summed = np.zeros((3, height, width), np.float32)
    alike = np.exp(-(np.arange(256) ** 2) / (2 * TOLERANCE**2))
    for y in range(2 * RADIUS + 1):
        for x in range(2 * RADIUS + 1):
            distance = (y - RADIUS) ** 2 + (x - RADIUS) ** 2
            near = np.exp(-distance / (2 * SPREAD**2))
            there = (slice(y, y + height), slice(x, x + width))
            weight = (near * alike).astype(np.float32)[np.abs(brightness[there] - brightness[middle])]
            total += weight
            summed += weight * colours[(slice(None), *there)]
    return np.moveaxis(np.rint(summed / total), 0, 2).astype(np.uint8)
