# SPDX-License-Identifier: LGPL-2.1-or-later
"""Codec python: any object goes through a message and comes back as it was."""

import array
import collections
import copyreg
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import gc
import math
import multiprocessing
import multiprocessing.context
import multiprocessing.reduction
import os
import pathlib
import pickle
import random
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
import types
import typing
import uuid
import zoneinfo

import gi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GLib, GObject  # noqa: E402

ALIGNMENT = 64
HEADER_SIZE = 16


def make_codec(pickle_allowed: bool, decode_to: str = "object"):
    codec = Ferry.Registry.get_default().create_codec("python")
    codec.set_property("decode-to", decode_to)
    codec.set_property("pickle", pickle_allowed)
    return codec


PLAIN = make_codec(False)
PICKLE = make_codec(True)
VARIANT = make_codec(False, "variant")


def value_of(thing) -> GObject.Value:
    """Return a GValue of type PyObject."""
    value = GObject.Value()
    value.init(GObject.TYPE_PYOBJECT)
    value.set_boxed(thing)
    return value


def encode(thing, codec=PLAIN) -> bytes:
    return codec.encode_bytes(value_of(thing)).get_data()


def decode(message: bytes, codec=PLAIN, writable: bool = True):
    """Decode what arrived in memory of the receiver's own, or in memory that others read too."""
    if writable:
        buffer = Ferry.Buffer.new(len(message))
        assert buffer.fill(0, message)
    else:
        buffer = Ferry.Buffer.new_bytes(GLib.Bytes.new(message))
    return codec.decode(buffer, 1)[1]


def round_trip(thing, codec=PLAIN):
    return decode(encode(thing, codec), codec)


def bits_of(scalar: np.generic) -> bytes:
    """Without the padding of long doubles, which is whatever was in memory."""
    data = scalar.tobytes()
    if scalar.dtype.char not in "gG" or np.finfo(np.longdouble).nmant != 63:
        return data
    return b"".join(data[at : at + 10] for at in range(0, len(data), np.dtype("g").itemsize))


def assert_same(a, b) -> None:
    """Fail unless both are the same down to types, order and bits."""
    assert type(a) is type(b)
    if isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b)
    elif isinstance(a, complex):
        assert struct.pack("dd", a.real, a.imag) == struct.pack("dd", b.real, b.imag)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_same(x, y)
    elif isinstance(a, dict):
        assert len(a) == len(b)
        for x, y in zip(a.items(), b.items()):
            assert_same(x, y)
    elif isinstance(a, (set, frozenset)):
        # NaN is found by identity only.
        assert sorted(map(repr, a)) == sorted(map(repr, b))
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.hasobject:
            assert_same(a.tolist(), b.tolist())
        else:
            assert a.tobytes() == b.tobytes()
    elif isinstance(a, np.generic):
        assert a.dtype == b.dtype
        assert bits_of(a) == bits_of(b)
    elif isinstance(a, memoryview):
        assert (a.format, a.shape, a.itemsize) == (b.format, b.shape, b.itemsize)
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, decimal.Decimal):
        assert a.as_tuple() == b.as_tuple()
    elif isinstance(a, (dt.datetime, dt.time)):
        assert a == b
        assert a.fold == b.fold
        assert_same(a.tzinfo, b.tzinfo)
    else:
        assert a == b


NAN_WITH_PAYLOAD = struct.unpack("d", struct.pack("Q", 0x7FF8_0000_DEAD_BEEF))[0]

PLAIN_VALUES = [
    None,
    True,
    False,
    *[
        sign * (1 << bits) + delta
        for bits in (0, 6, 7, 8, 15, 30, 31, 32, 60, 62, 63, 64, 65, 127, 2048, 40000)
        for sign in (1, -1)
        for delta in (-1, 0, 1)
    ],
    *(0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, NAN_WITH_PAYLOAD, 5e-324, sys.float_info.max),
    *(1 + 2j, complex(-0.0, math.nan), complex(math.inf, -0.0)),
    *("", "a", "abc", "é", "ÿ", "Ā", "€uro", "😀", "a\0b", "\ud800", "\udfff x", "x" * 63, "x" * 64, "x" * 2047),
    *("x" * 2048, "é" * 3000, "€" * 3000, "😀" * 3000, "\uffff", "\U0010ffff"),
    *(b"", b"\0", b"x" * 63, b"x" * 2047, b"x" * 2048, b"x" * 100000, bytearray(), bytearray(b"ab"), bytearray(5000)),
    *((), (1,), (1, (2, (3, ()))), [], [[]], [1, "a", None], {}, {"a": 1}, {1: 2, "b": [3], (4, 5): {6}, None: b""}),
    *({"z": 1, "a": 2, "m": {"y": 3, "b": 4}}, {i: str(i) for i in range(1000)}, {f"k{i}": i for i in range(3000)}),
    *(set(), {1, "a", (2,)}, frozenset(), frozenset({frozenset({1})}), {"s": {1, 2}, "f": frozenset("ab")}),
    *(range(0), range(5), range(10**30, 0, -(10**29)), slice(None), slice(1, "a", [2]), Ellipsis, NotImplemented),
    *map(decimal.Decimal, ("0", "-0", "1.50", "1E+500", "-1E-500", "NaN", "-sNaN123", "Infinity", "9" * 100)),
    *(fractions.Fraction(1, 3), fractions.Fraction(-(10**50), 7), uuid.UUID(int=0), uuid.uuid4(), uuid.uuid1()),
    *(dt.date.min, dt.date.max, dt.time.min, dt.time.max, dt.time(1, fold=1), dt.datetime.min, dt.datetime.max),
    *(dt.timedelta.min, dt.timedelta.max, dt.timedelta(-1, 1, 1), dt.UTC, dt.timezone(dt.timedelta(hours=2))),
    *(dt.timezone(dt.timedelta(seconds=-1), "näme"), dt.timezone(dt.timedelta(0), "Z")),
    zoneinfo.ZoneInfo("Europe/Berlin"),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
    dt.time(12, tzinfo=dt.UTC),
]

