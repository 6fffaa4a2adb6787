# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was measured, and what is claimed of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import payloads
from ways import WAYS

#: Kinds and sizes that the claim about small objects is about.
SMALL_OBJECTS = (("int", 0), ("bytes", 100), ("dict", 0))
#: Sizes in bytes that the claim about large ones is about.
LARGE_SIZES = (10**6, 10**7, 10**8, 10**9)
ROUND_TRIP = ("bytes", 100)
HUGE = ("sparse", 10**10)

_QUEUE = "ferry.Queue"
_PIPE = "ferry.Pipe"
_SMALL_QUEUE_LIMIT = 15.0  # times faster than mp.Queue
_SMALL_PIPE_LIMIT = 8.0  # than mp.Pipe
_SMALL_BYTES_LIMIT = 4.0  # than send_bytes
_ROUND_TRIP_LIMIT = 0.2  # of the time of mp.Pipe
_LARGE_QUEUE_LIMIT = 20.0  # times faster than mp.Queue
_LARGE_PEER_LIMIT = 15.0  # than py-sharedmemory
_COPY_LIMIT = 0.85  # of the speed of a copy
_FLAT_LIMIT = 1.5  # times the time of 4 KiB
_COPIES_LIMIT = 1.0
_COPIES_SLACK = 0.05  # of the message, but at least
_COPIES_SLACK_BYTES = 4e6  # which is what processes grow by anyway
_CODEC_LIMIT = 1.0  # times as fast as pickle


