#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draw what bench.py and store.py measured.

    bench.py --output bench.json
    plots.py bench.json bench.png

draws bench-throughput.png (over the size), bench-objects.png (times of small objects) and, after
bench.py --claims, bench-claims.png (the margin of each claim): what there is in the input. Of what
store.py wrote it draws bench-statements.png and bench-claims.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import matplotlib

    matplotlib.use("Agg")  # files only, no display
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("plots.py: matplotlib is missing; install it with 'apt install python3-matplotlib'")

import payloads

FORMAT_VERSION = 1
WIDTH_INCHES = 10.0
PANEL_INCHES = 4.8
BAR_INCHES = 0.22
BAR_MARGIN_INCHES = 1.4
DOTS_PER_INCH = 150
BYTES_PER_GB = 1e9
US_PER_SECOND = 1e6

_STYLES = {"ferry": ("-", 2.2), "standard": ("--", 1.2), "peer": (":", 1.2)}
_SMALL = (("int", 0), ("bytes", 100), ("dict", 0), ("nested", 0))

Figure = dict[str, Any]


def colors(figures: list[Figure]) -> dict[str, Any]:
    """Return a colour for each way, the same in all panels: Ferry in blues."""
    ways = list(dict.fromkeys(figure["way"] for figure in figures))
    ours = [way for way in ways if way.startswith("ferry")]
    blues, others = plt.get_cmap("Blues"), plt.get_cmap("Dark2")
    chosen = {way: blues(0.95 - 0.22 * i) for i, way in enumerate(ours)}
    return chosen | {way: others(i % 8) for i, way in enumerate(way for way in ways if way not in chosen)}


def plot_throughput(axes: Any, figures: list[Figure], kind: str, palette: dict[str, Any]) -> None:
    """Plot bytes per second over the message size, a line for each way."""
    lines: dict[str, list[Figure]] = {}
    for figure in figures:
        lines.setdefault(figure["way"], []).append(figure)
    for way, line in lines.items():
        line.sort(key=lambda figure: figure["size-bytes"])
        style, width = _STYLES[line[0]["group"]]
        axes.plot(
            [figure["size-bytes"] for figure in line],
            [figure["size-bytes"] / figure["median"] / BYTES_PER_GB for figure in line],
            style,
            linewidth=width,
            marker="o",
            markersize=3,
            color=palette[way],
            label=way,
        )
    sizes = sorted({figure["size-bytes"] for figure in figures})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [payloads.format_size(size) for size in sizes], rotation=30)
    axes.minorticks_off()
    axes.set_ylabel("GB/s")
    axes.set_title(f"put and get of {'arrays' if kind == 'array' else 'bytes'}, one message after the other")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=7, ncols=2)


