# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pipeline: one process decodes photographs, others analyse them, one collects the results.

    decode --frames--> analyse (several) --results--> collect --reports--> the caller

What the queues are made of is the caller's choice: everything here is written for
`multiprocessing.Queue`, and any other queue with its methods goes as well.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import queue
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from sheet import write_sheet

#: What is cut out of a photograph, in fractions of height and width, from top and left; the first is all of it. Corners
#: and centre show where it is sharp, and are what many programs that train on photographs take of them ("five crop").
REGIONS = {
    "whole": (0.0, 0.0, 1.0),
    "top left": (0.0, 0.0, 0.75),
    "top right": (0.0, 0.25, 0.75),
    "bottom left": (0.25, 0.0, 0.75),
    "bottom right": (0.25, 0.25, 0.75),
    "centre": (0.125, 0.125, 0.75),
}
#: Pixels along the longer side of a thumbnail.
THUMBNAIL = 240
#: Bits of a colour channel in the histogram.
COLOUR_BITS = 4
#: How many frames, and results, may wait.
FRAMES_WAITING = 4
RESULTS_WAITING = 64
#: Seconds between two looks at the processes.
TICK = 0.1

# What the processes count, in memory that they share; how many were analysed follows, a place for each worker.
STARTED, DECODED, SKIPPED, COLLECTED, ANALYSED = range(5)


@dataclass
class Result:
    """What a run gave."""

    #: Over all results, whatever the order in which they came.
    checksum: str
    #: When each frame was done, in seconds from the start, and its size in bytes.
    timeline: list[tuple[float, int]]
    #: CPU seconds within the decoder and the analysis.
    cpu_decoding: float
    cpu_analysing: float
    #: CPU seconds of all processes of the pipeline.
    cpu: float = 0.0
    #: Sum of the proportional set sizes of all processes of the pipeline, in bytes: what several share counts once.
    peak_memory: int = 0
    #: Files that could not be decoded.
    skipped: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the start of the first decoding to the last result."""
        return self.timeline[-1][0]

    @property
    def n_frames(self) -> int:
        return len(self.timeline)

    @property
    def n_bytes(self) -> int:
        return sum(size for _, size in self.timeline)


# ---- the work ----


def decode(path: str) -> np.ndarray:
    """Return a photograph as an array of height x width x 3 bytes."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def cut(photograph: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the regions of a photograph, as views on it."""
    height, width = photograph.shape[:2]
    for name, (top, left, share) in REGIONS.items():
        y, x = int(top * height), int(left * width)
        yield name, photograph[y : y + int(share * height), x : x + int(share * width)]


def sharpness(frame: np.ndarray) -> float:
    """Return the variance of the Laplacian of the green channel, at half the resolution.

    Blurred pictures have no steep changes of brightness, hence a small variance (Pech-Pacheco et al., 2000).
    """
    green = frame[::2, ::2, 1].astype(np.int16)
    laplacian = 4 * green[1:-1, 1:-1] - green[:-2, 1:-1] - green[2:, 1:-1] - green[1:-1, :-2] - green[1:-1, 2:]
    # Whole numbers that doubles hold exactly: the sums do not depend on the order of summation.
    values = laplacian.ravel().astype(np.float64)
    return float(values @ values) / values.size - (float(values.sum()) / values.size) ** 2


