#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Analyse photographs in a pipeline of processes, over ferry.Queue and over multiprocessing.Queue."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

# The processes are the parallelism; threads of a BLAS would only get in their way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ferry
from PIL import Image
from pipeline import REGIONS, Result, run
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sheet import write_plot

#: All that the two runs differ in.
QUEUES: dict[str, Callable[..., Any]] = {
    "ferry.Queue": ferry.Queue,
    "multiprocessing.Queue": multiprocessing.Queue,
}
#: Files with these endings are taken for photographs.
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}
#: Smaller ones, in pixels along the shorter side, are icons.
SMALLEST = 64


def find_photographs(places: list[Path]) -> list[str]:
    """Return the paths of photographs, in order: those named, and all in the folders named and below them."""
    found = []
    candidates = (path for place in places for path in (sorted(place.rglob("*")) if place.is_dir() else [place]))
    for path in candidates:
        if path.suffix.lower() not in ENDINGS or not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                if min(image.size) >= SMALLEST:
                    found.append(str(path))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return found


def run_with_bars(console: Console, name: str, paths: list[str], folder: Path, n_workers: int) -> Result:
    """Run the pipeline over one kind of queue, with a bar for each stage where there is a terminal."""
    total = len(paths) * len(REGIONS)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks = [bars.add_task(f"{name}: {stage}", total=total) for stage in ("decoded", "analysed", "collected")]

    def show(decoded: int, analysed: int, collected: int, skipped: int) -> None:
        # The bars begin after the processes, which are forked and must not inherit their thread.
        if not bars.live.is_started:
            bars.start()
        for task, done in zip(tasks, (decoded, analysed, collected), strict=True):
            bars.update(task, completed=done, total=total - skipped)

    try:
        return run(QUEUES[name], paths, folder, n_workers, show)
    finally:
        if bars.live.is_started:
            bars.stop()


def differences(results: dict[str, Result]) -> list[str]:
    """Return what the runs do not agree about; nothing, if all is well."""
    (first, expected), *others = results.items()
    found = []
    for name, result in others:
        if result.n_frames != expected.n_frames:
            found.append(f"{first} delivered {expected.n_frames} frames and {name} {result.n_frames}")
        elif result.checksum != expected.checksum:
            found.append(f"the results over {first} and over {name} differ")
    return found


def closing_table(results: dict[str, Result]) -> Table:
    """Return the table that compares the runs."""
    ours, theirs = results.values()
    table = Table(title_justify="left")
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    table.add_column("ratio", justify="right")

    def row(label: str, form: str, value: Callable[[Result], float]) -> None:
        mine, other = value(ours), value(theirs)
        ratio = f"{mine / other:.2f}" if other > 0 else ""
        table.add_row(label, format(mine, form), format(other, form), ratio)

    row("seconds", ".2f", lambda result: result.seconds)
    row("frames/s", ".1f", lambda result: result.n_frames / result.seconds)
    row("GB/s", ".2f", lambda result: result.n_bytes / result.seconds / 1e9)
    row("CPU seconds", ".2f", lambda result: result.cpu)
    row("  decoding", ".2f", lambda result: result.cpu_decoding)
    row("  analysing", ".2f", lambda result: result.cpu_analysing)
    row("  all else", ".2f", lambda result: result.cpu - result.cpu_decoding - result.cpu_analysing)
    row("peak memory (PSS), MB", ".0f", lambda result: result.peak_memory / 1e6)
    return table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", type=Path, nargs="+", metavar="PATH", help="photographs, or folders of them")
    parser.add_argument("--output", type=Path, default=Path("photo-pipeline"), help="folder for what is written")
    parser.add_argument(
        "--frames", type=int, default=180, help="how many arrays at least, six a photograph (%(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that analyse (%(default)s)")
    arguments = parser.parse_args()
    if arguments.frames < 1 or arguments.workers < 1:
        parser.error("frames and workers must be positive")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    console = Console(highlight=False, soft_wrap=True)
    photographs = find_photographs(arguments.places)
    if not photographs:
        print(f"{sys.argv[0]}: there are no photographs in {', '.join(map(str, arguments.places))}", file=sys.stderr)
        return 1
    paths = list(islice(cycle(photographs), -(-arguments.frames // len(REGIONS))))
    n_distinct = len(set(paths))
    times = "once" if len(paths) == n_distinct else f"{len(paths) / n_distinct:.3g} times"
    for path in set(paths):
        # From here on they are in memory, so that no run waits for the disk.
        Path(path).read_bytes()
    console.print(
        f"{n_distinct} photographs, each decoded {times} and sent as {len(REGIONS)} arrays (whole, corners, centre).\n"
        f"One process decodes, {arguments.workers} analyse, one collects; only the class of the queues changes.\n"
    )

    results = {}
    for name in QUEUES:
        folder = arguments.output / name.split(".")[0]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            results[name] = run_with_bars(console, name, paths, folder, arguments.workers)
        except RuntimeError as error:
            print(f"{sys.argv[0]}: {name}: {error}", file=sys.stderr)
            return 1
    skipped = sorted(set(results["ferry.Queue"].skipped))
    for message in skipped:
        console.print(f"skipped {message}", markup=False)

    result = results["ferry.Queue"]
    console.print(
        f"{result.n_frames} frames, {result.n_bytes / 1e9:.2f} GB, "
        f"{result.n_bytes / result.n_frames / 1e6:.1f} MB each on average"
    )
    console.print(closing_table(results))
    write_plot({name: result.timeline for name, result in results.items()}, arguments.output / "throughput.png")
    problems = differences(results)
    for problem in problems:
        print(f"{sys.argv[0]}: {problem}", file=sys.stderr)
    if not problems:
        console.print("All results are the same, by checksum.")
    console.print(f"Contact sheet and plot: {arguments.output / 'ferry' / 'index.html'}", markup=False)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
