#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure how fast Python objects get from one process to another: Ferry, the standard library and their like.

Everything is measured in the same run with the same start method, each way in processes of its
own, in turns; shown are medians. docs/benchmarks.md tells what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crew
import payloads
import peers
from results import HUGE, LARGE_KINDS, LARGE_SIZES, ROUND_TRIP, SMALL_OBJECTS, Claim, Results
from ways import WAYS

FORMAT_VERSION = 1
_ALL_SIZES = "10,100,1K,10K,100K,1M,10M,100M,1G"
_QUICK_SIZES = "100,10K,1M,10M"
_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_NESTED_SIZES = (0, 10**8)  # with an array of that size in it
_FULL_NESTED = 1_734_082_560  # as in py-sharedmemory's documentation
_IN_FLIGHT_BYTES = 16_000_000
_MAX_CAPACITY = 1000
_MIN_CAPACITY = 2
_MAX_MESSAGES = 200_000
_MIN_MESSAGES = 3
_MEMORY_FACTOR = 6  # source, pickles, buffers and what is received, of one size
_HUGE_MEMORY = 13 << 30  # bytes
_HUGE_SECONDS = 120.0
_JOB_LIMIT = 20.0  # seconds, and
_SECONDS_PER_BYTE = 100e-9  # for the slowest way, with all of its repetitions
_SLOW_JOB = 8.0  # seconds; what takes longer is repeated less
_SLOW_REPEATS = 1
_FIRST_MAX = 10**7  # bytes; beyond it is fresh memory that is measured
_ADD_ONE_SIZE = 160_000_000  # bytes, and
_REPEATED_SIZE = 100_000_000
_CALLS_MEMORY_WAYS = ("ferry.ProcessPoolExecutor", "concurrent.futures")
_TURNS_WAYS = ("ferry.Queue", "mp.Queue", "py-sharedmemory 2", "py-sharedmemory")
_CODEC_SCRIPT = Path(__file__).resolve().parents[1] / "codec-python.py"
_DEFAULT_PEERS = Path(__file__).resolve().parents[2] / "build" / "peers"

_KINDS = (*payloads.KINDS, *payloads.CALLS)
_MEASURES = ("flow", "turns", "first", "round-trip", "calls")

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Task:
    """Something to measure: one payload, all ways in turns."""

    measure: str
    kind: str
    size: int
    ways: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()
    repeats: int | None = None
    label: str | None = None

    def name(self, way: str) -> str:
        """Return under which name the figure of a way is kept."""
        return f"{way}, {self.label}" if self.label else way


def parse_size(text: str) -> int:
    """Return a size in bytes from something like 100, 1K, 10M or 1G; the units are decimal."""
    number, unit = text.strip().upper().removesuffix("B"), ""
    if number and number[-1] in "KMG":
        number, unit = number[:-1], number[-1]
    size = int(number) * _UNITS[unit]
    if size < 1:
        raise ValueError
    return size


def parse_sizes(text: str) -> list[int]:
    """Return the sizes of a list."""
    try:
        return sorted({parse_size(part) for part in text.split(",") if part})
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of sizes such as 100,10K,1M") from None


