#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure live objects: `ferry.Store` beside InterProcessPyObjects, UltraDict, SharedMemoryDict and a Manager's dict.

Two processes are attached to the objects, one works on them, and the other one is asked afterwards whether it sees
what was done. Every way runs the same loops in an interpreter of its own, in turns; shown are medians.
docs/benchmarks.md tells what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
from bench import describe_machine
from results import Claim
from store_worker import DICT_ONLY, OTHERS, TASKS

FORMAT_VERSION = 1
_WORKER = Path(__file__).resolve().parent / "store_worker.py"
_DEFAULT_PEERS = Path(__file__).resolve().parents[2] / "build" / "peers"
_TIME_LIMIT = 600  # seconds for one way

#: Ways, with the packages of peers that they need.
WAYS: dict[str, str | None] = {
    "ferry": None,
    "ferry.compat.ipc_py_objects": None,
    "ferry.compat.ultradict": None,
    "ferry.compat.shared_memory_dict": None,
    "InterProcessPyObjects": "InterProcessPyObjects",
    "UltraDict": "UltraDict",
    "SharedMemoryDict": "shared-memory-dict",
    "Manager dict": None,
}
_IPPO = "InterProcessPyObjects"

# What is promised, by groups of statements: times as fast as InterProcessPyObjects, and as private objects.
_LIMITS: dict[str, tuple[float | None, float | None]] = {
    "list": (2.5, 0.4),
    "attribute": (5.0, 0.12),
    "values": (10.0, None),
    "dict": (12.0, 0.1),
    "chain": (None, None),
    "array": (None, 1 / 1.1),
}
# Increments of records are compared like lists there: by a name or by a number.
_AS_LIST = frozenset({"record += int"})
_ULTRADICT_LIMIT = 5.0
_TAKE_LIMIT = 20.0  # times as fast as InterProcessPyObjects
_FLAT_LIMIT = 1.5  # times the time of a small graph
_SCALING_LIMIT = 1.5
_COPY_LIMIT = 0.9  # of the speed of a copy
_ELEMENT_LIMIT = 16.0  # bytes
_ENTRY_LIMIT = 64.0


