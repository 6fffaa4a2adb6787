# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Python and programs in C see of one store: the same values, by path and as GVariants there."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import itertools
import os
from collections.abc import Iterator
from typing import Any

import ferry
import gi
import numpy as np
import pytest

gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GLib  # noqa: E402

_counter = itertools.count()


class Color(enum.Enum):
    RED = 1


class Permission(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


@dataclasses.dataclass
class Point:
    x: int
    y: Any


Pair = collections.namedtuple("Pair", "a b")


@pytest.fixture
def stores() -> Iterator[tuple[ferry.Store, Ferry.Store]]:
    """One store, as Python has it and as C does."""
    name = f"variant-{os.getpid()}-{next(_counter)}"
    store = ferry.Store(name)
    other = Ferry.Store.open(f"memfd name={name} open-mode=join", None)
    yield store, other
    other.close()
    store.close()


VALUES = [
    (None, "NoneType", "@mv nothing"),
    (True, "bool", "true"),
    (2**47, "int", "int64 140737488355328"),
    (2**64 - 1, "int", "uint64 18446744073709551615"),
    (2**64, "int", f"('int', <[{', '.join(['byte 0x00'] + ['0x00'] * 7 + ['0x01'])}]>)"),
    (-(2**71), "int", f"('int', <[{', '.join(['byte 0x00'] + ['0x00'] * 7 + ['0x80'])}]>)"),
    (1.5, "float", "1.5"),
    (1j, "complex", "(0.0, 1.0)"),
    ("é€😀", "str", "'é€😀'"),
    ("\ud800", "str", "('str', <[byte 0xed, 0xa0, 0x80]>)"),
    (b"ab", "bytes", "[byte 0x61, 0x62]"),
    (bytearray(b"ab"), "bytearray", "[byte 0x61, 0x62]"),
    ((1, "a longer text", [5]), "tuple", "(int64 1, 'a longer text', [<int64 5>])"),
    ([1, [2, {3}], None], "list", "[<int64 1>, <[<int64 2>, <[<int64 3>]>]>, <@mv nothing>]"),
    ({1: "x"}, "dict", "[(<int64 1>, <'x'>)]"),
    (frozenset(["x"]), "frozenset", "[<'x'>]"),
    (Color.RED, "Color", "('Color', <'RED'>)"),
    (Permission.READ | Permission.RUN, "Permission", "('Permission', <int64 5>)"),
    (datetime.date(2020, 1, 2), "date", "('date', <(int64 2020, int64 1, int64 2)>)"),
    (decimal.Decimal("1.5"), "Decimal", "('Decimal', <'1.5'>)"),
    (Pair(1, [2]), "Pair", "(int64 1, [<int64 2>])"),
    (Point(1, [2]), "Point", "{'x': <int64 1>, 'y': <[<int64 2>]>}"),
]


@pytest.mark.parametrize(("value", "type_name", "text"), VALUES, ids=[str(index) for index in range(len(VALUES))])
def test_to_c(stores: tuple[ferry.Store, Ferry.Store], value: Any, type_name: str, text: str) -> None:
    store, other = stores
    store["x"] = value
    store["d"] = {"in": [value]}
    for path in ("x", "d['in'][0]"):
        assert other.get_type_name(path) == type_name
        found = other.get(path)
        if type_name == "date":
            assert found.unpack() == ("date", (2020, 1, 2))
        else:
            assert found.print_(True) == text


KEYS = [
    1, -1, True, 1.5, float("inf"), 1e300, None, "", "x", "é€", "a longer key", b"bytes", 2**48, 2**61 - 1, 2**61, -(2**62),
    2**63, -(2**63), -(2**63) - 1, 2**64, 10**30, -(10**30), (), (1, "a"), (1, (2.5, "a longer text")),
    frozenset([1]), 1j, Color.RED, datetime.date(2020, 1, 2), decimal.Decimal("0.5"), Pair(1, 2), "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=[str(index) for index in range(len(KEYS))])
def test_keys(stores: tuple[ferry.Store, Ferry.Store], key: Any) -> None:
    """What C lists it finds, sets, adds to and removes, and Python finds what C set."""
    store, other = stores
    store["d"] = {"before": 0, key: 1, "behind": 0}
    (path,) = (child for child in other.list_children("d") if child not in ("d.before", "d.behind"))
    assert other.get(path).unpack() == 1
    other.set(path, GLib.Variant("i", 5))
    assert store["d"][key] == 5
    assert other.add_int(path, 2) == (True, 7)
    assert store["d"] == {"before": 0, key: 7, "behind": 0}
    other.remove(path)
    assert store["d"] == {"before": 0, "behind": 0}
    assert not other.contains(path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("1", 1.0), ("1.0", 1), ("true", 1), ("uint64 9223372036854775808", 2**63), ("(1, (2, 'x'))", (1, (2, "x"))),
        ("'é€'", "é€"), ("'a longer key'", "a longer key"), ("@mv nothing", None), ("-4611686018427387904", -(2**62)),
        ("2305843009213693951", 2**61 - 1), ("inf", float("inf")), ("1e300", 1e300),
    ],
)  # fmt: skip
def test_keys_of_c(stores: tuple[ferry.Store, Ferry.Store], text: str, key: Any) -> None:
    """Keys that C made have the hashes of Python's."""
    store, other = stores
    store["d"] = {}
    other.set(f"d[{text}]", GLib.Variant("i", 5))
    assert key in store["d"]
    assert store["d"][key] == 5
    del store["d"][key]
    assert not other.contains(f"d[{text}]")


def test_to_python(stores: tuple[ferry.Store, Ferry.Store]) -> None:
    store, other = stores
    text = "{'a': <(1, 'a longer text', [2.5])>, 'n': <@mv nothing>, 'u': <uint64 18446744073709551615>, 'l': <[1, 2]>}"
    other.set("x", GLib.Variant.parse(None, text))
    assert store["x"] == {"a": (1, "a longer text", [2.5]), "n": None, "u": 2**64 - 1, "l": [1, 2]}
    live = store["x"]["l"]
    other.set("x.l[+]", GLib.Variant("s", "three"))
    assert live == [1, 2, "three"]


def test_record(stores: tuple[ferry.Store, Ferry.Store]) -> None:
    """Attributes are set in place."""
    store, other = stores
    point = store["p"] = Point(1, [2])
    point = store["p"]
    other.add_int("p.x", 41)
    other.set("p.y[+]", GLib.Variant("i", 3))
    other.set("p.z", GLib.Variant("s", "further"))
    assert (point.x, point.y, point.z) == (42, [2, 3], "further")
    assert other.list_children("p") == ["p.x", "p.y", "p.z"]


def test_arrays(stores: tuple[ferry.Store, Ferry.Store]) -> None:
    """One memory, whoever made it."""
    store, other = stores
    store["a"] = np.arange(6, dtype="f4").reshape(2, 3)
    tensor = other.get_tensor("a")
    assert (tensor.get_format(), tensor.get_shape()) == ("<f4", [2, 3])
    store["a"][1, 2] = 77
    assert tensor.get_element_double([1, 2]) == 77
    other.set_tensor("b", Ferry.Tensor.new_copy("<i4", [2, 2], np.arange(4, dtype="<i4").tobytes()))
    np.testing.assert_array_equal(store["b"], [[0, 1], [2, 3]])
    again = other.get_tensor("b")
    store["b"][0, 0] = 9
    assert again.get_element_double([0, 0]) == 9


def test_properties(stores: tuple[ferry.Store, Ferry.Store]) -> None:
    """What a binding sees of a store beside its methods."""
    store, other = stores
    assert {one.name for one in Ferry.Store.list_properties()} == {"description", "name", "max-bytes", "closed"}
    assert other.props.name == other.get_name() == store.name
    assert other.props.max_bytes == other.get_max_bytes() == store.max_bytes
    assert other.props.description == f"memfd name={store.name} open-mode=join"
    assert other.props.closed is False
    with pytest.raises(TypeError):
        other.props.name = "another"
    seen: list[bool] = []
    other.connect("notify::closed", lambda one, _: seen.append(one.props.closed))
    other.close()
    other.close()
    assert seen == [True]
    assert other.props.name == store.name


def test_never_opened() -> None:
    """Bindings can make one without opening it; it is closed."""
    other = Ferry.Store()
    assert other.props.closed is True
    assert other.props.name is None
    assert other.watch() == 0
    for call in (lambda: other.get("x"), lambda: other.begin_transaction(0, None), other.collect, other.get_fd):
        with pytest.raises(GLib.Error) as caught:
            call()
        assert caught.value.matches(Ferry.error_quark(), Ferry.Error.CLOSED)


def test_source(stores: tuple[ferry.Store, Ferry.Store]) -> None:
    """A main loop learns of what Python changes."""
    store, other = stores
    context = GLib.MainContext()
    seen: list[Any] = []

    def on_change(*_: Any) -> bool:
        seen.append(other.get("x").unpack() if other.contains("x") else None)
        return GLib.SOURCE_CONTINUE

    source = other.create_source(None)
    source.set_callback(on_change)
    source.attach(context)
    store["x"] = 5
    while not seen:
        context.iteration(True)
    assert seen[-1] == 5
    store["x"] = 6
    while seen[-1] != 6:
        context.iteration(True)
    source.destroy()