NUMPY_VALUES = [
    *(t(1) for t in (np.bool_, np.int8, np.int16, np.int32, np.int64, np.longlong, np.uint8, np.uint64, np.ulonglong)),
    *(t(1.5) for t in (np.float16, np.float32, np.float64, np.longdouble, np.complex64, np.complex128, np.clongdouble)),
    *(np.float64(math.nan), np.datetime64("2024-02-29T12", "h"), np.datetime64("NaT"), np.timedelta64(5, "ns")),
    *(np.str_("hé"), np.str_(""), np.bytes_(b"ab"), np.void(b"abc"), np.array((1, 2.5), "i4,f8")[()]),
    *map(np.dtype, ("f4", ">i2", "O", "U7", "S0", "V3", "M8[25s]", "m8", "?", "g", "q", "Q", "l")),
    *(np.dtype([("a", "f4"), ("b", "i8", (3,))]), np.dtype([("n", [("x", "u1")])]), np.dtype("i1,f8", align=True)),
    *(np.arange(5), np.array(5.0), np.zeros((0, 3)), np.zeros((2, 0), "U3"), np.arange(24).reshape(2, 3, 4)),
    *(np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(10)[::-2], np.arange(12).reshape(3, 4).T[1:]),
    *(np.array([1, None, "x", [1], {2: 3}], object), np.array([[1], [None]], object), np.empty((0,), object)),
    *(np.array(None, object), np.array(["a", "bc"]), np.array([b"a"]), np.array(["2024"], "M8[D]"), np.array([1 + 2j])),
    np.array([(1, 2.5, "x")], [("a", "i4"), ("b", "f8"), ("c", "U3")]),
    np.broadcast_to(np.arange(3), (4, 3)),
]


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(typing.NamedTuple):
    x: int
    y: typing.Any = None


OldPoint = collections.namedtuple("OldPoint", "x y", defaults=[0])


class PointWithInit(OldPoint):
    """Has a __dict__, and a __new__ of its own."""

    def __new__(cls, x, y=0):
        self = super().__new__(cls, x, y)
        self.made = True
        return self


class Outer:
    class Inner(typing.NamedTuple):
        a: int

    class Thing:
        def __init__(self, value):
            self.value = value

        def __eq__(self, other):
            return type(other) is type(self) and other.__dict__ == self.__dict__

        def method(self):
            return self.value


@dataclasses.dataclass
class Data:
    a: int
    b: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class FrozenData:
    a: int
    b: tuple = ()


@dataclasses.dataclass(slots=True)
class SlotsData:
    a: int
    b: dict


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlotsData:
    a: int


class Slots:
    __slots__ = ("a", "b", "__weakref__")

    def __init__(self, a=None):
        self.a = a

    def __eq__(self, other):
        return type(other) is Slots and other.a == self.a and hasattr(other, "b") == hasattr(self, "b")


class SlotsAndDict(Slots):
    def __eq__(self, other):
        return type(other) is SlotsAndDict and other.a == self.a and other.__dict__ == self.__dict__


class WithState:
    def __init__(self, value):
        self.value = value

    def __getstate__(self):
        return ("state", self.value)

    def __setstate__(self, state):
        assert state[0] == "state"
        self.value = state[1]

    def __eq__(self, other):
        return type(other) is WithState and other.value == self.value


class WithNewArgs:
    def __new__(cls, a, *, b):
        self = super().__new__(cls)
        self.a, self.b = a, b
        return self

    def __getnewargs_ex__(self):
        return (self.a,), {"b": self.b}

    def __eq__(self, other):
        return type(other) is WithNewArgs and (other.a, other.b) == (self.a, self.b)


class Registered:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Registered and other.value == self.value


copyreg.pickle(Registered, lambda r: (Registered, (r.value + 1,)))


class Setter:
    """Reduces to six items."""

    def __reduce__(self):
        return (Setter, (), {"a": 1}, None, None, set_setter_state)

    def __eq__(self, other):
        return type(other) is Setter


def set_setter_state(thing, state):
    thing.by_setter = state


class IntSub(int):
    pass


class StrSub(str):
    pass


class BytesSub(bytes):
    pass


class FloatSub(float):
    pass


class ListSub(list):
    pass


class DictSub(dict):
    pass


class SetSub(set):
    pass


class TupleSub(tuple):
    pass


class ArraySub(np.ndarray):
    pass


def with_attribute(thing):
    thing.extra = [1]
    return thing


OBJECTS = [
    *(Colour.RED, Colour.GREEN, Level.LOW, Access.READ | Access.WRITE, Point(1), Point(1, Point(2)), OldPoint(1, 2)),
    *(PointWithInit(1), Outer.Inner(1), Outer.Thing([1]), Data(1), Data(1, [Data(2)]), FrozenData(1), SlotsData(1, {})),
    *(FrozenSlotsData(1), Slots(1), with_attribute(SlotsAndDict(1)), WithState(1), WithNewArgs(1, b=2)),
    *(IntSub(5), with_attribute(IntSub(2**100)), StrSub("a"), BytesSub(b"a"), FloatSub(1.5), ListSub([1, [2]])),
    *(with_attribute(ListSub()), DictSub(a=1), with_attribute(DictSub()), SetSub({1}), TupleSub((1, 2))),
    *(collections.OrderedDict(b=1, a=2), collections.Counter("abca"), collections.deque([1, 2], 5)),
    *(collections.defaultdict(list, {1: [2]}), collections.ChainMap({1: 2}), types.SimpleNamespace(a=1)),
    *(int, type(None), type(...), type(NotImplemented), Outer.Inner, Colour, len, os.path.join, set_setter_state),
    *(re.compile("a+"), pathlib.PurePosixPath("/a"), array.array("d", [1.5]), ValueError, functools.partial),
    *(object.__new__(object).__class__, dt.datetime, np.ndarray, np.float32, np.add),
]


