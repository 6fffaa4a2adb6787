# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the pipeline leaves: a contact sheet, as picture and as page, and a plot."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: Pixels of a cell of the contact sheet, and how many are in a row.
CELL = (260, 320)
COLUMNS = 5
MARGIN = 10
#: How many of a photograph's most frequent colours are shown.
PALETTE = 6
SWATCH = 24
#: Seconds over which the plot averages.
WINDOW = 1.0

BACKGROUND = (24, 24, 24)
FOREGROUND = (230, 230, 230)

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Contact sheet</title>
<style>
body {{ background: #181818; color: #e6e6e6; font: 14px sans-serif; margin: 2em }}
main {{ display: flex; flex-wrap: wrap; gap: 16px }}
figure {{ margin: 0; width: 260px }}
figcaption {{ overflow-wrap: anywhere }}
td {{ padding-right: 1em; text-align: right }}
.swatch {{ display: inline-block; width: 24px; height: 12px }}
</style>
<h1>{n_photographs} photographs</h1>
<p>Sharpness is the variance of the Laplacian, for the whole photograph and for its corners and its centre;
below, its most frequent colours.</p>
<main>
{figures}
</main>
<h1>Throughput</h1>
<p><img src="../throughput.png" alt="Gigabytes per second over time"></p>
</html>
"""

FIGURE = """<figure>
<img src="data:image/png;base64,{data}" alt="">
<figcaption>{name}<br>{width} x {height}, sharpness {sharpness:.0f}
<table>
<tr><td>{top left:.0f}<td><td>{top right:.0f}
<tr><td><td>{centre:.0f}<td>
<tr><td>{bottom left:.0f}<td><td>{bottom right:.0f}
</table>
{swatches}</figcaption>
</figure>"""


def frequent_colours(histogram: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the most frequent colours of a histogram, the first one first."""
    bits = (len(histogram) - 1).bit_length() // 3
    half = 1 << (7 - bits)
    mask = (1 << bits) - 1
    # Stable, so that equal counts give the same colours each time.
    order = np.argsort(-histogram.astype(np.int64), kind="stable")[:PALETTE]
    return [
        tuple((((int(index) >> shift) & mask) << (8 - bits)) + half for shift in (2 * bits, bits, 0)) for index in order
    ]


def photographs_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry a photograph, with the sharpness of its regions, each photograph once."""
    photographs: dict[str, dict[str, Any]] = {}
    numbers: dict[str, int] = {}
    for result in results:
        # Photographs are decoded several times if there are few.
        if numbers.setdefault(result["name"], result["number"]) != result["number"]:
            continue
        entry = photographs.setdefault(result["name"], {"regions": {}})
        if result["region"] == "whole":
            entry.update(result)
        else:
            entry["regions"][result["region"]] = result["sharpness"]
    return list(photographs.values())


def write_sheet(results: list[dict[str, Any]], folder: Path) -> None:
    """Write contact-sheet.png and index.html.

    Parameters
    ----------
    results : list of dict
        Of the workers, sorted.
    folder : Path
        Where to.
    """
    photographs = photographs_of(results)
    font = ImageFont.load_default()
    rows = -(-len(photographs) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL[0], max(1, rows) * CELL[1]), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    figures = []
    for index, photograph in enumerate(photographs):
        image = Image.fromarray(photograph["thumbnail"])
        palette = frequent_colours(photograph["histogram"])
        x, y = index % COLUMNS * CELL[0] + MARGIN, index // COLUMNS * CELL[1] + MARGIN
        sheet.paste(image, (x, y))
        y += CELL[1] - 3 * MARGIN - SWATCH - 20
        # The default font has Latin letters only.
        name = photograph["name"].encode("latin-1", "replace").decode("latin-1")
        draw.text((x, y), name[:38], FOREGROUND, font)
        draw.text((x, y + 12), f"sharpness {photograph['sharpness']:.0f}", FOREGROUND, font)
        for place, colour in enumerate(palette):
            draw.rectangle((x + place * SWATCH, y + 28, x + (place + 1) * SWATCH - 1, y + 27 + SWATCH), colour)
        png = io.BytesIO()
        image.save(png, "PNG")
        height, width = photograph["shape"][:2]
        figures.append(
            FIGURE.format(
                data=base64.b64encode(png.getvalue()).decode(),
                name=html.escape(photograph["name"]),
                width=width,
                height=height,
                sharpness=photograph["sharpness"],
                swatches="".join(f'<span class="swatch" style="background: rgb{colour}"></span>' for colour in palette),
                **photograph["regions"],
            )
        )
    sheet.save(folder / "contact-sheet.png")
    page = PAGE.format(n_photographs=len(photographs), figures="\n".join(figures))
    (folder / "index.html").write_text(page, encoding="utf-8")


def write_plot(timelines: dict[str, list[tuple[float, int]]], path: Path) -> None:
    """Draw the throughput of each run over time.

    Parameters
    ----------
    timelines : dict
        For each run when each frame was done, in seconds, and its bytes.
    path : Path
        A PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for name, timeline in timelines.items():
        seconds, sizes = np.array(timeline).T
        done = np.cumsum(sizes)
        at = np.linspace(0, seconds[-1], 200)
        before = np.maximum(at - WINDOW, 0)
        moved = np.interp(at, seconds, done, left=0) - np.interp(before, seconds, done, left=0)
        rate = moved[1:] / (at - before)[1:] / 1e9
        axes.plot(at[1:], rate, label=f"{name}: {done[-1] / seconds[-1] / 1e9:.2f} GB/s")
    axes.set(xlabel="seconds", ylabel=f"GB/s, mean of {WINDOW:.0f} s", xlim=0, ylim=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
