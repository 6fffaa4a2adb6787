# SPDX-License-Identifier: LGPL-2.1-or-later
"""What comes out of a store is what went in: values, keys, identity, arrays."""

from __future__ import annotations

import collections
import copy
import datetime
import decimal
import enum
import fractions
import math
import os
import pickle
import struct
import subprocess
import sys
import uuid
import zoneinfo

import ferry
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

numpy = pytest.importorskip("numpy")


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


Point = collections.namedtuple("Point", "x y")


class Name(str):
    pass


@pytest.fixture(scope="module")
def store():
    with ferry.Store() as store:
        yield store
        store.verify()


@pytest.fixture
def pickling():
    with ferry.Store(pickle=True) as store:
        yield store


hashables = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.complex_numbers(allow_nan=False),
        st.text(),
        st.binary(),
        st.decimals(allow_nan=False),
        st.fractions(),
        st.datetimes(),
        st.dates(),
        st.times(),
        st.timedeltas(),
        st.uuids(),
        st.just(...),
        st.just(NotImplemented),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner),
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
    ),
    max_leaves=8,
)
leaves = st.one_of(hashables, st.builds(slice, hashables, hashables, hashables))


@given(leaves)
@settings(max_examples=300)
def test_immutable_values(store, value):
    store["value"] = value
    for found in (store["value"], store["value"]):
        assert found == value
        assert type(found) is type(value)
        assert repr(found) == repr(value) or isinstance(value, (frozenset, tuple, slice))


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(), st.floats(allow_nan=False), leaves),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=3), st.tuples(inner, inner)
        ),
        max_leaves=20,
    )
)
@settings(max_examples=200)
def test_nested_values(store, value):
    store["value"] = [value]
    assert store["value"].snapshot() == [value]
    assert store["value"] == [value]
    assert copy.deepcopy(store["value"]) == [value]


@pytest.mark.parametrize(
    "bits", [0x7FF8000000000000, 0xFFF8000000000000, 0xFFF8000000000001, 0xFFFFFFFFFFFFFFFF, 0x7FF0000000000001, 1 << 63]
)
def test_all_bits_of_floats(store, bits):
    number = struct.unpack("<d", struct.pack("<Q", bits))[0]
    store["number"] = number
    assert struct.pack("<d", store["number"]) == struct.pack("<d", number)
    store["list"] = [number]
    assert struct.pack("<d", store["list"][0]) == struct.pack("<d", number)


@pytest.mark.parametrize("power", [0, 15, 30, 31, 46, 47, 48, 60, 62, 63, 64, 127, 128, 1000, 100_000])
def test_integers_of_all_sizes(store, power):
    for number in (2**power, 2**power - 1, 2**power + 1):
        for signed in (number, -number):
            store["number"] = signed
            assert store["number"] == signed
            store["dict"] = {signed: signed}
            assert store["dict"][signed] == signed


@pytest.mark.parametrize("text", ["", "a", "é", "abcde", "abcdef", "ééééé", "日", "日本語日本", "😀", "a😀", "\0", "x" * 5000, "é" * 5000, "日" * 5000, "😀" * 3000])
def test_text(store, text):
    store["text"] = text
    assert store["text"] == text
    store["bytes"] = text.encode()
    assert store["bytes"] == text.encode()
    store[text] = 1
    assert store[text] == 1
    assert text in store
    del store[text]
    assert text not in store


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Colour.GREEN,
        Level.HIGH,
        Rights.READ | Rights.WRITE,
        Rights(0),
        Point(1, (2, "three and more")),
        range(1, 10, 3),
        zoneinfo.ZoneInfo("UTC"),
        datetime.timezone(datetime.timedelta(hours=2), "name"),
        numpy.float32(1.5),
        numpy.int64(-3),
        numpy.bool_(True),
        numpy.datetime64("2020-01-01"),
        numpy.dtype("<f4"),
        numpy.dtype([("a", "<i4"), ("b", "S3")]),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=5),
    ],
    ids=repr,
)
def test_types_stay(store, value):
    store["value"] = value
    assert store["value"] == value
    assert type(store["value"]) is type(value)
    store["value"] = [value, (value, [value])]
    assert store["value"][0] == value
    assert store["value"][1][1][0] == value
    if isinstance(value, enum.Enum):
        assert store["value"][0] is value


def test_named_tuples_keep_what_is_live(store):
    store["value"] = Point([1], {"a": 2})
    found = store["value"]
    assert type(found) is Point
    found.x.append(2)
    assert store["value"].x == [1, 2]


