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
LARGE_KINDS = ("array", "bytes")
ROUND_TRIP = ("bytes", 100)
HUGE = ("sparse", 10**10)

#: Bytes of address space that each process of another way than Ferry's gets for it, so that the machine survives.
HUGE_ADDRESS_SPACE = 14 << 30

_QUEUE = "ferry.Queue"
_PIPE = "ferry.Pipe"
_PIPES = ((_PIPE, "mp.Pipe"), ("ferry.Pipe bytes", "mp.Pipe bytes"))
_SMALL_QUEUE_LIMIT = 15.0  # times faster than mp.Queue
_SMALL_PIPE_LIMIT = 8.0  # than mp.Pipe
_SMALL_BYTES_LIMIT = 4.0  # than send_bytes
_ROUND_TRIP_LIMIT = 0.2  # of the time of mp.Pipe
_LARGE_QUEUE_LIMIT = 20.0  # times faster than mp.Queue
_LARGE_PEER_LIMIT = 15.0  # than py-sharedmemory 2, which is what the promise names
_COPY_LIMIT = 0.85  # of the speed of a copy
_FLAT_LIMIT = 1.5  # times the time of 4 KiB
_COPIES_LIMIT = 1.0
_COPIES_SLACK = 0.05  # of the message, but at least
_COPIES_SLACK_BYTES = 4e6  # which is what processes grow by anyway
_EXECUTOR = "ferry.ProcessPoolExecutor"
_EXECUTOR_LIMITS = {  # by kind: than what, how many times, and whether that is faster or slower
    "add-one": (("concurrent.futures", 15.0, "at least"), ("npshmex", 5.0, "at least"), ("in process", 2.5, "at most")),
    "trivial": (("concurrent.futures", 3.0, "at least"),),
    "repeated": (("concurrent.futures", 20.0, "at least"),),
}
_EXECUTOR_SHARE_LIMIT = 2.0  # times the time in process
_EXECUTOR_MEMORY_LIMIT = 1.3  # copies
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
    #: whether the error is that this machine could not measure it
    skipped: bool = False

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
    limit: float | None  # None: only told
    unit: str = "s"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it holds; None if nothing is promised, or what it is compared with could not be measured.

        What Ferry itself could not do is no open question.
        """
        if self.limit is None:
            return None
        if self.measured is None:
            return False
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
        """Return each promise with what was measured of it: all that Ferry was asked for, done or not."""
        yield from self._small()
        yield from self._large()
        yield from self._waiting()
        for measure, words in (
            ("flow", "message after message"),
            ("first", "the first message of a channel"),
            ("round-trip", "round trip"),
        ):
            yield from self._never_slower(measure, words)
        yield from self._pipes()
        yield from self._codec()
        yield from self._memory()
        yield from self._huge()
        yield from self._calls()

    def _ours(self, measure: str, way: str, kind: str, size: int) -> tuple[float | None, str] | None:
        """Return Ferry's median, or None and why; None if it was not asked for.

        A way that failed once is not measured, whatever it did before.
        """
        figure = self.figures.get((measure, way, kind, size))
        if figure is None:
            return None
        if figure.error or figure.median is None:
            return None, f"{way}: {figure.error or 'not measured'}"
        return figure.median, ""

    def _compare(
        self,
        what: str,
        measure: str,
        way: str,
        reference: str,
        kind: str,
        size: int,
        limit: float | None,
        relation: str = "at least",
    ) -> Iterator[Claim]:
        """A claim about the time of one of Ferry's ways and another's; none if Ferry's was not asked for."""
        ours = self._ours(measure, way, kind, size)
        if ours is None or (reference in WAYS and kind not in WAYS[reference].kinds):
            return
        value, note = ours
        theirs = self.median(measure, reference, kind, size)
        ratio = None
        if value and theirs:
            ratio = theirs / value if relation == "at least" else value / theirs
        elif not note:
            figure = self.figures.get((measure, reference, kind, size))
            note = f"{reference}: {(figure.error if figure else None) or 'not measured'}"
        yield Claim(what, value, theirs, ratio, relation, limit, note=note)

    def _small(self) -> Iterator[Claim]:
        for kind, size in SMALL_OBJECTS:
            for reference, limit in (
                ("mp.Queue", _SMALL_QUEUE_LIMIT),
                ("mp.Pipe", _SMALL_PIPE_LIMIT),
                ("mp.Pipe bytes", _SMALL_BYTES_LIMIT),
            ):
                what = f"{payloads.describe(kind, size)} : {reference}"
                yield from self._compare(what, "flow", _QUEUE, reference, kind, size, limit)
        what = "round trip of 100 bytes, ferry.Pipe : mp.Pipe"
        yield from self._compare(what, "round-trip", _PIPE, "mp.Pipe", *ROUND_TRIP, _ROUND_TRIP_LIMIT, "at most")

    def _large(self) -> Iterator[Claim]:
        """The promises, and what they would be with one message at a time."""
        for measure, words in (("flow", ""), ("turns", ", one at a time")):
            for kind in LARGE_KINDS:
                for size in LARGE_SIZES:
                    for reference, limit in (
                        ("mp.Queue", _LARGE_QUEUE_LIMIT),
                        ("py-sharedmemory 2", _LARGE_PEER_LIMIT),
                        ("py-sharedmemory", None),  # what came after what the promise names
                    ):
                        what = f"{payloads.describe(kind, size)}{words} : {reference}"
                        yield from self._compare(
                            what, measure, _QUEUE, reference, kind, size, limit if measure == "flow" else None
                        )

    def _waiting(self) -> Iterator[Claim]:
        figures = sorted(self.select("waiting"), key=lambda figure: figure.size)
        for figure in figures:
            size = payloads.format_size(figure.size)
            put, copy = (None, None) if figure.error else (figure.detail("put_large"), figure.detail("copy_large"))
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
                if figure.error:
                    large = small = None
                ratio = large / small if large and small else None
                yield Claim(what, large, small, ratio, "at most", _FLAT_LIMIT, note=figure.error or "")

    def _never_slower(self, measure: str, words: str) -> Iterator[Claim]:
        """One claim for each kind and size: the fastest of the others."""
        kinds = list(dict.fromkeys((figure.kind, figure.size) for figure in self.select(measure)))
        for kind, size in kinds:
            others = {
                figure.way: figure.median
                for figure in self.select(measure)
                if (figure.kind, figure.size) == (kind, size) and WAYS[figure.way].group != "ferry" and figure.median
            }
            best = min(others, key=others.__getitem__) if others else "none"
            what = f"{words}, {payloads.describe(kind, size)} : the fastest of all, {best}"
            yield from self._compare(what, measure, _QUEUE, best, kind, size, 1.0)

    def _pipes(self) -> Iterator[Claim]:
        """The same of pipes, each beside what it stands in for."""
        for measure, words in (("flow", "message after message"), ("round-trip", "round trip")):
            for figure in self.select(measure):
                for way, reference in _PIPES:
                    if figure.way == way:
                        what = f"{words}, {payloads.describe(figure.kind, figure.size)}, {way} : {reference}"
                        yield from self._compare(what, measure, way, reference, figure.kind, figure.size, 1.0)

    def _codec(self) -> Iterator[Claim]:
        what = "nested example encoded and decoded : pickle"
        yield from self._compare(what, "codec", "codec-python", "pickle", "nested", 0, _CODEC_LIMIT)

    def _memory(self) -> Iterator[Claim]:
        for figure in self.select("memory"):
            if figure.way.removesuffix(", loan") != _QUEUE:
                continue
            loan = figure.way.endswith(", loan")
            value, note = self._ours("memory", figure.way, figure.kind, figure.size) or (None, "")
            # What is loaned is the array itself, which before did not exist.
            copies = None if value is None else value - (1.0 if loan else 0.0)
            slack = max(_COPIES_SLACK, _COPIES_SLACK_BYTES / figure.size)
            limit = slack + (0.0 if loan else _COPIES_LIMIT)
            theirs = self.median("memory", "mp.Queue", figure.kind, figure.size)
            what = f"extra copies in memory, {payloads.describe(figure.kind, figure.size)}{', loaned' if loan else ''}"
            yield Claim(what, copies, theirs, copies, "at most", limit, unit="copies", note=note)

    def _huge(self) -> Iterator[Claim]:
        """Both halves of it: Ferry's passes, and mp.Queue's does not in as much memory as it gets."""
        ours = self._ours("huge", _QUEUE, *HUGE)
        if ours is None:
            return
        value, note = ours
        theirs = self.figures.get(("huge", "mp.Queue", *HUGE))
        passed: float | None = None
        if value is not None and theirs is not None and not theirs.skipped:
            passed = 1.0 if theirs.error else 0.0
        if not note:
            note = f"mp.Queue: {(theirs.error or 'passed') if theirs else 'not measured'}"
        what = (
            f"a 10 GB message passes, where mp.Queue fails with {HUGE_ADDRESS_SPACE >> 30} GiB of address space"
            " for each process"
        )
        yield Claim(what, value, theirs.median if theirs else None, passed, "at least", 1.0, note=note)

    def _calls(self) -> Iterator[Claim]:
        """Calls of executors."""
        for figure in self.select("calls"):
            kind, size = figure.kind, figure.size
            what = payloads.describe(kind, size)
            if figure.way == f"{_EXECUTOR}, share":
                yield from self._compare(
                    f"{what}, shared : in process",
                    "calls",
                    figure.way,
                    "in process",
                    kind,
                    size,
                    _EXECUTOR_SHARE_LIMIT,
                    "at most",
                )
            elif figure.way == _EXECUTOR and kind == "repeated-memory":
                value, note = self._ours("calls", figure.way, kind, size) or (None, "")
                theirs = self.median("calls", "concurrent.futures", kind, size)
                limit = _EXECUTOR_MEMORY_LIMIT + _COPIES_SLACK_BYTES / max(size, 1)
                yield Claim(
                    f"copies in memory, {what}", value, theirs, value, "at most", limit, unit="copies", note=note
                )
            elif figure.way == _EXECUTOR:
                for reference, limit, relation in _EXECUTOR_LIMITS[kind]:
                    yield from self._compare(
                        f"{what} : {reference}", "calls", figure.way, reference, kind, size, limit, relation
                    )