@pytest.mark.parametrize("value", PLAIN_VALUES, ids=lambda v: f"{type(v).__name__}")
def test_plain(value):
    """Types of the standard library arrive exactly, without pickle."""
    assert_same(value, round_trip(value))
    assert_same([value, {"k": value}], round_trip([value, {"k": value}]))


@pytest.mark.parametrize("value", NUMPY_VALUES, ids=lambda v: f"{type(v).__name__}-{getattr(v, 'dtype', v)}")
def test_numpy(value):
    """So do those of NumPy."""
    assert_same(value, round_trip(value))
    assert_same((value,), round_trip((value,)))
    if isinstance(value, np.dtype):
        assert round_trip(value).char == value.char
        assert round_trip(value).isalignedstruct == value.isalignedstruct


@pytest.mark.parametrize("value", OBJECTS, ids=lambda v: f"{type(v).__name__}")
def test_objects(value):
    """Objects of classes arrive where pickle is allowed, and tell so where it is not."""
    arrived = round_trip(value, PICKLE)
    assert type(arrived) is type(value)
    assert arrived == value
    assert getattr(arrived, "__dict__", None) == getattr(value, "__dict__", None) or isinstance(value, type)

    with pytest.raises(GLib.Error, match="pickle=yes") as caught:
        encode([value])
    assert caught.value.matches(Ferry.error_quark(), Ferry.Error.CODEC)
    with pytest.raises(GLib.Error, match="pickle=yes"):
        decode(encode([value], PICKLE))


def test_refusal_names_the_type():
    with pytest.raises(GLib.Error, match=rf"type {__name__}\.Outer\.Thing "):
        encode({"a": Outer.Thing(1)})
    with pytest.raises(GLib.Error, match=rf"{__name__}.*Outer\.Thing"):
        decode(encode({"a": Outer.Thing(1)}, PICKLE))


def test_registered_reducers():
    assert round_trip(Registered(1), PICKLE).value == 2
    assert round_trip(Outer.Thing(5).method, PICKLE)() == 5
    assert round_trip([].append, PICKLE).__self__ == []
    assert round_trip(functools.partial(int, "5"), PICKLE)() == 5
    error = round_trip(ValueError("a", 1), PICKLE)
    assert type(error) is ValueError and error.args == ("a", 1)
    assert round_trip(Setter(), PICKLE).by_setter == {"a": 1}


def test_array_subclasses():
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    arrived = round_trip(masked, PICKLE)
    assert type(arrived) is np.ma.MaskedArray
    assert arrived.mask.tolist() == [False, True]
    assert arrived.data.tolist() == [1, 2]
    arrived = round_trip(np.arange(5).view(ArraySub), PICKLE)
    assert type(arrived) is ArraySub and arrived.tolist() == [0, 1, 2, 3, 4]
    records = np.rec.array([(1, "a")], dtype=[("x", "i4"), ("y", "U1")])
    arrived = round_trip(records, PICKLE)
    assert type(arrived) is np.recarray and arrived.x.tolist() == [1]
    holder = np.array([(1, [2])], dtype=[("a", "i4"), ("b", "O")])
    assert round_trip(holder, PICKLE)["b"].tolist() == [[2]]


def test_multiprocessing_reducers():
    """What multiprocessing passes to a process that it spawns passes then, and not elsewhere."""
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(GLib.Error, match="RuntimeError"):
        encode(lock, PICKLE)
    multiprocessing.context.set_spawning_popen(object())
    try:
        other = round_trip(lock, PICKLE)
    finally:
        multiprocessing.context.set_spawning_popen(None)
    lock.acquire()
    assert not other.acquire(block=False)
    lock.release()

    multiprocessing.reduction.ForkingPickler.register(SetSub, lambda s: (SetSub, ([99],)))
    try:
        assert round_trip(SetSub(), PICKLE) == {99}
    finally:
        del multiprocessing.reduction.ForkingPickler._extra_reducers[SetSub]


def test_shared_references():
    a, text, data = [1], "x" * 100, b"y" * 5000
    sent = [a, a, (a,), {"k": a}, text, text, data, data]
    got = round_trip(sent)
    assert got[0] is got[1] is got[2][0] is got[3]["k"]
    assert got[4] is got[5] and got[6] is got[7]
    assert len(encode(sent)) < 5000 + 400

    pair = (a, 1)
    got = round_trip([pair, pair, frozenset([1, 2])] + [a] * 1000)
    assert got[0] is got[1] and got[0][0] is got[-1]

    numbers = np.arange(5)
    got = round_trip({"a": numbers, "b": [numbers], "c": numbers[1:]})
    assert got["a"] is got["b"][0] and got["c"].tolist() == [1, 2, 3, 4]

    keys = [{"name": i, "other": i} for i in range(3)]
    assert round_trip(keys) == keys


def test_shared_with_objects():
    """One memo serves containers and objects."""
    a = [1]
    thing, other = Outer.Thing(a), WithState(a)
    got = round_trip([thing, other, thing, a, Data(1, a), ListSub([a]), collections.OrderedDict(a=a), Point(a)], PICKLE)
    assert got[0] is got[2]
    assert all(x is got[3] for x in (got[0].value, got[1].value, got[4].b, got[5][0], got[6]["a"], got[7].x))