def colours(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean colour, and the histogram of coarse colours, of every sixteenth pixel."""
    pixels = frame[::4, ::4].reshape(-1, 3)
    coarse = pixels.astype(np.uint16) >> (8 - COLOUR_BITS)
    bins = (coarse[:, 0] << 2 * COLOUR_BITS) | (coarse[:, 1] << COLOUR_BITS) | coarse[:, 2]
    histogram = np.bincount(bins, minlength=1 << 3 * COLOUR_BITS).astype(np.uint32)
    return pixels.sum(axis=0, dtype=np.int64) / len(pixels), histogram


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """Return the frame at a size for the contact sheet."""
    step = max(1, max(frame.shape) // (2 * THUMBNAIL))
    image = Image.fromarray(np.ascontiguousarray(frame[::step, ::step]))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


def analyse(frame: np.ndarray, with_thumbnail: bool) -> dict[str, Any]:
    """Return all that is to be known about a frame."""
    mean, histogram = colours(frame)
    return {
        "shape": frame.shape,
        "sharpness": sharpness(frame),
        "mean": mean,
        "histogram": histogram,
        "thumbnail": thumbnail(frame) if with_thumbnail else None,
    }


# ---- the processes ----


def decoding(paths: list[str], frames: Any, reports: Any, counters: Any, n_workers: int) -> None:
    """Decode each photograph and send it and its regions, cut out."""
    cpu = 0.0
    skipped = []
    counters[STARTED] = time.monotonic_ns()
    for number, path in enumerate(paths):
        began = time.thread_time()
        try:
            photograph = decode(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            # Pillow raises SyntaxError for broken files of some formats.
            skipped.append(f"{path}: {error}")
            counters[SKIPPED] += len(REGIONS)
            continue
        finally:
            cpu += time.thread_time() - began
        for region, frame in cut(photograph):
            frames.put((number, os.path.basename(path), region, frame))
            counters[DECODED] += 1
    for _ in range(n_workers):
        frames.put(None)
    reports.put({"cpu_decoding": cpu, "skipped": skipped})


def analysing(worker: int, frames: Any, results: Any, counters: Any) -> None:
    """Analyse frames until there are no more."""
    cpu = 0.0
    while True:
        message = frames.get()
        if message is None:
            break
        number, name, region, frame = message
        began = time.thread_time()
        result = analyse(frame, with_thumbnail=region == "whole")
        cpu += time.thread_time() - began
        # The memory is given back before the next wait.
        del message, frame
        results.put({"number": number, "name": name, "region": region, **result})
        counters[ANALYSED + worker] += 1
    results.put(cpu)


def collecting(folder: Path, results: Any, reports: Any, counters: Any, n_workers: int) -> None:
    """Collect the results and write the contact sheet."""
    collected = []
    timeline = []
    cpu = 0.0
    while n_workers > 0:
        result = results.get()
        if isinstance(result, float):
            cpu += result
            n_workers -= 1
            continue
        size = int(np.prod(result["shape"]))
        timeline.append(((time.monotonic_ns() - counters[STARTED]) / 1e9, size))
        collected.append(result)
        counters[COLLECTED] += 1

    # Workers overtake each other.
    collected.sort(key=lambda result: (result["number"], list(REGIONS).index(result["region"])))
    write_sheet(collected, folder)
    reports.put({"checksum": checksum(collected), "timeline": timeline, "cpu_analysing": cpu})


def checksum(collected: list[dict[str, Any]]) -> str:
    """Return a checksum over results: all numbers, and all pixels of the thumbnails."""
    sha = hashlib.sha256()
    for result in collected:
        for key, value in result.items():
            sha.update(key.encode())
            sha.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return sha.hexdigest()


# ---- all of it ----


def run(
    make_queue: Callable[..., Any],
    paths: list[str],
    folder: Path,
    n_workers: int = 2,
    progress: Callable[[int, int, int, int], None] = lambda *_: None,
) -> Result:
    """Run the pipeline.

    Parameters
    ----------
    make_queue : callable
        Makes a queue, given how many objects may wait in it: `multiprocessing.Queue` or one like it.
    paths : list of str
        The photographs.
    folder : Path
        Where to write the contact sheet.
    n_workers : int, default 2
        How many processes analyse.
    progress : callable, optional
        Is told now and then how many frames were decoded, analysed, collected and skipped.

    Raises
    ------
    RuntimeError
        A process failed; it has printed why.
    """
    frames, results, reports = make_queue(FRAMES_WAITING), make_queue(RESULTS_WAITING), make_queue(2)
    counters = multiprocessing.RawArray("q", ANALYSED + n_workers)
    # Forked, so that no run pays for imports.
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=decoding, args=(paths, frames, reports, counters, n_workers)),
        *(context.Process(target=analysing, args=(i, frames, results, counters)) for i in range(n_workers)),
        context.Process(target=collecting, args=(folder, results, reports, counters, n_workers)),
    ]
    cpu_before = cpu_of_children()
    for process in processes:
        process.start()

    peak_memory = 0
    outcome: dict[str, Any] = {}
    n_reports = 0
    try:
        while n_reports < 2:
            try:
                outcome.update(reports.get(timeout=TICK))
                n_reports += 1
            except queue.Empty:
                # Who has nothing more to say may have ended, but not badly.
                if any(process.exitcode for process in processes):
                    raise RuntimeError("a process of the pipeline failed") from None
            peak_memory = max(peak_memory, sum(proportional_size(process.pid) for process in processes))
            progress(counters[DECODED], sum(counters[ANALYSED:]), counters[COLLECTED], counters[SKIPPED])
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
            process.join()
        for each in (frames, results, reports):
            each.close()
    return Result(**outcome, cpu=cpu_of_children() - cpu_before, peak_memory=peak_memory)


def cpu_of_children() -> float:
    """Return the CPU seconds, in user and system mode, of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def proportional_size(pid: int | None) -> int:
    """Return the proportional set size of a process in bytes; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            for line in rollup:
                if line.startswith("Pss:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0