def test_what_needs_pickle_says_so(store, pickling):
    for value in (collections.OrderedDict(a=1), Name("x"), collections.Counter("aab")):
        with pytest.raises(TypeError, match="pickle=True"):
            store["value"] = value
        pickling["value"] = value
        assert pickling["value"] == value
        assert type(pickling["value"]) is type(value)
    assert "value" not in store or store["value"] is not None
    with pytest.raises(Exception):
        pickling["value"] = lambda: None
    assert type(pickling["value"]) is collections.Counter


def test_a_failure_stores_nothing(store):
    store["value"] = 1
    used = store.bytes_used
    with pytest.raises(TypeError):
        store["value"] = [1, "some text that is long", [2, {"a": object}], open]
    assert store["value"] == 1
    assert store.bytes_used == used


# identity


def test_there_is_one_object(store):
    store["a"] = {"list": [1]}
    found = store["a"]
    assert store["a"] is found
    assert found["list"] is found["list"]
    store["b"] = found
    assert store["b"] is found
    found["self"] = found
    assert found["self"] is found
    assert repr(found) == "{'list': [1], 'self': {...}}"


def test_sharing_and_cycles_stay(store):
    shared = [1]
    value = [shared, {"again": shared}, (shared,)]
    value.append(value)
    store["value"] = value
    found = store["value"]
    assert found[0] is found[1]["again"]
    assert found[2][0] is found[0]
    assert found[3] is found
    found[0].append(2)
    plain = found.snapshot()
    assert plain[0] is plain[1]["again"] is plain[2][0]
    assert plain[3] is plain
    assert plain[0] == [1, 2]


def test_depth_costs_nothing(store):
    deep = []
    for _ in range(50_000):
        deep = [deep]
    store["deep"] = deep
    plain = store["deep"].snapshot()
    depth = 0
    while plain:
        plain = plain[0]
        depth += 1
    while deep:
        deep = deep[0]
    assert depth == 50_000
    del store["deep"]


def test_what_nobody_refers_to_is_freed(store):
    store["value"] = None
    store.collect()
    used = store.bytes_used
    for _ in range(50):
        store["value"] = {"list": list(range(100)), "text": "x" * 1000, "array": numpy.zeros(100)}
        found = store["value"]["list"]
    store["value"] = None
    assert found[99] == 99
    del found
    store.collect()
    assert abs(store.bytes_used - used) < 4096


def test_values_of_another_store_are_copied(store):
    with ferry.Store() as other:
        other["list"] = [1, [2]]
        store["copy"] = other["list"]
        store["copy"][1].append(3)
        assert other["list"] == [1, [2]]
        assert store["copy"] == [1, [2, 3]]


# keys


def test_numbers_are_equal_as_keys(store):
    store["dict"] = {1: "a"}
    found = store["dict"]
    for key in (1, 1.0, True, 1 + 0j, decimal.Decimal(1), fractions.Fraction(1), numpy.int64(1), numpy.float32(1), Level.LOW):
        assert found[key] == "a", key
        found[key] = "a"
        assert len(found) == 1
        assert key in found
    store["dict"] = {decimal.Decimal("2.0"): "b", (1, 2.0): "c"}
    found = store["dict"]
    assert found[2] == "b" == found[decimal.Decimal("2.00")]
    assert found[(True, 2)] == "c"
    assert found[Point(1, 2)] == "c"
    found[frozenset({1, 2})] = "d"
    assert found[frozenset({2.0, True})] == "d"
    assert list(found)[0] == decimal.Decimal("2.0")


def test_keys_of_many_types(store):
    keys = [
        None,
        ...,
        "a",
        b"a",
        2**80,
        -(2**80),
        1.5,
        3 + 4j,
        (1, ("x", b"y")),
        frozenset({"a", "b"}),
        datetime.datetime(2020, 1, 1),
        datetime.date(2020, 1, 1),
        datetime.timedelta(1),
        uuid.UUID(int=1),
        decimal.Decimal("1.25"),
        fractions.Fraction(1, 7),
        Colour.RED,
        Rights.READ,
        Point("x", "y"),
        range(3),
        math.inf,
    ]
    store["dict"] = {}
    found = store["dict"]
    for i, key in enumerate(keys):
        found[key] = i
    assert list(found) == keys
    assert [found[copy.deepcopy(key)] for key in keys] == list(range(len(keys)))
    assert store["dict"] == dict(zip(keys, range(len(keys))))
    store["dict"] = dict(zip(keys, keys))
    assert all(store["dict"][key] == key for key in keys)
    aware = datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.timezone.utc)
    found[aware] = "noon"
    assert found[aware.astimezone(datetime.timezone(datetime.timedelta(hours=5)))] == "noon"