def test_cycles():
    a: list = []
    a.append(a)
    got = round_trip(a)
    assert got[0] is got

    d: dict = {"x": [1]}
    d["self"], d["in"] = d, (d,)
    got = round_trip(d)
    assert got["self"] is got and got["in"][0] is got

    t: tuple = ([],)
    t[0].append(t)
    got = round_trip(t)
    assert type(got) is tuple and got[0][0] is got

    objects = np.empty(2, object)
    objects[0] = objects
    got = round_trip(objects)
    assert got[0] is got and got[1] is None


def test_shared_reduced_arrays():
    """Arrays that are pickled must not be found in their own description."""
    with_objects = np.zeros(2, [("a", "O"), ("b", "i4")])
    with_objects["a"] = "text", [1]
    for sent in ([with_objects], [with_objects, with_objects], {"a": [with_objects]}):
        kept = [with_objects, sent]  # so that it is not the only reference
        arrived = round_trip(sent, PICKLE)
        first = arrived["a"][0] if isinstance(arrived, dict) else arrived[0]
        assert first.dtype == with_objects.dtype and first.tolist() == with_objects.tolist()
        assert len(arrived) == 1 or arrived[0] is arrived[1]
        del kept


def test_cycles_of_objects():
    thing = Outer.Thing(None)
    thing.value = [thing, {"t": thing}]
    got = round_trip(thing, PICKLE)
    assert got.value[0] is got and got.value[1]["t"] is got

    point = Point([])
    point.x.append(point)
    got = round_trip(point, PICKLE)
    assert type(got) is Point and got.x[0] is got

    holder = WithState(None)
    holder.value = frozenset([holder]) if WithState.__hash__ else (holder,)
    got = round_trip(holder, PICKLE)
    assert got.value[0] is got
    got = round_trip(holder.value, PICKLE)
    assert got[0].value is got

    ordered = collections.OrderedDict()
    ordered["self"] = ordered
    got = round_trip(ordered, PICKLE)
    assert got["self"] is got

    items = ListSub()
    items.append(items)
    got = round_trip(items, PICKLE)
    assert got[0] is got


class Node:
    def __init__(self):
        self.peers = None


def test_cycle_through_frozenset():
    node = Node()
    node.peers = frozenset([node])
    got = round_trip(node, PICKLE)
    assert next(iter(got.peers)) is got
    got = round_trip(node.peers, PICKLE)
    assert type(got) is frozenset and next(iter(got)).peers is got


def test_views():
    """Arrays and memoryviews lie in the message, and keep it."""
    for writable in (True, False):
        got = decode(encode([np.arange(10.0), memoryview(bytearray(b"abc"))]), writable=writable)
        gc.collect()
        assert got[0].flags.writeable == writable
        assert got[1].readonly != writable
        assert got[0].ctypes.data % ALIGNMENT == 0 or not writable
        assert got[0].tolist() == list(range(10))
        assert bytes(got[1]) == b"abc"
        assert not got[0].flags.owndata
    got = decode(encode([np.arange(10.0)]))
    got[0][:] = 5
    assert got[0].sum() == 50

    readonly = np.arange(3)
    readonly.flags.writeable = False
    assert not round_trip(readonly).flags.writeable
    assert round_trip(memoryview(b"abc")).readonly


def test_memoryviews():
    base = np.arange(24, dtype="i4").reshape(2, 3, 4)
    for view in (memoryview(base), memoryview(base)[1:], memoryview(np.arange(10))[::-3], memoryview(b"abcdef")[::2]):
        got = round_trip(view)
        assert_same(view, got)
        assert got.tolist() == view.tolist()
        assert got.c_contiguous
    assert_same(memoryview(np.array(5.0)), round_trip(memoryview(np.array(5.0))))
    structured = memoryview(np.zeros(3, "i4,f8"))
    got = round_trip(structured)
    assert (got.format, got.itemsize, got.nbytes) == (structured.format, structured.itemsize, structured.nbytes)


def test_out_of_band():
    """Large data within pickles is not copied by it."""

    class Big:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            assert protocol == 5
            return bytearray_of, (pickle.PickleBuffer(self.data),)

    data = bytearray(b"x" * 100000)
    message = encode(Big(data), PICKLE)
    assert len(message) < len(data) + 300
    arrived = decode(message, PICKLE)
    assert arrived == data


def bytearray_of(view):
    assert isinstance(view, memoryview) and not view.readonly
    return bytearray(view)


def test_out_of_band_released_meanwhile():
    """What a buffer referred to stays until it is copied."""
    data = bytearray(b"x" * 100000)
    buffer = pickle.PickleBuffer(data)

    class Releases:
        def __reduce__(self):
            buffer.release()
            with pytest.raises(BufferError):
                data.clear()
            return int, ()

    arrived = round_trip([buffer, Releases()], PICKLE)
    assert arrived == [data, 0]
    data.clear()
    with pytest.raises(GLib.Error, match="released"):
        encode(buffer)


def test_layout_of_bytes():
    """A receiver may turn the only bytes of a message into an object where they lie."""
    for size in (2048, 100000):
        message = encode(b"\x55" * size)
        assert message[2 * ALIGNMENT : 2 * ALIGNMENT + size] == b"\x55" * size
        assert message[ALIGNMENT : 2 * ALIGNMENT] == bytes(ALIGNMENT)
        assert message[2 * ALIGNMENT + size :] == b"\0"
    assert len(encode(5)) == HEADER_SIZE + 1
    assert len(encode(b"x" * 100)) == HEADER_SIZE + 102


