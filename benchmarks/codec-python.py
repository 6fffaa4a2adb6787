#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compare encoding and decoding by codec python with pickle, protocol 5, in one process.

Both are given what they are used with: pickle.dumps() and pickle.loads() called from C, as multiprocessing's C parts
would at best, and the codec's functions called as the extension module calls them. Prints a table of nanoseconds and
ratios, medians of several runs taken in turns. Run it in `meson devenv`, or with the environment set likewise.
"""

import argparse
import ctypes
import dataclasses
import datetime
import json
import os
import pickle
import statistics
import sys
import timeit
from pathlib import Path
from typing import Any

import gi
import numpy as np

gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GObject  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent / "python"))
import payloads  # noqa: E402


@dataclasses.dataclass
class Step:
    """What a worker of reinforcement learning sends."""

    observation: list
    reward: float
    done: bool
    info: dict


NOW = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)

VALUES: dict[str, Any] = {
    "None": None,
    "int": 5,
    "int 64 bits": 2**62,
    "int 1000 bits": 2**1000,
    "float": 1.5,
    "str 10": "abcdefghij",
    "str 100 not ASCII": "é" * 100,
    "bytes 100": b"x" * 100,
    "bytes 1 MB": b"x" * 1000000,
    "dict of 3 ints": {"a": 1, "b": 20000, "c": -3},
    "dict of 30": {f"name_{i}": i * 1000 for i in range(30)},
    "tuple of 5": (1, "two", 3.0, None, True),
    "list of 1000 ints": list(range(1000)),
    "list of 1000 floats": [i * 0.5 for i in range(1000)],
    "list of 100 dicts": [{"id": i, "name": f"object {i}", "value": i * 0.1} for i in range(100)],
    "set of 100 ints": set(range(100)),
    "datetime with zone": NOW,
    "np.float32": np.float32(1.5),
    "ndarray of 10": np.arange(10.0),
    "ndarray of 1 MB": np.zeros(125000),
    "namedtuple": payloads.Pose("field", 4.5, -2.25, 1.57),
    "dataclass": Step([1.0, 2.0, 3.0, 4.0], 0.5, False, {"lives": 3}),
    "100 dataclasses": [Step([1.0, 2.0], 0.5, False, {"lives": i}) for i in range(100)],
    "nested example": payloads.nested(),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--library", default=os.environ.get("FERRY_BENCH_LIBRARY"), help="libcodec-python-loop.so")
    parser.add_argument("--seconds", type=float, default=0.02, help="how long each measurement takes")
    parser.add_argument("--repeat", type=int, default=9, help="measurements, of which the median counts")
    parser.add_argument("--json", help="write the numbers there")
    parser.add_argument("--only", help="values whose names contain this")
    options = parser.parse_args()
    if not options.library:
        parser.error("--library is needed, or FERRY_BENCH_LIBRARY")

    library = ctypes.PyDLL(options.library)
    codec = Ferry.Registry.get_default().create_codec("python")
    codec.set_property("pickle", True)
    pointer = ctypes.c_void_p(hash(codec))
    library.ferry_bench_encode.restype = ctypes.c_double
    library.ferry_bench_decode.restype = ctypes.c_double

    def encode(value: Any, room: Any, rounds: int) -> float:
        return library.ferry_bench_encode(
            pointer, ctypes.py_object(value), room, ctypes.c_size_t(len(room)), ctypes.c_long(rounds)
        )

    def decode(message: Any, rounds: int) -> float:
        return library.ferry_bench_decode(pointer, message, ctypes.c_size_t(len(message)), ctypes.c_long(rounds))

    def message_of(value: Any) -> bytes:
        boxed = GObject.Value()
        boxed.init(GObject.TYPE_PYOBJECT)
        boxed.set_boxed(value)
        return codec.encode_bytes(boxed).get_data()

    results = []
    header = f"{'ns':22}{'bytes':>9}{'pickle':>9}{'encode':>9}{'decode':>9}{'dumps':>9}{'loads':>9}"
    header += f"{'encode':>9}{'decode':>8}{'both':>7}"
    print(header)
    for name, value in VALUES.items():
        if options.only and options.only not in name:
            continue
        pickled = pickle.dumps(value, protocol=5)
        message = message_of(value)
        room = ctypes.create_string_buffer(len(message) + 64)
        aligned = (ctypes.addressof(room) + 63) & ~63
        view = (ctypes.c_char * len(message)).from_address(aligned)
        view.raw = message

        rounds = max(1, int(options.seconds / max(encode(value, view, 3), 1e-8)))
        dumps = timeit.Timer("dumps(value, 5)", globals={"dumps": pickle.dumps, "value": value})
        loads = timeit.Timer("loads(data)", globals={"loads": pickle.loads, "data": pickled})
        times: list[list[float]] = [[], [], [], []]
        for _ in range(options.repeat):
            times[0].append(encode(value, view, rounds))
            times[1].append(decode(view, rounds))
            times[2].append(dumps.timeit(rounds) / rounds)
            times[3].append(loads.timeit(rounds) / rounds)
        medians = [statistics.median(t) * 1e9 for t in times]
        ours, theirs = medians[0] + medians[1], medians[2] + medians[3]
        print(
            f"{name:22}{len(message):9}{len(pickled):9}"
            + "".join(f"{m:9.0f}" for m in medians)
            + f"{medians[2] / medians[0]:8.1f}x{medians[3] / medians[1]:7.1f}x{theirs / ours:6.1f}x"
        )
        results.append(
            {"value": name, "bytes": len(message), "pickle_bytes": len(pickled)}
            | dict(zip(("encode", "decode", "dumps", "loads"), medians))
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
