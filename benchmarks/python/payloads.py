# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is sent: made by the sender, known to the receiver, which looks whether it is what it got.

A payload is a kind and a size in bytes; kinds that have one size only have size 0. Sender and
receiver make it by themselves, so that nothing about it needs to travel.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np

#: Kinds with sizes; `nested` with a size is the nested example with an array of that size in it.
SIZED = ("bytes", "array")
SMALL = ("int", "dict", "nested")
KINDS = (*SMALL, *SIZED)
#: What executors are asked to do.
CALLS = ("add-one", "trivial", "repeated", "repeated-memory")

LABELS = {
    "int": "int",
    "dict": "small dict",
    "nested": "nested example",
    "bytes": "bytes",
    "array": "array",
    "sparse": "array",
    "add-one": "add one to an array",
    "trivial": "trivial call, many in flight",
    "repeated": "one array in many calls",
    "repeated-memory": "one array in many calls",
}

_PERIOD = 251  # a prime, so that pages differ
_N_SAMPLES = 64
_MARKED_BYTES_LIMIT = 1_000_000  # marking bytes copies them
_MIB = 1 << 20


class Pose(NamedTuple):
    """Of the nested example: where a camera stands, in metres and radians."""

    frame: str
    x: float
    y: float
    heading: float


def nested(array_bytes: int = 0) -> dict[str, Any]:
    """Return what a robot might report of a drive: nested containers, scalars, small arrays and one large.

    It follows the documented example of py-sharedmemory in what it is made of (the same types,
    about as many of each and as deep), not in its words.

    Parameters
    ----------
    array_bytes : int, default 0
        The size of its large array in bytes, in whole depth images of 480 x 640 floats; 0 leaves
        the array out.
    """
    random = np.random.default_rng(1)
    report: dict[str, Any] = {
        "number": 4711,
        "title": "Second drive through the orchard, dry ground.",
        "complete": True,
        "camera": {
            "exposure": 0.004,
            "gain": 6,
            "lens": "wide",
            "noise": 2.5e-7,
            "firmware": b"\x07\x00\x2a\xff",
        },
        "pictures": [
            {
                "at": 0,
                "pixels": random.random((32, 32, 3), np.float32),
                "trees": 3,
                "sharpness": 0.72,
                "usable": [True, True, False],
                "format": ("colour", "raw", 32, 32),
            },
            {
                "at": 40,
                "pixels": random.integers(0, 256, (16, 16, 1), np.uint8),
                "trees": 1,
                "sharpness": 0.41,
                "usable": [False, True, True],
                "format": ("grey", "raw", 16, 16),
            },
        ],
        "log": [
            17,
            "started",
            True,
            12.25,
            b"\x02ready\x03",
            (3, "left", False),
            {"stops": [4, 9, {"because": "a hedgehog"}]},
            np.array([0.25, -1.5, 8.0]),
        ],
        "rows": {12, 14, 19},
        "sensors": {b"lidar", b"wheels", b"compass"},
        "column_types": [np.dtype("f8"), np.dtype("i2"), np.dtype("u4"), np.dtype("?")],
        "plan": {
            "morning": {
                "steps": [
                    "cross the bridge",
                    90210,
                    False,
                    (5, 25, 125),
                    {"turn": {"degrees": np.arange(0, 360, 72)}},
                    Pose("field", 4.5, -2.25, 1.57),
                ],
                "tools": {2, 3, 5, "shears"},
                "summary": ("dry", 21.5, b"\x10\x20", [8, 13, 21], {"wind": "from the west"}),
            }
        },
        "not_yet": {"harvest": [], "repairs": {}, "visitors": set(), "route": ()},
    }
    if array_bytes > 0:
        shape = (480, 640)
        n_images = max(array_bytes // (4 * int(np.prod(shape))), 1)
        report["depth"] = np.resize(np.arange(_PERIOD, dtype=np.float32), (n_images, *shape))
    return report


def make(kind: str, size: int) -> Any:
    """Return a payload; every page of it is written, except of `sparse` ones."""
    if kind == "int":
        return 12345
    if kind == "dict":
        return {"id": 7, "name": "frame", "ok": True, "score": 0.5}
    if kind == "nested":
        return nested(size)
    if kind == "bytes":
        # By repetition, for making a large one must not take twice its memory.
        period = bytes(range(_PERIOD - 1))
        whole = period * (size // len(period))
        return whole if len(whole) == size else whole + period[: size - len(whole)]
    if kind == "array":
        return np.arange(size // 8, dtype=np.float64) if size >= 8 else np.arange(size, dtype=np.uint8)
    if kind == "sparse":
        # A source that takes no memory of its own, for messages that the memory holds hardly once.
        sparse = np.zeros(size, dtype=np.uint8)
        sparse[_positions(size)] = 1
        return sparse
    raise ValueError(f"unknown kind of payload: {kind}")


def mark(obj: Any, kind: str, number: int) -> Any:
    """Return the payload with a number in it, so that the receiver tells a new one from an old one."""
    if kind == "int":
        return 12345 + number
    if kind == "dict":
        return {**obj, "id": number}
    if kind == "nested":
        obj["number"] = number
    elif kind == "array":
        obj[0] = number % 256
    elif kind == "bytes" and 4 <= len(obj) <= _MARKED_BYTES_LIMIT:
        return number.to_bytes(4, "little") + obj[4:]
    return obj


def check(obj: Any, kind: str, size: int, number: int) -> str | None:
    """Compare what was received with what was sent; None, or what is wrong.

    Of large payloads a sample is compared.
    """
    if kind in ("bytes", "array") and size > _MIB:
        length = size if kind == "bytes" else size // 8
        if len(obj) != length:
            return f"{len(obj)} elements instead of {length}"
        for i in _positions(length):
            expected = int(i) % (_PERIOD - 1) if kind == "bytes" else float(i)
            if kind == "array" and i == 0:
                expected = float(number % 256)
            if obj[int(i)] != expected:
                return f"element {i} is {obj[int(i)]} instead of {expected}"
        return None
    if kind == "sparse":
        good = len(obj) == size and bool(np.all(obj[_positions(size)] == 1)) and int(obj[1]) == 0
        return None if good else "the elements are others than those sent"
    expected = mark(make(kind, size), kind, number)
    return None if _same(obj, expected) else f"{str(obj)[:100]} instead of {str(expected)[:100]}"


def touch(obj: Any, kind: str) -> int:
    """Read a byte of every page, as a program would that uses what it got."""
    if kind == "bytes":
        return int(np.frombuffer(obj, dtype=np.uint8)[::4096].sum())
    if kind in ("array", "sparse"):
        return int(obj.view(np.uint8)[::4096].sum())
    if kind == "nested" and "depth" in obj:
        return int(obj["depth"].reshape(-1)[::1024].sum())
    return 0


def size_of(kind: str, size: int) -> int:
    """Return about how many bytes a message has."""
    if kind in SIZED or kind == "sparse" or kind in CALLS:
        return size
    return len(pickle.dumps(nested(0), 5)) + size if kind == "nested" else 100


def format_size(size: int) -> str:
    """Return a size in bytes with a decimal unit."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def describe(kind: str, size: int) -> str:
    """Return what people call a payload."""
    if kind == "nested" and size > 0:
        return f"nested example with {format_size(size)}"
    return LABELS[kind] if size == 0 else f"{LABELS[kind]}, {format_size(size)}"


def _positions(length: int) -> Any:
    return np.unique(np.linspace(0, length - 1, min(_N_SAMPLES, length)).astype(np.int64))


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))
    if isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