def test_errors():
    """What can't be encoded says why, and the next value can."""
    thread_lock = threading.Lock()

    class Local:
        pass

    class Raises:
        def __reduce__(self):
            raise KeyError("no way")

    class Wrong:
        def __reduce__(self):
            return 5

    for value, text in (
        (thread_lock, "cannot pickle '_thread.lock' object"),
        (lambda: 0, "lambda"),
        (Local(), "Local"),
        (Raises(), "KeyError: 'no way'"),
        (Wrong(), "gave a int"),
        (sys, "cannot pickle 'module' object"),
        ((x for x in ()), "cannot pickle 'generator' object"),
    ):
        with pytest.raises(GLib.Error, match=re.escape(text)) as caught:
            encode([np.zeros(1000), b"x" * 5000, value], PICKLE)
        assert caught.value.matches(Ferry.error_quark(), Ferry.Error.CODEC)
        assert round_trip([1, value.__class__.__name__]) == [1, value.__class__.__name__]


@pytest.mark.parametrize("order", "<>")
def test_characters_of_scalars(order):
    """NumPy would make a str of characters that there are not."""
    text = "h\U0010ffff"
    scalar = np.array(text, f"{order}U2")[()]
    assert round_trip(scalar) == text
    message = bytearray(encode(scalar))
    at = message.index((0x10FFFF).to_bytes(4, sys.byteorder))
    message[at : at + 4] = (0x110000).to_bytes(4, sys.byteorder)
    with pytest.raises(GLib.Error, match="character"):
        decode(bytes(message))


def test_depth():
    def nested(make, depth):
        value = None
        for _ in range(depth):
            value = make(value)
        return value

    for make in (lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: slice(v), lambda v: Outer.Thing(v)):
        deep = nested(make, 100000)
        with pytest.raises(GLib.Error, match="RecursionError"):
            encode(deep, PICKLE)
        while deep is not None:  # one level after the other, or freeing it overflows the stack
            if isinstance(deep, (list, tuple)):
                deep = deep[0]
            elif isinstance(deep, slice):
                deep = deep.start
            else:
                deep = deep["k"] if isinstance(deep, dict) else deep.value
        shallow = nested(make, 150)
        assert round_trip(shallow, PICKLE) == shallow

    # Tags of lists, and of others, without an end.
    for stream in (b"\x1b\x01" * 100000, b"\x2a" * 100000, b"\x29" * 100000, b"\x20\x00" * 100000, b"\x2b" * 100000):
        with pytest.raises(GLib.Error):
            decode(message_of(stream))
    old = sys.getrecursionlimit()
    sys.setrecursionlimit(1000000)
    try:
        with pytest.raises(GLib.Error, match="levels"):
            decode(message_of(b"\x1b\x01" * 100000))
    finally:
        sys.setrecursionlimit(old)


def message_of(stream: bytes) -> bytes:
    return (b"l" if sys.byteorder == "little" else b"B") + bytes(7) + struct.pack("=Q", len(stream)) + stream


@pytest.mark.parametrize("name", ["S4294967295", "U1073741823", "V2147483648", "i4,i4", "3i4", "(2,)f8"])
def test_dtype_names(name):
    """NumPy makes negative sizes of some, and the encoder sends only simple ones by name."""
    with pytest.raises(GLib.Error, match="codec 'python'"):
        got = decode(message_of(encode(np.dtype("f8"))[16:].replace(b"\x03<f8", b"%c" % len(name) + name.encode())))
        assert got is None, got.itemsize


def number(n: int) -> bytes:
    result = b""
    while n > 0x7F:
        result += bytes([n & 0x7F | 0x80])
        n >>= 7
    return result + bytes([n])


TUPLE, LIST, DICT, SET, FROZENSET, REF = range(26, 26 + 6)
OBJECT_ARRAY = encode(np.array([None], object))[16]
SLICE = encode(slice(1))[16]
SHARED, NONE, ZERO = 0x80, 1, 0x40


def doubled(levels: int, first: int) -> bytes:
    """Tuples within tuples, each of which is the first of the next and again its second: the stream from `first` on."""
    stream = bytes([SHARED | TUPLE, 2]) * levels
    stream += bytes([SHARED | TUPLE, 0])
    for level in range(levels - 1, -1, -1):
        stream += bytes([REF]) + number(first + 2 * (level + 1))
    return stream


def test_tags_of_tests():
    assert decode(message_of(bytes([LIST, 2, DICT, 1, NONE, ZERO, TUPLE, 2, SET, 0, FROZENSET, 0]))) == [
        {None: 0},
        (set(), frozenset()),
    ]
    assert decode(message_of(doubled(2, 0))) == (((), ()), ((), ()))


@pytest.mark.parametrize("container", [SET, FROZENSET, DICT])
def test_hashing_ends(container):
    """Keys that take years to hash are refused, wherever they come from; such that take a moment are not."""
    end = b"" if container != DICT else bytes([NONE])
    assert len(decode(message_of(bytes([container, 1]) + doubled(15, 2) + end))) == 1
    inner = doubled(60, 2)
    for stream in (
        bytes([container, 1]) + doubled(60, 2) + end,
        bytes([LIST, 2]) + inner + bytes([container, 1, REF, 2]) + end,
        bytes([LIST, 2]) + inner + bytes([container, 1, TUPLE, 1, REF, 2]) + end,
        bytes([LIST, 2]) + doubled(64, 2) + bytes([container, 1, TUPLE, 1, REF, 4]) + end,
        bytes([LIST, 2]) + inner + bytes([container, 1, SLICE, REF, 2, NONE, NONE]) + end,
        # each of them may, and all together may not
        bytes([LIST, 2]) + doubled(20, 2) + bytes([container, 100]) + (bytes([REF, 2]) + end) * 100,
    ):
        with pytest.raises(GLib.Error, match="repeat values too often"):
            decode(message_of(stream))