class Figures:
    """What was measured, by way and task: results of the worker, one of each turn."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.errors: dict[tuple[str, str], str] = {}

    def add(self, way: str, task: str, result: dict[str, Any]) -> None:
        """Add what one turn has found."""
        if "error" in result:
            self.errors[way, task] = result["error"]
        else:
            self.samples.setdefault((way, task), []).append(result)

    def get(self, way: str, task: str, key: str = "seconds") -> float | None:
        """Return the median; None if there is none, or it went wrong once."""
        if (way, task) in self.errors:
            return None
        values = [sample[key] for sample in self.samples.get((way, task), []) if sample.get(key) is not None]
        return statistics.median(values) if values else None

    def note(self, way: str, task: str) -> str:
        """Return why there is no figure."""
        error = self.errors.get((way, task))
        return f"{way}: {error}" if error else ""

    def has(self, way: str) -> bool:
        """Whether anything was asked of a way."""
        return any(key[0] == way for key in (*self.samples, *self.errors))


def list_claims(figures: Figures) -> Iterator[Claim]:
    """Return each promise with what was measured of it."""
    for name, task in TASKS.items():
        ours = figures.get("ferry", name)
        if ours is None and not figures.errors.get(("ferry", name)):
            continue
        note = figures.note("ferry", name)
        of_peer, of_private = _LIMITS["list" if name in _AS_LIST else task.group]
        theirs = figures.get(_IPPO, name)
        if figures.has(_IPPO):
            ratio = theirs / ours if ours and theirs else None
            yield Claim(
                f"{name} : {_IPPO}", ours, theirs, ratio, "at least", of_peer, note=note or figures.note(_IPPO, name)
            )
        own = figures.get("ferry", name, "private")
        if of_private is not None:
            if name in _AS_LIST:
                of_private = _LIMITS[task.group][1]
            yield Claim(
                f"{name} : private", ours, own, own / ours if ours and own else None, "at least", of_private, note=note
            )
        if name in DICT_ONLY and figures.has("UltraDict"):
            theirs = figures.get("UltraDict", name)
            ratio = theirs / ours if ours and theirs else None
            yield Claim(f"{name} : UltraDict", ours, theirs, ratio, "at least", _ULTRADICT_LIMIT, note=note)
    yield from _list_other_claims(figures)


def _list_other_claims(figures: Figures) -> Iterator[Claim]:
    compat = "ferry.compat.ipc_py_objects"
    task = "take tree"
    ours, theirs = figures.get(compat, task), figures.get(_IPPO, task)
    note = figures.note(compat, task)
    if (ours is not None or note) and figures.has(_IPPO):
        ratio = theirs / ours if ours and theirs else None
        yield Claim(f"taking a tree of instances : {_IPPO}", ours, theirs, ratio, "at least", _TAKE_LIMIT, note=note)
    task = "take graph"
    small, large = figures.get(compat, task, "small"), figures.get(compat, task, "large")
    note = figures.note(compat, task)
    if large is not None or note:
        ratio = large / small if small and large else None
        yield Claim("taking a graph of 10^6 nodes : of 10", large, small, ratio, "at most", _FLAT_LIMIT, note=note)
    task = "throughput"
    copy = figures.get(compat, task, "copy")
    note = figures.note(compat, task)
    for key in ("put", "take"):
        rate = figures.get(compat, task, key)
        if rate is None and not note:
            continue
        ratio = rate / copy if rate and copy else None
        yield _of_rates(f"{key} of 16 MiB of bytes : memcpy into warm memory", rate, copy, ratio, _COPY_LIMIT, note)
    rate, theirs = figures.get(compat, task, "rate"), figures.get(_IPPO, task, "rate")
    if rate is not None and theirs is not None:
        yield _of_rates(
            f"16 MiB of bytes, one after the other, in turns : {_IPPO}", rate, theirs, rate / theirs, None, note
        )
    task = "scaling"
    ratio, cpus = figures.get("ferry", task, "ratio"), figures.get("ferry", task, "cpus")
    note = figures.note("ferry", task)
    if ratio is not None or note:
        one, two = figures.get("ferry", task, "one"), figures.get("ferry", task, "two")
        measurable = note or (cpus or 0) >= 2
        yield Claim(
            "increments/us of two processes on keys of their own : of one",
            two and two / 1e6,
            one and one / 1e6,
            ratio if measurable else None,
            "at least",
            _SCALING_LIMIT,
            unit="1/us",
            note=note or ("" if measurable else "there is one CPU only"),
        )
    task = "memory"
    note = figures.note("ferry", task)
    for key, limit in (
        ("list of int", _ELEMENT_LIMIT),
        ("list of float", _ELEMENT_LIMIT),
        ("list of None", _ELEMENT_LIMIT),
        ("dict of int to float", _ENTRY_LIMIT),
        ("list of 100 int", None),
        ("dict of 100 int", None),
    ):
        value = figures.get("ferry", task, key)
        if value is None and not note:
            continue
        theirs = figures.get(_IPPO, task, key)
        yield Claim(f"bytes an element, {key}", value, theirs, value, "at most", limit, unit="bytes", note=note)


def _of_rates(
    what: str, ours: float | None, theirs: float | None, ratio: float | None, limit: float | None, note: str
) -> Claim:
    ours, theirs = (None if rate is None else rate / 1e9 for rate in (ours, theirs))
    return Claim(what, ours, theirs, ratio, "at least", limit, unit="GB/s", note=note)


# ---- running ----


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="store.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a first impression: short, once")
    parser.add_argument("--claims", action="store_true", help="print each promised figure against its limit")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a claim is missed, or Ferry failed")
    parser.add_argument(
        "-t", "--tasks", help=f"those whose names begin with one of these: {', '.join(OTHERS)}, list, ..."
    )
    parser.add_argument("-w", "--ways", help="ways whose names begin with one of these, such as ferry,Ultra")
    parser.add_argument("-r", "--repeat", type=int, metavar="N", help="how often each is measured (default: 3)")
    parser.add_argument("-d", "--duration", type=float, metavar="S", help="seconds for each (default: 0.1)")
    parser.add_argument("--no-peers", action="store_true", help="only Ferry and the standard library")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="where the peers' virtual environments are")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the JSON there as well")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw FILE-statements.png and FILE-claims.png")
    options = parser.parse_args(arguments)
    options.repeat = options.repeat or (1 if options.quick else 3)
    options.duration = options.duration or (0.03 if options.quick else 0.1)
    prefixes = options.tasks.split(",") if options.tasks else [""]
    options.tasks = [name for name in (*TASKS, *OTHERS) if any(name.startswith(prefix) for prefix in prefixes)]
    if not options.tasks:
        parser.error(f"no task begins so; tasks are {', '.join((*TASKS, *OTHERS))}")
    options.ways = options.ways.split(",") if options.ways else [""]
    return options


def find_ways(options: argparse.Namespace) -> tuple[dict[str, Path | str], dict[str, str]]:
    """Return the interpreter of each way, and why others are left out."""
    folder = options.peers or Path(os.environ.get("FERRY_BENCH_PEERS", _DEFAULT_PEERS))
    found: dict[str, Path | str] = {}
    missing: dict[str, str] = {}
    for name, package in WAYS.items():
        if not any(name.startswith(prefix) for prefix in options.ways):
            continue
        if package is None:
            found[name] = sys.executable
        elif not options.no_peers:
            try:
                found[name] = peers.interpreter(package, folder)
            except peers.UnavailableError as error:
                missing[name] = str(error)
    return found, missing


def run_worker(way: str, python: Path | str, options: argparse.Namespace, log: Any) -> dict[str, Any]:
    """Let a way measure all tasks; return what it found."""
    environment = dict(os.environ)
    if WAYS[way] is not None:
        for key in ("PYTHONPATH", "LD_LIBRARY_PATH"):  # of the build tree, and not for these
            environment.pop(key, None)
        environment["PYTHONHASHSEED"] = "0"  # one of them asks for it
    process = subprocess.Popen(
        [str(python), str(_WORKER), way, str(options.duration), *options.tasks],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=_TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return {"error": f"it did not end within {_TIME_LIMIT} s"}
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # one of them waits for ever for who was killed
        except ProcessLookupError:
            pass
        process.wait()
    lines = output.splitlines()
    try:
        return json.loads(lines[-1])  # type: ignore[no-any-return]
    except (IndexError, ValueError):
        return {"error": f"it ended with status {process.returncode} and without figures"}


def measure(options: argparse.Namespace, ways: dict[str, Path | str], figures: Figures, log: Any) -> None:
    """Measure everything, in turns."""
    for turn in range(options.repeat):
        for way, python in ways.items():
            if sys.stderr.isatty():
                print(f"\r{turn + 1}/{options.repeat} {way} \033[K", end="", file=sys.stderr, flush=True)
            found = run_worker(way, python, options, log)
            if set(found) == {"error"}:
                figures.errors.update({(way, task): found["error"] for task in options.tasks})
                continue
            for task, result in found.items():
                figures.add(way, task, result)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def to_json(
    options: argparse.Namespace, figures: Figures, claims: list[Claim], missing: dict[str, str]
) -> dict[str, Any]:
    """Return everything for a file. Times are in seconds."""
    import ferry

    entries = []
    for way, task in dict.fromkeys((*figures.samples, *figures.errors)):
        entries.append(
            {
                "way": way,
                "task": task,
                "group": TASKS[task].group if task in TASKS else task,
                "median": figures.get(way, task),
                "private": figures.get(way, task, "private"),
                "samples": figures.samples.get((way, task), []),
                "error": figures.errors.get((way, task)),
            }
        )
    return {
        "program": "ferry-bench-store",
        "format": FORMAT_VERSION,
        "machine": describe_machine(),
        "settings": {
            "ferry-version": ferry.__version__,
            "start": "fork",
            "repeats": options.repeat,
            "duration-seconds": options.duration,
            "peers": {name: peers.PEERS[package].requirement for name, package in WAYS.items() if package},
            "left-out": missing,
        },
        "figures": entries,
        "claims": [claim.to_json() for claim in claims],
    }


def print_tables(figures: Figures) -> Any:
    """Print the times; return where more may be printed."""
    import report
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = report.make_console()
    ways = [way for way in WAYS if figures.has(way)]
    tasks = [task for task in TASKS if any((way, task) in figures.samples for way in ways)]
    for title, chosen in (
        ("Statements: time for each", tasks),
        ("Messages, and two processes that count: time for each", [task for task in OTHERS if task != "memory"]),
    ):
        columns = [way for way in ways if any((way, task) in figures.samples for task in chosen)]
        if not columns:
            continue
        console.print(title, style="italic")
        table = Table(box=box.SIMPLE, pad_edge=False)
        table.add_column("", no_wrap=True)
        if chosen is tasks:
            table.add_column("private", justify="right", no_wrap=True)
        for way in columns:
            table.add_column(way, justify="right", overflow="fold")
        for task in chosen:
            cells: list[Any] = []
            base = figures.get("ferry", task) or figures.get("ferry.compat.ipc_py_objects", task)
            if chosen is tasks:
                own = next(filter(None, (figures.get(way, task, "private") for way in columns)), None)
                cells.append(report.format_time(own))
            for way in columns:
                if (way, task) in figures.errors:
                    cells.append(Text("failed", style="red"))
                    continue
                value = figures.get(way, task)
                if value is None:
                    cells.append("")
                elif task == "throughput":
                    cells.append(f"{1 / value / 1e9:.2f} GB/s")
                else:
                    cell = Text(report.format_time(value))
                    if base and not way.startswith("ferry"):
                        cell.append(f"  {report.format_ratio(value / base)}x", style="dim")
                    cells.append(cell)
            if any(cells):
                table.add_row(task, *cells)
        console.print(table)
    return console


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit status."""
    options = parse_arguments(arguments)
    if not options.json:
        try:
            import report
        except ImportError:
            print(
                "store.py: rich is missing; install it with 'apt install python3-rich', or use --json", file=sys.stderr
            )
            return 2
    ways, missing = find_ways(options)
    figures = Figures()
    with tempfile.NamedTemporaryFile("w", prefix="ferry-bench-", suffix=".log", delete=False) as log:
        measure(options, ways, figures, log)
    claims = list(list_claims(figures)) if options.claims else []
    data = to_json(options, figures, claims, missing)
    if options.json:
        print(json.dumps(data, indent=1))
    else:
        console = print_tables(figures)
        if claims:
            report.print_claims(console, claims)
        for way, reason in missing.items():
            console.print(f"{way} left out: {reason}", markup=False, highlight=False)
    told = {f"{way}: {task}: {error}" for (way, task), error in figures.errors.items()}
    for line in sorted(told):
        print(f"store.py: {line}", file=sys.stderr)
    if told:
        print(f"store.py: what the measuring processes said is in {log.name}", file=sys.stderr)
    else:
        os.unlink(log.name)
    if options.output:
        options.output.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        import plots

        print(*plots.draw_store(data, options.plot), sep="\n", file=sys.stderr)
    ours_failed = any(way.startswith("ferry") for way, _ in figures.errors)
    if options.strict and (ours_failed or any(claim.met is False for claim in claims)):
        return 1
    return 0


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("store.py: interrupted", file=sys.stderr)
        sys.exit(130)
