#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws plots of what ferry-bench measured.

    ferry-bench --output bench.json
    plot-bench.py bench.json bench.png

draws throughput in bytes and in messages over the message size, latency, and after
ferry-bench --claims the margin of each claim: what there is in the input.
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
    sys.exit("plot-bench.py: matplotlib is missing; install it with 'apt install python3-matplotlib'")

FORMAT_VERSION = 1
BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
WIDTH_INCHES = 10.0
PANEL_INCHES = 4.8
BAR_INCHES = 0.32
BAR_MARGIN_INCHES = 1.3
DOTS_PER_INCH = 150
NS_PER_US = 1000.0
BYTES_PER_GB = 1e9

Figure = dict[str, Any]


def format_size(size: int) -> str:
    """Return a size in bytes with the largest binary unit that divides it."""
    unit = 0
    while size >= 1024 and size % 1024 == 0 and unit + 1 < len(BINARY_UNITS):
        size //= 1024
        unit += 1
    return f"{size} {BINARY_UNITS[unit]}"


def caption(data: dict[str, Any]) -> str:
    """Return one line that tells machine and settings."""
    machine, settings = data["machine"], data["settings"]
    return (
        f"{machine.get('cpu') or 'unknown CPU'}, {machine['cpus']} CPUs, "
        f"{machine.get('system', '')} {machine.get('kernel', '')}; Ferry {settings['ferry-version']}, "
        f"{settings['mode']}, {settings['senders']} x {settings['receivers']}, "
        f"median of {settings['repeats']}"
    )


def spread(quantity: dict[str, Any]) -> tuple[float, float]:
    """Return how far the samples reach below and above the median."""
    samples = [sample for sample in quantity["samples"] if sample is not None]
    return quantity["median"] - min(samples), max(samples) - quantity["median"]


def plot_rates(axes: Any, items: list[Figure], member: str, scale: float, label: str) -> None:
    """Plot a rate over the message size, a line for each series."""
    series: dict[str, list[Figure]] = {}
    for item in items:
        series.setdefault(item["series"], []).append(item)

    sizes = sorted({item["size-bytes"] for item in items})
    for name, line in series.items():
        line.sort(key=lambda item: item["size-bytes"])
        below, above = zip(*(spread(item[member]) for item in line))
        axes.errorbar(
            [item["size-bytes"] for item in line],
            [item[member]["median"] / scale for item in line],
            yerr=[[value / scale for value in below], [value / scale for value in above]],
            label=name,
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=1 if line[0]["baseline"] else 2,
            linestyle="--" if line[0]["baseline"] else "-",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [format_size(size) for size in sizes], rotation=30)
    axes.minorticks_off()
    axes.set_xlabel("message size")
    axes.set_ylabel(label)
    axes.set_title(f"Throughput in {member}")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()


def plot_latency(axes: Any, items: list[Figure], size: int) -> None:
    """Plot the latency of each series: a bar for the typical value, a mark for p99."""
    names = [f"{item['series']}, {item['wait']}" if item["wait"] else item["series"] for item in items]
    values = [item["typical"]["median"] / NS_PER_US for item in items]
    colors = ["0.7" if item["baseline"] else "tab:blue" for item in items]
    places = range(len(items))
    axes.barh(places, values, color=colors)
    axes.plot(
        [item["p99"]["median"] / NS_PER_US for item in items], places, "|", color="black", markersize=10, label="p99"
    )
    for place, value in zip(places, values):
        axes.annotate(
            f"{value:.3g}", (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("one way, microseconds")
    axes.set_title(f"Latency of {format_size(size)} messages (half a round trip)")
    axes.grid(True, axis="x", which="major", alpha=0.3)
    axes.legend(loc="lower right")


def plot_claims(axes: Any, items: list[Figure]) -> None:
    """Plot how far each claimed ratio is from its limit; 1 is just met."""
    # Above 1 is better in either direction.
    margins = [
        item["limit"] / item["ratio"] if item["relation"] == "at most" else item["ratio"] / item["limit"]
        for item in items
    ]
    places = range(len(items))
    axes.barh(places, margins, color=["tab:green" if item["met"] else "tab:red" for item in items])
    for place, (item, margin) in enumerate(zip(items, margins)):
        text = f"{item['ratio']:.2f} ({item['relation']} {item['limit']:g})"
        axes.annotate(text, (margin, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(places, [f"{item['transport']}: {item['what']}" for item in items], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, max(margins) * 1.3)
    axes.set_xlabel("margin: 1 just meets the limit, more is better")
    axes.set_title("What Ferry promises")


def draw(data: dict[str, Any], path: Path) -> bool:
    """Draw a panel for everything the data holds into one file; False when that is nothing."""
    rates = [item for item in data["throughput"] if item["messages"] is not None and item["size-bytes"] > 0]
    latencies = [item for item in data["latency"] if item["typical"] is not None]
    claims = [item for item in data["claims"] if item["ratio"] is not None and item["limit"]]
    panels: list[tuple[float, Callable[[Any], None]]] = []

    if rates:
        panels.append((PANEL_INCHES, lambda axes: plot_rates(axes, rates, "bytes", BYTES_PER_GB, "GB/s")))
        panels.append((PANEL_INCHES, lambda axes: plot_rates(axes, rates, "messages", 1.0, "messages/s")))
    if latencies:
        size = data["settings"]["latency-size-bytes"]
        height = BAR_MARGIN_INCHES + BAR_INCHES * len(latencies)
        panels.append((height, lambda axes: plot_latency(axes, latencies, size)))
    if claims:
        panels.append((BAR_MARGIN_INCHES + BAR_INCHES * len(claims), lambda axes: plot_claims(axes, claims)))
    if not panels:
        return False

    heights = [height for height, _ in panels]
    figure, all_axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH_INCHES, sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, (_, plot) in zip(all_axes[:, 0], panels):
        plot(axes)
    figure.text(0.5, 0.005, caption(data), ha="center", va="bottom", fontsize=7, color="0.35")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description="Draws plots of the JSON that ferry-bench writes.")
    parser.add_argument("input", type=Path, help="what 'ferry-bench --output' or '--json' wrote; - for standard input")
    parser.add_argument("output", type=Path, nargs="?", help="the PNG file (default: named as the input)")
    options = parser.parse_args(arguments)

    try:
        if str(options.input) == "-":
            data = json.load(sys.stdin)
        else:
            data = json.loads(options.input.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"plot-bench.py: {options.input}: {error}", file=sys.stderr)
        return 1
    if not isinstance(data, dict) or data.get("program") != "ferry-bench" or data.get("format") != FORMAT_VERSION:
        print(f"plot-bench.py: {options.input} is not what this version of ferry-bench writes", file=sys.stderr)
        return 1

    output = options.output or (Path("bench.png") if str(options.input) == "-" else options.input.with_suffix(".png"))
    try:
        drawn = draw(data, output)
    except OSError as error:
        print(f"plot-bench.py: {output}: {error.strerror or error}", file=sys.stderr)
        return 1
    if not drawn:
        print(f"plot-bench.py: {options.input} holds no figures", file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