def test_shared_keys():
    """References to keys are common, and no reason to refuse anything."""
    key = ("a" * 100, 1)
    name = "b" * 100
    sent = [{key: i, name: i} for i in range(100000)]
    assert round_trip(sent) == sent


@pytest.mark.parametrize("head", [[TUPLE], [LIST], [DICT], [OBJECT_ARRAY, 0, 1]])
def test_claimed_items(head):
    """Containers within containers can't all have as many items as there are bytes left."""
    size = 1 << 18
    items = size // (2 if head == [DICT] else 1)
    key = bytes([NONE]) if head == [DICT] else b""
    message = message_of((bytes(head) + number(items) + key) * 20 + bytes([NONE]) * (size + 100))
    tracemalloc.start()
    try:
        with pytest.raises(GLib.Error, match="the stream ends within a value"):
            decode(message)
        assert tracemalloc.get_traced_memory()[1] < 80 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("format_", ["e", "g", "F", "D", "u", "w", "z", "K", "@e", "@k"])
def test_formats_of_memoryviews(format_):
    """The item size must be that of the format; a single letter that is not known may be of a later Python."""
    view = encode(memoryview(bytes(6)).cast("b"))
    plain = b"\x01\x01b\x01\x06"
    assert plain in view
    bad = view.replace(plain, b"\x01" + bytes([len(format_)]) + format_.encode() + b"\x01\x06")
    stream_size = struct.unpack_from("=Q", bad, 8)[0]
    bad = bad[:8] + struct.pack("=Q", stream_size + len(format_) - 1) + bad[16:]
    with pytest.raises(GLib.Error, match="codec 'python'"):
        decode(bad)


@pytest.mark.parametrize("nested", [False, True])
def test_variants_of_bad_arrays(nested):
    """Elements have the size that the format says, and all of the format is looked at."""
    to_variant = make_codec(False, "variant")
    sent = np.zeros(4, "f8")
    message = encode([sent] if nested else sent)
    header = struct.pack("<BBHIII", 0, 1, 3, 8, 0, 0)
    assert message.count(header) == 1 and message.count(b"<f8") == 1
    decode(message, to_variant)
    for damaged in (
        message.replace(header + struct.pack("<q", 4), struct.pack("<BBHIIIq", 0, 1, 3, 4, 0, 0, 8)),
        message.replace(header + struct.pack("<q", 4), struct.pack("<BBHIIIq", 0, 1, 3, 32, 0, 0, 1)),
        message.replace(b"<f8", b"<f4"),
        message.replace(b"<f8", b"<f\0"),
        message.replace(b"<f8", b"f8\0"),
    ):
        assert damaged != message and len(damaged) == len(message)
        with pytest.raises(GLib.Error, match="codec 'python'"):
            decode(damaged, to_variant)


def test_padding_of_long_doubles():
    """Of 16 bytes only 10 are the number; what is in the others stays here."""
    if np.finfo(np.longdouble).nmant != 63:
        pytest.skip("only the format of x87 has padding")
    for scalar in (np.longdouble(1) / 3, np.clongdouble(1 + 2j) / 3):
        message = encode(scalar)
        assert decode(message) == scalar
        for at in range(16 + 3, len(message), 16):
            assert message[at + 10 : at + 16] == bytes(6)


def test_incomplete_decimal():
    """Nothing is called when what it would be called with is missing."""
    message = encode(decimal.Decimal(1))
    for bad in (message_of(message[16:17]), message_of(message[16:17] + bytes([NONE])), message_of(message[16:-1])):
        with pytest.raises(GLib.Error, match="codec 'python'") as error:
            decode(bad)
        assert "SystemError" not in error.value.message
    message = encode(range(1, 100, 1000))
    for i in range(17, len(message)):
        with pytest.raises(GLib.Error, match="was it cut"):
            decode(message_of(message[16:i]))


def test_class_that_drops_its_object():
    """Looking at a class for the first time runs code of its metaclass."""
    container = []

    class Meta(type):
        def __getattribute__(cls, name):
            container.clear()
            return super().__getattribute__(name)

    for _ in range(3):
        container.append(Meta("Dropped", (), {"__reduce_ex__": lambda self, protocol: (int, ())})())
        for codec in (PLAIN, PICKLE):
            try:
                encode(container, codec)
            except GLib.Error:
                pass


def test_changes_meanwhile():
    """Code that runs while a container is encoded may change it: an error, or one of both states, never a crash."""
    victims = []

    class Evil:
        def __init__(self, victim):
            self.victim = victim

        def __reduce__(self):
            self.victim.clear()
            gc.collect()
            return int, ()

    for make in (
        lambda: [[1], None, [2]],
        lambda: {"a": [1], "evil": None, "b": [2]},
        lambda: {1: [1], 2: None, 3: [3]},
    ):
        victim = make()
        evil = Evil(victim)
        if isinstance(victim, list):
            victim[1] = evil
        else:
            victim[list(victim)[1]] = evil
        victims.append(victim)
        with pytest.raises(GLib.Error, match="changed its size"):
            encode(victim, PICKLE)
    s = set()
    s.update([Evil(s), 1, 2, 3])
    with pytest.raises(GLib.Error, match="changed its size"):
        encode(s, PICKLE)


