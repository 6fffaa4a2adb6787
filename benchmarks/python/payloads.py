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

LABELS = {
    "int": "int",
    "dict": "small dict",
    "nested": "nested example",
    "bytes": "bytes",
    "array": "array",
    "sparse": "array",
}

_PERIOD = 251  # a prime, so that pages differ
_N_SAMPLES = 64
_MARKED_BYTES_LIMIT = 1_000_000  # marking bytes copies them
_MIB = 1 << 20


class TestNamedTuple(NamedTuple):
    """Of the nested example."""

    name: str
    value: int


def nested(array_bytes: int = 0) -> dict[str, Any]:
    """Return the large example of py-sharedmemory's documentation.

    Parameters
    ----------
    array_bytes : int, default 0
        The size of its large array in bytes, in whole frames of 4 x 84 x 84 x 3 floats; 0
        leaves the array out. 1734082560 is the original.
    """
    random = np.random.default_rng(1)
    example: dict[str, Any] = {
        "test_id": 98765,
        "description": "This is a comprehensive test data object.",
        "is_active": True,
        "parameters": {
            "learning_rate": 0.001,
            "batch_size": 128,
            "optimizer": "adam",
            "epsilon": 1e-8,
            "byte_config": b"\x01\x02\x03\x04",
        },
        "data_samples": [
            {
                "sample_idx": 0,
                "image_data": random.random((32, 32, 3), np.float32),
                "label": 10,
                "confidence": 0.95,
                "flags": [True, False, True],
                "metadata": ("image", "png", 32, 32),
            },
            {
                "sample_idx": 1,
                "image_data": np.zeros((16, 16, 1), dtype=np.uint8),
                "label": 5,
                "confidence": 0.88,
                "flags": [False, False, True],
                "metadata": ("image", "jpeg", 16, 16),
            },
        ],
        "settings_list": [
            100,
            "high",
            False,
            0.5,
            b"setting_bytes",
            (1, "a", True),
            {"nested_list_dict": [1, 2, {"deep_key": "deep_value"}]},
            np.array([1.1, 2.2, 3.3]),
        ],
        "unique_identifiers": {101, 202, 303},
        "status_codes": {b"success", b"pending", b"failed"},
        "data_types_used": [np.dtype("float32"), np.dtype("int64"), np.dtype("uint8"), np.dtype("bool_")],
        "complex_nested_structure": {
            "level1_dict": {
                "level2_list": [
                    "string_in_list",
                    12345,
                    True,
                    (10, 20, 30),
                    {"level3_dict": {"array_in_dict": np.arange(5)}},
                    TestNamedTuple(name="example", value=99),
                ],
                "level2_set": {9, 8, 7, "set_string"},
                "level2_tuple": ("tuple_item_1", 56.78, b"tuple_bytes", [1, 2, 3], {"nested_in_tuple": "hello"}),
            }
        },
        "empty_structures": {"empty_list": [], "empty_dict": {}, "empty_set": set(), "empty_tuple": ()},
    }
    if array_bytes > 0:
        shape = (4, 84, 84, 3)
        n_frames = max(array_bytes // (4 * int(np.prod(shape))), 1)
        example["large_array_example"] = np.resize(np.arange(_PERIOD, dtype=np.float32), (n_frames, *shape))
    return example


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
        obj["test_id"] = number
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
    if kind == "nested" and "large_array_example" in obj:
        return int(obj["large_array_example"].reshape(-1)[::1024].sum())
    return 0


def size_of(kind: str, size: int) -> int:
    """Return about how many bytes a message has."""
    if kind in SIZED or kind == "sparse":
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
