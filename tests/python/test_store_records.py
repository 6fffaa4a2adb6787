# SPDX-License-Identifier: LGPL-2.1-or-later
"""Instances of classes that live in a store."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import pickle
import sys
import types
import typing
import weakref

import ferry
import pytest


@dataclasses.dataclass
class Point:
    x: int
    y: float = 2.5
    tags: list = dataclasses.field(default_factory=list)
    count: typing.ClassVar[int] = 7

    def move(self, dx):
        self.x += dx
        return self

    @property
    def twice(self):
        return self.x * 2

    @twice.setter
    def twice(self, value):
        self.x = value // 2

    @classmethod
    def origin(cls):
        return cls(0)

    @staticmethod
    def helper():
        return "helped"


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int
    b: str = "b"

    def force(self, a):
        object.__setattr__(self, "a", a)


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: list


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlotted:
    a: int


class Plain:
    kind = "plain"

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __repr__(self):
        return f"Plain({sorted(vars(self).items())})"


class Slots:
    __slots__ = ("__private", "a", "b")

    def __init__(self):
        self.a = 1
        self.__private = 2

    def private(self):
        self.__private += 1
        return self.__private


class Mixed(Slots):
    def __init__(self):
        super().__init__()
        self.c = [3]


class Base(abc.ABC):
    @abc.abstractmethod
    def run(self): ...


class Derived(Base):
    registered: list = []

    def __init_subclass__(cls):
        Derived.registered.append(cls)

    def __init__(self):
        self.n = 1

    def run(self):
        return super().__repr__() is not None and self.n


class Custom:
    def __init__(self):
        self.log = []
        self.x = 1

    def __setattr__(self, name, value):
        if name == "refused":
            raise AttributeError("no")
        super().__setattr__(name, value * 2 if name == "doubled" else value)

    def __getattr__(self, name):
        if name.startswith("dynamic_"):
            return name[8:]
        raise AttributeError(name)


class Typed:
    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        return self if instance is None else instance.__dict__[self.name]

    def __set__(self, instance, value):
        if not isinstance(value, int):
            raise TypeError("an int")
        instance.__dict__[self.name] = value


class Checked:
    n = Typed()

    def __init__(self, n):
        self.n = n

    @functools.cached_property
    def square(self):
        return self.n**2


@pytest.fixture(scope="module")
def store():
    with ferry.Store() as store:
        yield store
        store.verify()


def test_a_dataclass(store):
    store["p"] = Point(1, tags=["a"])
    p = store["p"]
    assert store["p"] is p
    assert isinstance(p, Point)
    assert p.__class__ is Point
    assert type(p).__name__ == "Point" and type(p).__module__ == Point.__module__
    assert (p.x, p.y, p.tags) == (1, 2.5, ["a"])
    assert p == Point(1, 2.5, ["a"]) and Point(1, 2.5, ["a"]) == p
    assert repr(p) == repr(Point(1, 2.5, ["a"]))
    assert p.move(4) is p and p.x == 5
    assert p.twice == 10
    p.twice = 20
    assert p.x == 10
    assert p.origin() == Point(0) and type(p.origin()) is Point
    assert p.helper() == "helped" and p.count == 7
    p.tags.append("b")
    assert store["p"].tags == ["a", "b"]
    assert [field.name for field in dataclasses.fields(p)] == ["x", "y", "tags"]
    assert dataclasses.asdict(p) == {"x": 10, "y": 2.5, "tags": ["a", "b"]}
    changed = dataclasses.replace(p, x=3)
    assert type(changed) is Point and changed.x == 3 and p.x == 10
    assert weakref.ref(p)() is p
    match p:
        case Point(x=x):
            assert x == 10


def test_new_attributes_are_shared(store):
    store["p"] = Point(1)
    p = store["p"]
    p.more = [1]
    p.count = 9  # hides that of the class
    assert p.more == [1] and p.count == 9 and Point.count == 7
    del p
    p = store["p"]
    assert p.more == [1] and p.count == 9
    assert vars(p) == {"x": 1, "y": 2.5, "tags": [], "more": [1], "count": 9}
    assert "more" in p.__dict__ and list(p.__dict__) == ["x", "y", "tags", "more", "count"]
    plain = ferry.snapshot(p)
    assert type(plain) is Point and vars(plain) == {"x": 1, "y": 2.5, "tags": [], "more": [1], "count": 9}
    del p.more
    with pytest.raises(AttributeError, match="more"):
        p.more
    with pytest.raises(AttributeError):
        del p.more
    del p.count
    assert p.count == 7


def test_fields_can_be_deleted(store):
    store["p"] = Point(1)
    p = store["p"]
    del p.x
    with pytest.raises(AttributeError, match="'Point' object has no attribute 'x'"):
        p.x
    assert not hasattr(p, "x")
    del p.y
    assert p.y == 2.5  # the default, which the class has
    p.x = 4
    assert p.x == 4
    plain = ferry.snapshot(p)
    assert vars(plain) == {"x": 4, "tags": []}


def test_frozen(store):
    store["f"] = [Frozen(1), FrozenSlotted(2)]
    frozen, slotted = store["f"]
    for call in (lambda: setattr(frozen, "a", 2), lambda: setattr(frozen, "new", 2), lambda: setattr(slotted, "a", 2)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            call()
    assert frozen == Frozen(1) and hash(frozen) == hash(Frozen(1))
    assert slotted == FrozenSlotted(2)
    frozen.force(5)
    assert store["f"][0].a == 5
    store["d"] = {}
    with ferry.Store(pickle=True) as pickling:
        pickling["d"] = {Frozen(1): "one"}
        assert pickling["d"][Frozen(1)] == "one"
        assert list(pickling["d"]) == [Frozen(1)]


def test_slots(store):
    store["s"] = [Slotted(1, [2]), Slots(), Mixed()]
    slotted, slots, mixed = store["s"]
    slotted.b.append(3)
    assert slotted == Slotted(1, [2, 3])
    with pytest.raises(AttributeError):
        slotted.c = 1
    assert slots.a == 1 and slots.private() == 3
    with pytest.raises(AttributeError):
        slots.b
    slots.b = 5
    assert store["s"][1].b == 5
    assert mixed.c == [3] and mixed.private() == 3
    mixed.d = 1
    assert store["s"][2].d == 1
    plain = ferry.snapshot(slots)
    assert type(plain) is Slots and plain.private() == 4 and slots.private() == 4
    assert vars(mixed) == {"c": [3], "d": 1}


def test_plain_classes(store):
    store["o"] = Plain(a=1, b=[2])
    found = store["o"]
    assert (found.a, found.b, found.kind) == (1, [2], "plain")
    assert repr(found) == "Plain([('a', 1), ('b', [2])])"
    assert copy.deepcopy(found).b == [2] and type(copy.deepcopy(found)) is Plain
    shallow = copy.copy(found)
    assert type(shallow) is Plain and shallow.b is found.b
    found.__dict__["c"] = 3
    found.__dict__.update(a=10)
    assert found.c == 3 and found.a == 10
    del found.__dict__["c"]
    assert not hasattr(found, "c")
    with pytest.raises(AttributeError, match="'Plain' object has no attribute 'none'"):
        found.none


def test_cycles(store):
    parent = Plain(children=[])
    parent.children.append(Plain(parent=parent))
    store["tree"] = parent
    found = store["tree"]
    assert found.children[0].parent is found
    plain = ferry.snapshot(found)
    assert plain.children[0].parent is plain
    store["tree"] = found.children[0]
    assert store["tree"].parent is found


def test_abstract_and_hooks(store):
    Derived.registered.clear()
    store["d"] = Derived()
    found = store["d"]
    assert isinstance(found, Base) and found.run() == 1
    assert Derived.registered == []
    assert issubclass(type(found), Derived)


def test_custom_access(store):
    store["c"] = Custom()
    found = store["c"]
    assert found.dynamic_x == "x"
    found.doubled = 4
    found.x = 5
    assert (found.doubled, found.x) == (8, 5)
    assert store["c"].doubled == 8
    with pytest.raises(AttributeError, match="no"):
        found.refused = 1
    with pytest.raises(AttributeError):
        found.unknown
    assert vars(ferry.snapshot(found)) == {"log": [], "x": 5, "doubled": 8}


def test_descriptors_go_on_working(store):
    store["c"] = Checked(3)
    found = store["c"]
    assert found.n == 3
    with pytest.raises(TypeError, match="an int"):
        found.n = "x"
    found.n = 4
    assert store["c"].n == 4
    assert found.square == 16
    found.n = 5
    assert found.square == 16
    assert found.__dict__["square"] == 16


def test_references(store):
    store["p"] = Point(1)
    p = store["p"]
    assert pickle.loads(pickle.dumps(p)) is p
    store["q"] = [p, p]
    assert store["q"][1] is p
    with pytest.raises(ferry.FerryError):
        data = pickle.dumps(p)
        assert pickle.loads(data) is p
        pickle.loads(data)


def test_adding(store):
    store["p"] = Point(1)
    p = store["p"]
    assert store.add(p, "x", 4) == 5 and p.x == 5
    assert store.add(p, "y", 1) == 3.5
    assert store.add(p, "tags", ["a"]) == ["a"]
    store["n"] = 2**62
    assert store.add(store, "n", 2**63) == 2**62 + 2**63
    with pytest.raises(AttributeError):
        store.add(p, "none", 1)


def test_a_class_that_is_not_here():
    module = types.ModuleType("vanishing")
    exec("class Thing:\n    def __init__(self): self.a = 1\n", module.__dict__)
    sys.modules["vanishing"] = module
    with ferry.Store() as store:
        store["thing"] = module.Thing()
        del sys.modules["vanishing"]
        with pytest.raises(TypeError, match="vanishing.Thing.*pickle=True"):
            store["thing"]
        sys.modules["vanishing"] = module
        assert store["thing"].a == 1
        module.Thing, thing = None, module.Thing
        del sys.modules["vanishing"]
    assert thing is not None


def test_local_classes_say_so(store):
    class Local:
        def __init__(self):
            self.a = 1

    with ferry.Store() as other:
        other["local"] = Local()
        with pytest.raises(TypeError, match="top of a module"):
            other["local"]


def test_other_shapes(store):
    store["a"] = [Plain(a=1), Plain(b=2), Plain(), Plain(**{f"n{i}": i for i in range(300)})]
    one, two, three, many = store["a"]
    assert (one.a, two.b, vars(three), many.n299) == (1, 2, {}, 299)
    assert type(one) is not type(two)
    assert type(store["a"][0]) is type(one)