def test_what_can_be_no_key(store):
    store["dict"] = {}
    for key in ([], {}, set(), ([],), store["dict"]):
        with pytest.raises(TypeError, match="unhashable"):
            store["dict"][key] = 1
    with pytest.raises(TypeError, match="only equal to itself"):
        store["dict"][object.__new__(type("Plain", (), {}))] = 1
    with pytest.raises(TypeError, match="str"):
        store[1] = 2
    assert store["dict"] == {}


SEEDS = """
import sys, ferry
keys = ["a", "a longer key", b"bytes", ("x", 1, b"y"), frozenset({"p", "q", "r"}), 1.5, None, 2**70]
with ferry.Store(sys.argv[1]) as store:
    found = store["dict"]
    for i, key in enumerate(keys):
        assert found[key] == i, key
        assert key in found
        found[key] = found[key] + 1
    found[sys.argv[2]] = hash("a")
    store["set"] |= {("new", i) for i in range(20)}
"""


def test_hash_seeds_do_not_matter():
    keys = ["a", "a longer key", b"bytes", ("x", 1, b"y"), frozenset({"p", "q", "r"}), 1.5, None, 2**70]
    with ferry.Store(f"seeds-{os.getpid()}") as store:
        store["dict"] = dict(zip(keys, range(len(keys))))
        store["set"] = {("new", 0)}
        for seed in ("1", "2"):
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            subprocess.run([sys.executable, "-c", SEEDS, store.name, f"hash{seed}"], env=environment, check=True, timeout=60)
            for key in keys:
                store["dict"][key] -= 1
        assert [store["dict"][key] for key in keys] == list(range(len(keys)))
        assert len(store["dict"]) == len(keys) + 2
        assert store["dict"]["hash1"] != store["dict"]["hash2"]
        assert store["set"] == {("new", i) for i in range(20)}


# arrays


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12).reshape(3, 4),
        numpy.asfortranarray(numpy.arange(12.0).reshape(3, 4)),
        numpy.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        numpy.array(5.0),
        numpy.zeros((0, 3)),
        numpy.zeros(3, dtype=[("a", "<i4"), ("b", "S3"), ("c", "<f8", (2,))]),
        numpy.array(["a", "longer"]),
        numpy.array(["2020-01-01"], dtype="M8[D]"),
        numpy.array([1, 2], dtype=">i4"),
        numpy.array([True, False]),
        numpy.zeros(100_000),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays(store, array):
    store["array"] = array
    found = store["array"]
    assert type(found) is numpy.ndarray
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.flags.f_contiguous == array.flags.f_contiguous or not array.flags.contiguous
    assert (found == array).all()
    assert found.flags.writeable
    if array.size and array.dtype.kind in "if":
        found += 1
        assert (store["array"] == array + 1).all()
    assert not numpy.shares_memory(found, array)


def test_arrays_are_views(store):
    store["a"] = numpy.zeros(10)
    store["b"] = store["a"]
    store["list"] = [store["a"], store["a"][2:4]]
    store["b"][3] = 7
    assert store["a"][3] == 7
    assert store["list"][0][3] == 7
    assert store["list"][1][1] == 0  # a part is a copy
    view = store["a"][1:5]
    del store["a"], store["b"], store["list"]
    store.collect()
    assert view[2] == 7
    plain = pickle.loads(pickle.dumps(view))
    assert (plain == view).all()
    store["x"] = {"array": numpy.ones(3)}
    assert type(store["x"].snapshot()["array"]) is numpy.ndarray
    assert store["x"].snapshot()["array"].base is None


def test_arrays_of_objects_are_copied(pickling):
    pickling["array"] = numpy.array([None, "a", 1], dtype=object)
    assert pickling["array"].tolist() == [None, "a", 1]


def test_closed(store):
    with ferry.Store() as other:
        other["a"] = [1]
        other["array"] = numpy.arange(5)
        found = other["a"]
        array = other["array"]
    for call in (lambda: found[0], lambda: found.append(1), lambda: other["a"], lambda: len(found), lambda: found == [1]):
        with pytest.raises(ferry.ClosedError):
            call()
    assert len(array) == 5 and array.sum() is not None
    assert other.closed
    other.close()