def test_variants_from_python():
    """Plain messages can be read without Python."""

    def as_variant(thing) -> str:
        buffer = Ferry.Buffer.new_bytes(GLib.Bytes.new(encode(thing, PICKLE)))
        return VARIANT.decode(buffer, 1)[1].print_(True)

    assert as_variant(None) == "@mv nothing"
    assert as_variant([True, 1, 2**63, 1.5, "ä", b"\x01\x02", (1, "a"), {"k": 1}, {1: 2}]) == (
        "[<true>, <int64 1>, <uint64 9223372036854775808>, <1.5>, <'ä'>, <[byte 0x01, 0x02]>, <(int64 1, 'a')>, "
        "<{'k': <int64 1>}>, <[(<int64 1>, <int64 2>)]>]"
    )
    assert as_variant(1 + 2j) == "(1.0, 2.0)"
    assert as_variant(decimal.Decimal("1.50")) == "('Decimal', <'1.50'>)"
    assert as_variant(np.float32(1.5)) == "1.5"
    assert as_variant([np.array([1, 2], "u1")]) == "[<('|u1', [int64 2], [int64 1], [byte 0x01, 0x02])>]"
    assert as_variant(dt.date(2024, 2, 29)) == "('date', <(2024, 2, 29)>)"
    for value in (Outer.Thing(1), len, Colour.RED, range(5)):
        with pytest.raises(GLib.Error, match="only a Python program"):
            as_variant(value)
    loop: list = []
    loop.append(loop)
    with pytest.raises(GLib.Error, match="contains itself"):
        as_variant(loop)


def test_variants_to_python():
    def from_variant(text: str):
        value = GObject.Value()
        value.init(GObject.TYPE_VARIANT)
        value.set_variant(GLib.Variant.parse(None, text, None, None))
        return decode(PLAIN.encode_bytes(value).get_data())

    for text, expected in (
        ("true", True),
        ("byte 5", 5),
        ("int16 -3", -3),
        ("uint64 18446744073709551615", 2**64 - 1),
        ("1.5", 1.5),
        ("'text'", "text"),
        ("'äöü'", "äöü"),
        ("'€'", "€"),
        ("'😀'", "😀"),
        (f"'{'é' * 5000}'", "é" * 5000),
        ("b'ab'", b"ab\0"),
        ("@mi nothing", None),
        ("just 5", 5),
        ("[1, 2]", [1, 2]),
        ("[<1>, <'a'>]", [1, "a"]),
        ("{'a': <1>, 'b': <[2]>}", {"a": 1, "b": [2]}),
        ("{1: 'one'}", {1: "one"}),
        ("(1, 'a', (true,))", (1, "a", (True,))),
    ):
        assert_same(expected, from_variant(text))


def test_torch(monkeypatch):
    """A stand-in: tensors are asked for their array, and made of one where torch is imported."""
    torch = types.ModuleType("torch")

    class Tensor:
        def __init__(self, data, requires_grad=False):
            self._data, self.requires_grad = data, requires_grad
            self.is_leaf = True
            self.device = types.SimpleNamespace(type="cpu")

        def detach(self):
            return Tensor(self._data)

        def numpy(self):
            return self._data

        def requires_grad_(self):
            self.requires_grad = True
            return self

    torch.Tensor = Tensor
    torch.from_numpy = Tensor
    monkeypatch.setitem(sys.modules, "torch", torch)
    tensor = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    message = encode([tensor, tensor])
    got = decode(message)
    assert type(got[0]) is Tensor and got[0] is got[1]
    assert got[0].requires_grad
    assert got[0]._data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not got[0]._data.flags.owndata
    got = decode(message, writable=False)
    assert got[0]._data.flags.writeable, "a tensor on memory that may not be written would crash"
    monkeypatch.delitem(sys.modules, "torch")
    got = decode(message)
    assert type(got[0]) is np.ndarray and got[0].sum() == 15


def samples() -> list:
    a = [1, "shared"]
    cycle: list = [a, a]
    cycle.append({"self": cycle})
    return [*PLAIN_VALUES, *NUMPY_VALUES, cycle, [memoryview(np.arange(3.0)), np.arange(3), "x" * 3000, 2**100]]


def decode_hostile(message: bytes) -> None:
    try:
        got = decode(message)
    except GLib.Error as error:
        assert error.matches(Ferry.error_quark(), Ferry.Error.CODEC), error
        assert len(error.message) > 10
    else:
        try:
            repr(got)
            _ = got == got
        except Exception:  # e.g. of years that strftime does not know
            pass


def test_truncated():
    """A message that was cut anywhere is an error."""
    for value in samples():
        message = encode(value)
        if len(message) > 20000:
            continue
        for length in range(0, len(message), 1 if len(message) < 600 else 97):
            with pytest.raises(GLib.Error) as caught:
                decode(message[:length])
            assert caught.value.matches(Ferry.error_quark(), Ferry.Error.CODEC)
        with pytest.raises(GLib.Error):
            decode(message + b"\0")


def test_truncated_pickles():
    for value in (Outer.Thing([1]), Point(1), Colour.RED, ListSub([1]), collections.OrderedDict(a=1), SlotsData(1, {})):
        message = encode(value, PICKLE)
        for length in range(len(message)):
            with pytest.raises(GLib.Error):
                decode(message[:length], PICKLE)


def test_flipped():
    """Any change gives an error or a value."""
    rng = random.Random(20240229)
    rounds = 2000 if os.environ.get("FERRY_TEST_THOROUGH") else 60
    for value in samples() + [Point(1), Outer.Thing(1), len]:
        message = encode(value, PICKLE)
        for _ in range(rounds if len(message) < 20000 else 3):
            damaged = bytearray(message)
            for _ in range(rng.randint(1, 5)):
                damaged[rng.randrange(min(len(damaged), rng.choice((64, 1 << 30))))] ^= 1 << rng.randrange(8)
            decode_hostile(bytes(damaged))
        for _ in range(rounds):
            stream = bytearray(message[HEADER_SIZE : HEADER_SIZE + 200])
            at = rng.randrange(len(stream))
            stream[at:] = rng.randbytes(len(stream) - at)
            decode_hostile(message_of(bytes(stream)))