def choose_capacity(size: int) -> int:
    """Return how many messages may wait: the same for all ways that can be told."""
    return max(min(_IN_FLIGHT_BYTES // max(size, 1), _MAX_CAPACITY), _MIN_CAPACITY)


def available_memory() -> int:
    """Return the bytes that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a first impression: few sizes, short, twice")
    parser.add_argument("--claims", action="store_true", help="print each promised figure against its limit")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a claim is missed, or Ferry failed")
    parser.add_argument("--huge", action="store_true", help="also 10 GB; needs 13 GB of free memory")
    parser.add_argument("-s", "--sizes", type=parse_sizes, help=f"of bytes and arrays (default: {_ALL_SIZES})")
    parser.add_argument("-k", "--kinds", help=f"some of {','.join(_KINDS)}")
    parser.add_argument("-w", "--ways", help="ways whose names begin with one of these, such as ferry.Queue,mp.")
    parser.add_argument("-m", "--measures", help=f"some of {','.join(_MEASURES)} (default: all)")
    parser.add_argument("--start", default="fork", choices=["fork", "spawn", "forkserver"], help="start method")
    parser.add_argument("-r", "--repeat", type=int, metavar="N", help="how often each is measured (default: 3)")
    parser.add_argument("-d", "--duration", type=float, metavar="S", help="seconds for each (default: 0.3)")
    parser.add_argument(
        "--patience", type=float, default=1.0, metavar="N", help="wait N times as long before giving up (default: 1)"
    )
    parser.add_argument("--touch", action="store_true", help="receivers read a byte of every page that they get")
    parser.add_argument("--no-peers", action="store_true", help="only Ferry and the standard library")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="where the peers' virtual environments are")
    parser.add_argument("--codec-library", metavar="FILE", help="libcodec-python-loop.so, for the claim about pickle")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the JSON there as well")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw FILE-throughput.png and more")
    options = parser.parse_args(arguments)
    if options.sizes is None:
        options.sizes = parse_sizes(_QUICK_SIZES if options.quick else _ALL_SIZES)
    options.repeat = options.repeat or (2 if options.quick else 3)
    options.duration = options.duration or (0.1 if options.quick else 0.3)
    options.kinds = options.kinds.split(",") if options.kinds else list(_KINDS)
    options.measures = options.measures.split(",") if options.measures else list(_MEASURES)
    options.ways = options.ways.split(",") if options.ways else [""]
    if not set(options.kinds) <= set(_KINDS):
        parser.error(f"kinds are {', '.join(_KINDS)}")
    if not set(options.measures) <= set(_MEASURES):
        parser.error(f"measures are {', '.join(_MEASURES)}")
    return options


def find_ways(options: argparse.Namespace) -> tuple[dict[str, Path | str], dict[str, str]]:
    """Return the interpreter of each way, and why others are left out."""
    folder = options.peers or Path(os.environ.get("FERRY_BENCH_PEERS", _DEFAULT_PEERS))
    found: dict[str, Path | str] = {}
    missing: dict[str, str] = {}
    for name, way in WAYS.items():
        if not any(name.startswith(prefix) for prefix in options.ways) or (options.no_peers and way.group == "peer"):
            continue
        if way.package is None:
            found[name] = sys.executable
            continue
        if sys.stderr.isatty():
            print(f"\rlooking for {way.package} \033[K", end="", file=sys.stderr, flush=True)
        try:
            found[name] = peers.interpreter(way.package, folder)
        except peers.UnavailableError as error:
            missing[name] = str(error)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return found, missing


def list_tasks(options: argparse.Namespace, ways: list[str]) -> list[Task]:
    """Return what is to be measured."""
    contents: list[tuple[str, int]] = []
    for kind in payloads.KINDS:
        if kind not in options.kinds:
            continue
        if kind in payloads.SIZED:
            contents += [(kind, size) for size in options.sizes]
        elif kind == "nested":
            largest = max(options.sizes, default=0)
            contents += [(kind, size) for size in _NESTED_SIZES if size <= largest]
            if options.huge:
                contents.append((kind, _FULL_NESTED))
        else:
            contents.append((kind, 0))

    def able(kind: str) -> tuple[str, ...]:
        return tuple(way for way in ways if kind in WAYS[way].kinds)

    tasks = []
    if "flow" in options.measures:
        tasks += [Task("flow", kind, size, able(kind)) for kind, size in contents]
    if "turns" in options.measures:
        some = tuple(way for way in ways if way in _TURNS_WAYS)
        large = [what for what in contents if what[0] in LARGE_KINDS and what[1] in LARGE_SIZES]
        tasks += [Task("turns", kind, size, some) for kind, size in large]
    if "first" in options.measures:
        tasks += [Task("first", kind, size, able(kind)) for kind, size in contents if size <= _FIRST_MAX]
    if "round-trip" in options.measures:
        wanted = [pair for pair in (*SMALL_OBJECTS, ("array", 10**6)) if pair in contents or pair == ROUND_TRIP]
        tasks += [Task("round-trip", kind, size, able(kind)) for kind, size in wanted]
    if "calls" in options.measures:
        tasks += list_calls(options, ways)
    if options.claims:
        sizes = [size for size in LARGE_SIZES if size in options.sizes] or options.sizes[-1:]
        queue = tuple(way for way in ways if way == "ferry.Queue")
        tasks += [Task("waiting", "array", size, queue) for size in sizes]
        tasks.append(Task("memory", "array", sizes[-1], able("array")))
        tasks.append(Task("memory", "array", sizes[-1], queue, (("loan", True),), label="loan"))
    if options.huge:
        both = tuple(way for way in ways if way in ("ferry.Queue", "mp.Queue"))
        tasks.append(Task("huge", *HUGE, both, repeats=1))
    return tasks


def list_calls(options: argparse.Namespace, ways: list[str]) -> list[Task]:
    """Return what is to be measured of executors; smaller arrays if only such are asked for."""
    largest = max(options.sizes)
    sizes = {
        "add-one": _ADD_ONE_SIZE if largest >= _REPEATED_SIZE else largest,
        "trivial": 0,
        "repeated": min(_REPEATED_SIZE, largest),
        "repeated-memory": min(_REPEATED_SIZE, largest),
    }
    tasks = []
    for kind in payloads.CALLS:
        if kind not in options.kinds:
            continue
        able = tuple(way for way in ways if kind in WAYS[way].kinds)
        if kind == "repeated-memory":
            able = tuple(way for way in able if way in _CALLS_MEMORY_WAYS)
        tasks.append(Task("calls", kind, sizes[kind], able))
        if kind == "add-one":
            ferry = tuple(way for way in able if WAYS[way].group == "ferry")
            tasks.append(Task("calls", kind, sizes[kind], ferry, (("share", True),), label="share"))
    return tasks


def run_task(
    task: Task, workers: crew.Workers, results: Results, options: argparse.Namespace, progress: Progress
) -> None:
    """Measure all ways in turns."""
    settings = {
        "measure": task.measure,
        "kind": task.kind,
        "size": task.size,
        "capacity": choose_capacity(payloads.size_of(task.kind, task.size)),
        "start": options.start,
        "duration": options.duration,
        "max_messages": _MAX_MESSAGES,
        "min_messages": _MIN_MESSAGES,
        "touch": options.touch,
        **dict(task.options),
    }
    limit = (_JOB_LIMIT + 20 * options.duration + _SECONDS_PER_BYTE * task.size) * options.patience
    needed = _HUGE_MEMORY if task.measure == "huge" else _MEMORY_FACTOR * task.size
    repeats = task.repeats or options.repeat
    slow: set[str] = set()
    for repeat in range(repeats):
        for way in task.ways:
            progress(
                f"{task.measure}, {payloads.describe(task.kind, task.size)}: {task.name(way)}",
                1 / repeats / len(task.ways),
            )
            figure = results.get(task.measure, task.name(way), task.kind, task.size)
            if figure.error or (way in slow and repeat >= _SLOW_REPEATS):
                continue
            if available_memory() < needed:
                if not figure.samples and not figure.details:
                    figure.error = f"{payloads.format_size(needed)} of memory are not free"
                    figure.skipped = True
                continue
            began = time.monotonic()
            result = workers.do(way, settings, _HUGE_SECONDS if task.measure == "huge" else limit)
            if time.monotonic() - began > _SLOW_JOB * options.patience:
                slow.add(way)
            if "error" in result:
                figure.error = result["error"]
                continue
            if "value" in result:
                figure.samples.append(result.pop("value"))
            if "first-in-process" in result:
                figure = results.get("first-in-process", task.name(way), task.kind, task.size)
                figure.samples.append(result["first-in-process"])
            if "creation" in result and task.kind == "int":
                results.get("making", task.name(way), task.kind, task.size).samples.append(result["creation"])
            figure.details.append(result)


def run_codec(options: argparse.Namespace, results: Results) -> str | None:
    """Let the codec's own benchmark compare it with pickle; return why it could not."""
    ours = results.get("codec", "codec-python", "nested", 0)
    theirs = results.get("codec", "pickle", "nested", 0)
    library = options.codec_library or os.environ.get("FERRY_BENCH_LIBRARY")
    if not library:
        ours.error = "--codec-library is not given"
        return f"codec against pickle: {ours.error}"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "codec.json"
        command = [sys.executable, str(_CODEC_SCRIPT), "--library", library, "--only", "nested", "--json", str(output)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0 or not output.exists():
            ours.error = (result.stderr.strip().splitlines() or ["failed"])[-1]
            return f"codec against pickle: {ours.error}"
        for entry in json.loads(output.read_text(encoding="utf-8")):
            ours.samples.append((entry["encode"] + entry["decode"]) * 1e-9)
            theirs.samples.append((entry["dumps"] + entry["loads"]) * 1e-9)
    return None


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpu = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "memory-bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def to_json(
    options: argparse.Namespace, results: Results, claims: list[Claim], missing: dict[str, str]
) -> dict[str, Any]:
    """Return everything as it goes into a file."""
    import ferry

    return {
        "program": "ferry-bench-python",
        "format": FORMAT_VERSION,
        "machine": describe_machine(),
        "settings": {
            "ferry-version": ferry.__version__,
            "start": options.start,
            "repeats": options.repeat,
            "duration-seconds": options.duration,
            "touch": options.touch,
            "peers": {name: peer.requirement for name, peer in peers.PEERS.items()},
            "left-out": missing,
        },
        "figures": [figure.to_json() for figure in results.figures.values()],
        "claims": [claim.to_json() for claim in claims],
    }


def measure(options: argparse.Namespace, ways: dict[str, Path | str], results: Results, log: Path) -> list[str]:
    """Measure everything; return what went wrong beside the figures."""
    warnings = []
    tasks = list_tasks(options, list(ways))
    with crew.Workers(ways, log) as workers:
        if not sys.stderr.isatty():
            for task in tasks:
                run_task(task, workers, results, options, lambda what, step: None)
        else:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
                shown = bar.add_task("", total=len(tasks))

                def progress(what: str, step: float) -> None:
                    bar.update(shown, description=what, advance=step)

                for task in tasks:
                    run_task(task, workers, results, options, progress)
    if options.claims and "nested" in options.kinds:
        warning = run_codec(options, results)
        if warning:
            warnings.append(warning)
    return warnings


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit status."""
    options = parse_arguments(arguments)
    if not options.json:
        try:
            import report
        except ImportError:
            print(
                "bench.py: rich is missing; install it with 'apt install python3-rich', or use --json", file=sys.stderr
            )
            return 2
    ways, missing = find_ways(options)
    results = Results()
    with tempfile.NamedTemporaryFile(prefix="ferry-bench-", suffix=".log", delete=False) as log_file:
        log = Path(log_file.name)
    try:
        warnings = measure(options, ways, results, log)
    except BaseException:
        if log.stat().st_size == 0:
            log.unlink()
        raise
    claims = list(results.claims()) if options.claims else []
    data = to_json(options, results, claims, missing)

    # Peers that come in with lots of complaints are not our user's trouble, unless something failed.
    failed = any(figure.error and not figure.samples for figure in results.figures.values())
    if failed and log.stat().st_size > 0:
        warnings.append(f"what the measuring processes said is in {log}")
    else:
        log.unlink()
    if options.json:
        print(json.dumps(data, indent=1))
    else:
        console = report.make_console()
        for measure_name in (
            "flow", "turns", "first", "first-in-process", "making", "round-trip", "calls", "memory",
        ):  # fmt: skip
            report.print_measure(console, results, measure_name, warnings)
        if claims:
            report.print_claims(console, claims)
        for line in report.describe_ways(missing):
            console.print(line, markup=False, highlight=False)
    for warning in warnings:
        print(f"bench.py: {warning}", file=sys.stderr)
    if options.output:
        options.output.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        import plots

        print(*plots.draw(data, options.plot), sep="\n", file=sys.stderr)
    if options.strict and any(claim.met is False for claim in claims):
        return 1
    return 0


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Also then the measuring processes are to be ended.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("bench.py: interrupted", file=sys.stderr)
        sys.exit(130)