def plot_times(axes: Any, figures: list[Figure], title: str, palette: dict[str, Any]) -> None:
    """Plot a bar for each way, in a group for each payload; the time is on a logarithmic axis."""
    place = 0.0
    places, labels = [], []
    for key in dict.fromkeys((figure["kind"], figure["size-bytes"]) for figure in figures):
        for figure in figures:
            if (figure["kind"], figure["size-bytes"]) != key:
                continue
            value = figure["median"] * US_PER_SECOND
            axes.barh(place, value, color=palette[figure["way"]])
            axes.annotate(f"{value:.3g}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=6)
            places.append(place)
            labels.append(f"{payloads.describe(*key)}: {figure['way']}")
            place += 1
        place += 0.8
    axes.set_yticks(places, labels, fontsize=6.5)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("microseconds, less is better")
    axes.set_title(title)
    axes.grid(True, axis="x", which="major", alpha=0.3)


def plot_claims(axes: Any, claims: list[Figure]) -> None:
    """Plot how far each claimed ratio is from its limit; 1 is just met."""
    # Above 1 is better in either direction; what is exactly none counts as just some.
    margins = [
        claim["limit"] / max(claim["ratio"], 1e-3)
        if claim["relation"] == "at most"
        else claim["ratio"] / claim["limit"]
        for claim in claims
    ]
    places = range(len(claims))
    axes.barh(places, margins, color=["tab:green" if claim["met"] else "tab:red" for claim in claims])
    for place, (claim, margin) in enumerate(zip(claims, margins)):
        text = f"{claim['ratio']:.3g} ({claim['relation']} {claim['limit']:g})"
        axes.annotate(text, (margin, place), (3, 0), textcoords="offset points", va="center", fontsize=6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(places, [claim["what"] for claim in claims], fontsize=6)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("margin: 1 just meets the limit, more is better")
    axes.set_title("What Ferry promises")


def caption(data: dict[str, Any]) -> str:
    """Return one line that tells machine and settings."""
    machine, settings = data["machine"], data["settings"]
    return (
        f"{machine['cpu'] or 'unknown CPU'}, {machine['cpus']} CPUs, {machine['system']} {machine['kernel']}, "
        f"Python {machine['python']}; Ferry {settings['ferry-version']}, {settings['start']}, "
        f"median of {settings['repeats']}"
    )


Panel = tuple[float, Callable[[Any], None]]


def plot_statements(axes: Any, figures: list[Figure], palette: dict[str, Any]) -> None:
    """Plot a bar for each way of what store.py measured, in a group for each statement, on a logarithmic axis."""
    place = 0.0
    places, labels = [], []
    for task in dict.fromkeys(figure["task"] for figure in figures):
        for figure in figures:
            if figure["task"] != task:
                continue
            value = 1 / figure["median"]
            axes.barh(place, value, color=palette[figure["way"]])
            axes.annotate(f"{value:,.0f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=5)
            places.append(place)
            labels.append(f"{task}: {figure['way']}")
            place += 1
        place += 0.8
    axes.set_yticks(places, labels, fontsize=5.5)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("per second, more is better")
    axes.set_title("statements on shared objects")
    axes.grid(True, axis="x", which="major", alpha=0.3)


def draw_store(data: dict[str, Any], path: Path) -> list[Path]:
    """Draw what store.py measured; return the files."""
    figures = [figure for figure in data["figures"] if figure["median"] and figure["group"] != figure["task"]]
    private = [
        {**figure, "way": "private objects", "median": figure["private"]}
        for figure in figures
        if figure["way"] == "ferry" and figure["private"]
    ]
    panels: dict[str, list[Panel]] = {"statements": [], "claims": []}
    shown = figures + private
    if shown:
        palette = colors(shown)
        height = BAR_MARGIN_INCHES + BAR_INCHES * 0.7 * len(shown)
        panels["statements"].append((height, lambda axes: plot_statements(axes, shown, palette)))
    return _draw_panels(data, panels, path)


def draw(data: dict[str, Any], path: Path) -> list[Path]:
    """Draw everything that the data holds; return the files, whose names are the path's with a word more."""
    figures = [figure for figure in data["figures"] if figure["median"]]
    palette = colors(figures)
    panels: dict[str, list[Panel]] = {"throughput": [], "objects": [], "claims": []}
    for kind in ("array", "bytes"):
        rates = [figure for figure in figures if figure["measure"] == "flow" and figure["kind"] == kind]
        if len({figure["size-bytes"] for figure in rates}) > 1:
            panels["throughput"].append(
                (PANEL_INCHES, lambda axes, r=rates, k=kind: plot_throughput(axes, r, k, palette))
            )
    for measure, title in (
        ("flow", "put and get of small objects, one after the other"),
        ("first", "the first message of a channel"),
        ("round-trip", "round trips"),
    ):
        small = [f for f in figures if f["measure"] == measure and (f["kind"], f["size-bytes"]) in _SMALL]
        if small:
            height = BAR_MARGIN_INCHES + BAR_INCHES * len(small)
            panels["objects"].append((height, lambda axes, s=small, t=title: plot_times(axes, s, t, palette)))
    return _draw_panels(data, panels, path)


def _draw_panels(data: dict[str, Any], panels: dict[str, list[Panel]], path: Path) -> list[Path]:
    """Add the claims, and write everything."""
    claims = [claim for claim in data["claims"] if claim["ratio"] is not None and claim["limit"]]
    if claims:
        height = BAR_MARGIN_INCHES + BAR_INCHES * len(claims)
        panels["claims"].append((height, lambda axes: plot_claims(axes, claims)))

    files = []
    for word, group in panels.items():
        if group:
            files.append(path.with_name(f"{path.stem}-{word}.png"))
            _save(group, caption(data), files[-1])
    return files


def _save(panels: list[Panel], text: str, path: Path) -> None:
    heights = [height for height, _ in panels]
    figure, all_axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH_INCHES, sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, (_, plot) in zip(all_axes[:, 0], panels):
        plot(axes)
    figure.text(0.5, 0.1 / sum(heights), text, ha="center", va="bottom", fontsize=7, color="0.35")
    figure.tight_layout(rect=(0, 0.3 / sum(heights), 1, 1))
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description="Draw plots of the JSON that bench.py and store.py write.")
    parser.add_argument("input", type=Path, help="what 'bench.py --output' wrote")
    parser.add_argument("output", type=Path, nargs="?", help="how the PNG files begin (default: as the input)")
    options = parser.parse_args(arguments)
    try:
        data = json.loads(options.input.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"plots.py: {options.input}: {error}", file=sys.stderr)
        return 1
    kind = (data.get("program"), data.get("format")) if isinstance(data, dict) else None
    if kind not in ((name, FORMAT_VERSION) for name in ("ferry-bench-python", "ferry-bench-store")):
        print(f"plots.py: {options.input} is not what this version of bench.py or store.py writes", file=sys.stderr)
        return 1
    path = options.output or options.input.with_suffix(".png")
    files = (draw_store if data["program"] == "ferry-bench-store" else draw)(data, path)
    if not files:
        print(f"plots.py: {options.input} holds no figures", file=sys.stderr)
        return 1
    print(*files, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