HASHABLE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.binary(),
    st.decimals().filter(lambda d: not d.is_snan()),
    st.text(st.characters(blacklist_categories=())), st.fractions(), st.uuids(),
    st.dates(), st.times(), st.timedeltas(), st.datetimes(timezones=st.one_of(st.none(), st.timezones())),
)  # fmt: skip
LEAVES = st.one_of(
    HASHABLE,
    st.builds(bytearray, st.binary()),
    npst.arrays(npst.scalar_dtypes(), npst.array_shapes(min_dims=0, min_side=0)),
    st.builds(range, st.integers(), st.integers(), st.integers(1)),
    st.builds(slice, st.integers(), st.none(), st.text()),
)
VALUES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.lists(children),
        st.lists(children).map(tuple),
        st.dictionaries(HASHABLE, children),
        st.sets(HASHABLE),
        st.frozensets(HASHABLE),
        st.lists(children).map(lambda x: [x, x]),
    ),
    max_leaves=30,
)
OBJECT_VALUES = st.recursive(
    st.one_of(LEAVES, st.sampled_from(Colour), st.sampled_from(Access)),
    lambda children: st.one_of(
        st.lists(children),
        st.dictionaries(st.text(), children),
        st.builds(Point, children, children),
        st.builds(OldPoint, children, children),
        st.builds(Data, children, st.lists(children)),
        st.builds(FrozenSlotsData, children),
        st.builds(ListSub, st.lists(children)),
        st.builds(collections.deque, st.lists(children)),
    ),
    max_leaves=20,
)


@given(VALUES)
def test_any_plain(value):
    assert_same(value, round_trip(value))


@given(OBJECT_VALUES)
def test_any_objects(value):
    arrived = round_trip(value, PICKLE)
    expected = pickle.loads(pickle.dumps(value, 5))
    assert type(arrived) is type(value)
    assert repr(arrived) == repr(expected)


@given(st.binary(max_size=300))
def test_any_stream(stream):
    decode_hostile(message_of(stream))
    decode_hostile(stream)


def resident() -> int:
    """Return the bytes of memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_no_leak():
    """Neither memory nor references are lost."""
    shared = ["x"]
    marker = Outer.Thing(1)
    value = [
        {"a": 1, "b": [2.5, "text", None], "c": b"x" * 3000, "d": np.arange(10)}, (shared, shared), {1, 2},
        Point(1, 2), Data(1, [2]), Colour.RED, dt.datetime.now(dt.UTC), decimal.Decimal(1), marker, 2**100,
        uuid.uuid4(), np.float32(1), np.dtype("f4"), memoryview(b"abc"), np.array([None, 1], object), bytearray(3000),
    ]  # fmt: skip
    bad = [np.arange(10), b"x" * 3000, shared, marker, lambda: 0]
    message = encode(value, PICKLE)
    rounds = 3000
    before = references = None
    for i in range(4 * rounds):
        encode(value, PICKLE)
        decode(message, PICKLE)
        if i % 10 == 0:
            for wrong in (
                lambda: encode(bad, PICKLE),
                lambda: encode(bad),
                lambda: decode(message),
                lambda: decode(message[:-7], PICKLE),
            ):
                with pytest.raises(GLib.Error):
                    wrong()
        if i == rounds:
            gc.collect()
            before, references = resident(), sys.getrefcount(marker)
    gc.collect()
    assert sys.getrefcount(marker) == references
    assert sys.getrefcount(shared) == 5  # value, twice; bad; the variable; the argument
    if "FERRY_TEST_SANITIZED" not in os.environ:  # AddressSanitizer keeps what is freed
        assert resident() - before < 4 * 1024 * 1024


def test_threads():
    """Several threads encode and decode at once, large data without the GIL."""
    failures = []

    def work(seed):
        try:
            big = np.full(400000, seed, dtype="i8")
            for i in range(30):
                value = {"seed": seed, "i": i, "big": big, "bytes": bytes([seed]) * 2000000, "t": Outer.Thing([i])}
                assert_same(value["bytes"], (got := round_trip(value, PICKLE))["bytes"])
                assert got["t"] == value["t"]
                assert (got["big"] == seed).all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_views_are_freed():
    got = decode(encode([np.arange(10), np.arange(20)]))
    base = got[0].base
    while isinstance(base, np.ndarray):
        base = base.base
    assert sys.getrefcount(base) == 4  # both arrays, the variable, the argument
    del got
    assert sys.getrefcount(base) == 2


def test_numpy_is_not_imported():
    """Programs without NumPy do without."""
    code = """
import sys, gi
gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GObject
codec = Ferry.Registry.get_default().create_codec("python")
codec.set_property("pickle", True)
codec.set_property("decode-to", "object")
value = GObject.Value()
value.init(GObject.TYPE_PYOBJECT)
value.set_boxed([1, "a", {2: 3}, range(5), object()])
data = codec.encode_bytes(value)
assert codec.decode(Ferry.Buffer.new_bytes(data), 1)[1][:4] == [1, "a", {2: 3}, range(5)]
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_inspect_lists_it():
    """The codecs of Python are plugins like all others."""
    listed = subprocess.run(["ferry-inspect"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert {("codec", "python"), ("codec", "numpy")} <= {tuple(line.split()[:2]) for line in listed.splitlines()}
    one = subprocess.run(["ferry-inspect", "python"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "python" in one and "codec" in one