@dataclass
class Figure:
    """One quantity: its samples, or why there are none."""

    measure: str
    way: str
    kind: str
    size: int
    samples: list[float] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def median(self) -> float | None:
        """The median of the samples."""
        return statistics.median(self.samples) if self.samples else None

    def detail(self, key: str) -> float | None:
        """The median of one of the numbers that came with the samples."""
        values = [detail[key] for detail in self.details if key in detail]
        return statistics.median(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """Return it as it goes into a file. Times are in seconds."""
        return {
            "measure": self.measure,
            "way": self.way,
            "group": WAYS[self.way].group if self.way in WAYS else "reference",
            "kind": self.kind,
            "size-bytes": self.size,
            "median": self.median,
            "samples": self.samples,
            "details": self.details,
            "error": self.error,
        }


@dataclass
class Claim:
    """A promise: what was measured against what, and the limit."""

    what: str
    measured: float | None
    reference: float | None
    ratio: float | None
    relation: str  # "at least" or "at most"
    limit: float
    unit: str = "s"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it holds; None if it could not be measured."""
        if self.ratio is None:
            return None
        return self.ratio >= self.limit if self.relation == "at least" else self.ratio <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return it as it goes into a file."""
        return {
            "what": self.what,
            "measured": self.measured,
            "reference": self.reference,
            "unit": self.unit,
            "ratio": self.ratio,
            "relation": self.relation,
            "limit": self.limit,
            "met": self.met,
            "note": self.note,
        }


class Results:
    """All figures of a run."""

    def __init__(self) -> None:
        self.figures: dict[tuple[str, str, str, int], Figure] = {}

    def get(self, measure: str, way: str, kind: str, size: int) -> Figure:
        """Return the figure of that, an empty one if it is new."""
        key = measure, way, kind, size
        if key not in self.figures:
            self.figures[key] = Figure(*key)
        return self.figures[key]

    def median(self, measure: str, way: str, kind: str, size: int) -> float | None:
        """Return the median of a figure; None if it was not measured."""
        figure = self.figures.get((measure, way, kind, size))
        return figure.median if figure is not None else None

    def select(self, measure: str) -> list[Figure]:
        """Return all figures of one kind of measurement."""
        return [figure for figure in self.figures.values() if figure.measure == measure]

    def claims(self) -> Iterator[Claim]:
        """Return each promise with what was measured of it."""
        yield from self._small()
        yield from self._large()
        yield from self._waiting()
        yield from self._never_slower("flow", "message after message")
        yield from self._never_slower("first", "the first message of a channel")
        yield from self._codec()
        yield from self._memory()
        yield from self._huge()

    def _times_faster(
        self, measure: str, way: str, reference: str, kind: str, size: int, limit: float
    ) -> Iterator[Claim]:
        ours, theirs = self.median(measure, way, kind, size), self.median(measure, reference, kind, size)
        if kind not in WAYS[reference].kinds or (ours is None and theirs is None):
            return
        ratio = theirs / ours if ours and theirs else None
        what = f"{payloads.describe(kind, size)} : {reference}"
        note = ""
        if ratio is None:
            figure = self.figures.get((measure, reference if ours else way, kind, size))
            note = (figure.error if figure else None) or "not measured"
        yield Claim(what, ours, theirs, ratio, "at least", limit, note=note)

    def _small(self) -> Iterator[Claim]:
        for kind, size in SMALL_OBJECTS:
            yield from self._times_faster("flow", _QUEUE, "mp.Queue", kind, size, _SMALL_QUEUE_LIMIT)
            yield from self._times_faster("flow", _QUEUE, "mp.Pipe", kind, size, _SMALL_PIPE_LIMIT)
            yield from self._times_faster("flow", _QUEUE, "mp.Pipe bytes", kind, size, _SMALL_BYTES_LIMIT)
        ours, theirs = self.median("round-trip", _PIPE, *ROUND_TRIP), self.median("round-trip", "mp.Pipe", *ROUND_TRIP)
        if ours and theirs:
            yield Claim(
                "round trip of 100 bytes, ferry.Pipe : mp.Pipe",
                ours,
                theirs,
                ours / theirs,
                "at most",
                _ROUND_TRIP_LIMIT,
            )

    def _large(self) -> Iterator[Claim]:
        for kind in ("array", "bytes"):
            for size in LARGE_SIZES:
                yield from self._times_faster("flow", _QUEUE, "mp.Queue", kind, size, _LARGE_QUEUE_LIMIT)
                yield from self._times_faster("flow", _QUEUE, "py-sharedmemory", kind, size, _LARGE_PEER_LIMIT)
                yield from self._times_faster("flow", _QUEUE, "py-sharedmemory 2", kind, size, _LARGE_PEER_LIMIT)

    def _waiting(self) -> Iterator[Claim]:
        figures = sorted(self.select("waiting"), key=lambda figure: figure.size)
        for figure in figures:
            size = payloads.format_size(figure.size)
            put, copy = figure.detail("put_large"), figure.detail("copy_large")
            ratio = copy / put if copy and put else None
            yield Claim(
                f"put of an array, {size} : numpy.copyto into warm shared memory",
                put,
                copy,
                ratio,
                "at least",
                _COPY_LIMIT,
                note=figure.error or "",
            )
        for figure in figures[-1:]:
            size = payloads.format_size(figure.size)
            for key, what in (
                ("take", f"take a waiting array, {size} : 4 KiB"),
                ("loan_put", f"loan and put, {size} : 4 KiB"),
            ):
                large, small = figure.detail(f"{key}_large"), figure.detail(f"{key}_small")
                ratio = large / small if large and small else None
                yield Claim(what, large, small, ratio, "at most", _FLAT_LIMIT, note=figure.error or "")

    def _never_slower(self, measure: str, words: str) -> Iterator[Claim]:
        """One claim for each kind and size: the fastest of the others."""
        kinds = list(dict.fromkeys((figure.kind, figure.size) for figure in self.select(measure)))
        for kind, size in kinds:
            ours = self.median(measure, _QUEUE, kind, size)
            others = {
                figure.way: figure.median
                for figure in self.select(measure)
                if (figure.kind, figure.size) == (kind, size) and WAYS[figure.way].group != "ferry" and figure.median
            }
            if ours is None or not others:
                continue
            best = min(others, key=lambda way: others[way] or 0.0)
            theirs = others[best] or 0.0
            what = f"{words}, {payloads.describe(kind, size)} : the fastest of all, {best}"
            yield Claim(what, ours, theirs, theirs / ours, "at least", 1.0)

    def _codec(self) -> Iterator[Claim]:
        ours, theirs = self.median("codec", "codec-python", "nested", 0), self.median("codec", "pickle", "nested", 0)
        if ours and theirs:
            what = "nested example encoded and decoded : pickle"
            yield Claim(what, ours, theirs, theirs / ours, "at least", _CODEC_LIMIT)

    def _memory(self) -> Iterator[Claim]:
        for figure in self.select("memory"):
            if figure.way.removesuffix(", loan") != _QUEUE or figure.median is None:
                continue
            loan = figure.way.endswith(", loan")
            # What is loaned is the array itself, which before did not exist.
            copies = figure.median - (1.0 if loan else 0.0)
            slack = max(_COPIES_SLACK, _COPIES_SLACK_BYTES / figure.size)
            limit = slack + (0.0 if loan else _COPIES_LIMIT)
            theirs = self.median("memory", "mp.Queue", figure.kind, figure.size)
            what = f"extra copies in memory, {payloads.describe(figure.kind, figure.size)}{', loaned' if loan else ''}"
            yield Claim(what, copies, theirs, copies, "at most", limit, unit="copies")

    def _huge(self) -> Iterator[Claim]:
        ours = self.figures.get(("huge", _QUEUE, *HUGE))
        theirs = self.figures.get(("huge", "mp.Queue", *HUGE))
        if ours is None:
            return
        note = ours.error or ""
        if theirs is not None and theirs.error:
            note = note or f"mp.Queue: {theirs.error}"
        passed = 1.0 if ours.median else 0.0
        what = "a 10 GB message passes : mp.Queue"
        yield Claim(what, ours.median, theirs.median if theirs else None, passed, "at least", 1.0, note=note)
