# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables for people."""

from __future__ import annotations

import payloads
from results import Claim, Results
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from ways import WAYS

_TITLES = {
    "flow": "Message after message: time for each, and how many times longer than ferry.Queue",
    "turns": "One message at a time, the receiver waits for it: time from put to got",
    "first": "The first message of a new channel, from put to got",
    "first-in-process": "The same where neither process has sent or received in this way before",
    "making": "Making a channel",
    "round-trip": "Round trip: there and back, both sides active (queues: one for each direction)",
    "calls": "Calls of executors: time from submit() to the result for each, and how many times longer than Ferry's",
    "memory": "Most memory that sender and receiver take in addition, in messages",
}
_REFERENCES = ("ferry.Queue", "ferry.ProcessPoolExecutor")
_MIN_WIDTH = 160  # where the output is no terminal


def make_console() -> Console:
    """Return where tables go: the terminal, or something wide enough for all of it."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _MIN_WIDTH))


def format_time(seconds: float | None) -> str:
    """Return a time with three digits and a unit."""
    if seconds is None:
        return "-"
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def format_ratio(ratio: float) -> str:
    """Return a ratio with as many digits as make sense."""
    return f"{ratio:.0f}" if ratio >= 99.5 else f"{ratio:.3g}" if ratio >= 9.95 else f"{ratio:.2f}"


def print_measure(console: Console, results: Results, measure: str, errors: list[str]) -> None:
    """Print one table for each kind of payload, small ones in one; collect what could not be measured."""
    figures = results.select(measure)
    groups = [payloads.KINDS, payloads.CALLS]
    if measure in ("flow", "first", "first-in-process"):
        groups = [payloads.SMALL, ("bytes",), ("array",)]
    if figures:
        console.print(_TITLES[measure], style="italic")
    for kinds in groups:
        columns = list(dict.fromkeys((f.kind, f.size) for f in figures if f.kind in kinds))
        if not columns:
            continue
        names = [f.way for f in figures if f.kind in kinds]
        table = Table(box=box.SIMPLE, pad_edge=False)
        table.add_column("", no_wrap=True)
        for kind, size in columns:
            table.add_column(payloads.describe(kind, size), justify="right", no_wrap=True)
        for way in dict.fromkeys(names):
            cells: list[Text | str] = [Text(way, style="bold" if way.startswith("ferry") else "")]
            for kind, size in columns:
                figure = results.figures.get((measure, way, kind, size))
                median = figure.median if figure else None
                if figure is None or median is None:
                    cells.append(Text("failed", style="red") if figure and figure.error else "")
                    continue
                is_time = measure != "memory" and kind != "repeated-memory"
                value = format_time(median) if is_time else f"{median:.2f} copies"
                base = next(filter(None, (results.median(measure, name, kind, size) for name in _REFERENCES)), None)
                cell = Text(value)
                if base and way not in _REFERENCES and is_time:
                    ratio = median / base
                    cell.append(f"  {format_ratio(ratio)}x", style="dim" if ratio >= 1 else "red")
                cells.append(cell)
            table.add_row(*cells)
        console.print(table)
    for figure in figures:
        if figure.error and not figure.samples:
            errors.append(f"{figure.way}, {measure}, {payloads.describe(figure.kind, figure.size)}: {figure.error}")


def print_claims(console: Console, claims: list[Claim]) -> None:
    """Print a line for each claim."""
    table = Table(title="What Ferry promises", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=False, overflow="fold")
    for name in ("Ferry", "reference", "ratio", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for claim in claims:
        ratio = "-" if claim.ratio is None else format_ratio(claim.ratio)
        if claim.unit == "s":
            measured, reference = format_time(claim.measured), format_time(claim.reference)
        else:
            measured = "-" if claim.measured is None else f"{claim.measured:.2f}"
            reference = "-" if claim.reference is None else f"{claim.reference:.2f}"
        verdict = {
            True: Text("ok", style="green"),
            False: Text("FAIL", style="bold red"),
            None: Text("?", style="yellow"),
        }
        sign = ">=" if claim.relation == "at least" else "<="
        limit = "" if claim.limit is None else f"{sign} {claim.limit:g}"
        what = claim.what + (f" ({claim.note})" if claim.note else "")
        mark = Text("") if claim.limit is None else verdict[claim.met]
        table.add_row(Text(what), measured, reference, ratio, limit, mark)
    console.print(table)
    claims = [claim for claim in claims if claim.limit is not None]
    failed = sum(claim.met is False for claim in claims)
    unknown = sum(claim.met is None for claim in claims)
    console.print(
        f"{len(claims)} claims: {len(claims) - failed - unknown} met, {failed} missed, {unknown} not measured"
    )


def describe_ways(missing: dict[str, str]) -> list[str]:
    """Return a line for each way that is left out."""
    return [f"{way} left out: {reason}" for way, reason in missing.items() if way in WAYS]
