# SPDX-License-Identifier: LGPL-2.1-or-later
"""Containers of a store beside plain ones: the same random operations on both, compared after each."""

from __future__ import annotations

import copy
import operator

import ferry
import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

SETTINGS = hypothesis.settings(max_examples=40, stateful_step_count=30, deadline=None)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.tuples(st.integers(0, 3), st.text(max_size=7)),
)
keys = st.one_of(
    st.integers(-2, 3),
    st.sampled_from([0.0, 1.0, 2.5, True, False, None, "a", "b", "a longer key", "é", "日本", b"a", (1, "x"), (1.0, "x")]),
    st.text(max_size=6),
)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=3), scalars, max_size=2))
indexes = st.integers(-6, 6)
bounds = st.one_of(st.none(), st.integers(-8, 8))
slices = st.builds(slice, bounds, bounds, st.one_of(st.none(), st.sampled_from([-3, -2, -1, 1, 2, 3])))


@pytest.fixture(scope="module")
def store():
    with ferry.Store() as store:
        yield store
        store.verify()


def plain(value):
    """What a result is without anything live in it."""
    if ferry.store_of(value) is not None:
        return ferry.snapshot(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def outcome(call, *args):
    try:
        return plain(call(*args))
    except Exception as error:
        return type(error), str(error)


class Machine(RuleBasedStateMachine):
    """A live container and its model."""

    shared = None

    def begin(self, model):
        if Machine.shared is None:
            Machine.shared = ferry.Store()
        self.store = Machine.shared
        self.store["it"] = model
        self.live = self.store["it"]
        self.model = model

    def both(self, call, *args):
        """The same call on both ends in the same way."""
        expected = outcome(call, self.model, *copy.deepcopy(args))
        found = outcome(call, self.live, *args)
        if isinstance(expected, tuple) and len(expected) == 2 and isinstance(expected[0], type):
            assert isinstance(found, tuple) and issubclass(found[0], expected[0]), (expected, found)
            if expected[0] is not TypeError:
                assert found[1] == expected[1]
        else:
            assert found == expected
            assert type(found) is type(expected)

    @invariant()
    def is_the_same(self):
        if hasattr(self, "model"):
            found = self.live.snapshot()
            assert found == self.model
            assert repr(found) == repr(self.model) or isinstance(self.model, set)
            assert len(self.live) == len(self.model)
            assert self.live == self.model
            assert not self.live != self.model

    def teardown(self):
        self.store.verify()


class ListMachine(Machine):
    @initialize(model=st.lists(values, max_size=6))
    def start(self, model):
        self.begin(model)

    @rule(index=indexes)
    def get(self, index):
        self.both(operator.getitem, index)

    @rule(part=slices)
    def get_slice(self, part):
        self.both(operator.getitem, part)

    @rule(index=indexes, value=values)
    def set(self, index, value):
        self.both(operator.setitem, index, value)

    @rule(part=slices, new=st.lists(values, max_size=4))
    def set_slice(self, part, new):
        self.both(operator.setitem, part, new)

    @rule(part=slices)
    def set_slice_to_itself(self, part):
        expected = self.model[:]
        expected_error = outcome(operator.setitem, self.model, part, expected)
        found = outcome(operator.setitem, self.live, part, self.live)
        assert found == expected_error

    @rule(index=indexes)
    def delete(self, index):
        self.both(operator.delitem, index)

    @rule(part=slices)
    def delete_slice(self, part):
        self.both(operator.delitem, part)

    @rule(value=values)
    def append(self, value):
        self.both(lambda it, v: it.append(v), value)

    @rule(new=st.lists(values, max_size=4))
    def extend(self, new):
        self.both(lambda it, v: it.extend(v), new)
        self.both(lambda it, v: it.extend(iter(v)), new)

    @rule(index=indexes, value=values)
    def insert(self, index, value):
        self.both(lambda it, i, v: it.insert(i, v), index, value)

    @rule()
    def pop(self):
        self.both(lambda it: it.pop())

    @rule(index=indexes)
    def pop_at(self, index):
        self.both(lambda it, i: it.pop(i), index)

    @rule(value=values)
    def remove(self, value):
        self.both(lambda it, v: it.remove(v), value)

    @rule(value=values)
    def look_for(self, value):
        self.both(lambda it, v: (v in it, it.count(v)), value)
        self.both(lambda it, v: it.index(v), value)
        self.both(lambda it, v: it.index(v, 1, -1), value)

    @rule(reverse=st.booleans())
    def sort(self, reverse):
        self.both(lambda it: it.sort(key=repr, reverse=reverse))

    @rule()
    def sort_without_key(self):
        model = self.model[:]
        try:
            model.sort()
        except TypeError:
            with pytest.raises(TypeError):
                self.live.sort()
        else:
            self.both(lambda it: it.sort())

    @rule()
    def reverse(self):
        self.both(lambda it: it.reverse())

    @rule()
    def clear(self):
        self.both(lambda it: it.clear())

    @rule(n=st.integers(-1, 3))
    def repeat(self, n):
        self.both(lambda it: it * n)
        self.both(lambda it: n * it)
        if len(self.model) < 50:
            self.both(lambda it: operator.imul(it, n) is it)

    @rule(new=st.lists(values, max_size=3))
    def add(self, new):
        self.both(lambda it, v: it + v, new)
        self.both(lambda it, v: v + it, new)
        self.both(lambda it, v: operator.iadd(it, v) is it, new)

    @rule(other=st.lists(st.integers(-2, 2), max_size=3))
    def compare(self, other):
        for call in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
            self.both(call, other)
            self.both(lambda it, v, call=call: call(v, it), other)

    @rule()
    def iterate(self):
        self.both(lambda it: (list(it), list(reversed(it)), it.copy(), copy.copy(it), copy.deepcopy(it)))

    @rule(value=values)
    def change_within(self, value):
        for i, item in enumerate(self.model):
            if type(item) is list:
                item.append(value)
                self.live[i].append(value)
            elif type(item) is dict:
                item["new"] = value
                self.live[i]["new"] = value


class DictMachine(Machine):
    @initialize(model=st.dictionaries(keys, values, max_size=6))
    def start(self, model):
        self.begin(model)

    @rule(key=keys)
    def get(self, key):
        self.both(operator.getitem, key)
        self.both(lambda it, k: (it.get(k), it.get(k, 5), k in it, k in it.keys()), key)

    @rule(key=keys, value=values)
    def set(self, key, value):
        self.both(operator.setitem, key, value)

    @rule(key=keys)
    def delete(self, key):
        self.both(operator.delitem, key)

    @rule(key=keys, value=values)
    def setdefault(self, key, value):
        self.both(lambda it, k, v: it.setdefault(k, v), key, value)

    @rule(key=keys)
    def pop(self, key):
        self.both(lambda it, k: it.pop(k), key)
        self.both(lambda it, k: it.pop(k, "none"), key)

    @rule()
    def popitem(self):
        self.both(lambda it: it.popitem())

    @rule(new=st.dictionaries(keys, values, max_size=3))
    def update(self, new):
        self.both(lambda it, v: it.update(v), new)
        self.both(lambda it, v: it.update(list(v.items())), new)
        self.both(lambda it, v: operator.ior(it, v) is it, new)
        self.both(lambda it, v: (it | v, v | it), new)

    @rule()
    def update_by_keywords(self):
        self.both(lambda it: it.update({"x": 1}, y=2))

    @precondition(lambda self: len(self.model) > 3)
    @rule()
    def clear(self):
        self.both(lambda it: it.clear())

    @rule()
    def iterate(self):
        self.both(lambda it: (list(it), list(it.keys()), list(it.values()), list(it.items())))
        self.both(lambda it: (list(reversed(it)), list(reversed(it.keys())), list(reversed(it.items()))))
        self.both(lambda it: (it.copy(), copy.copy(it), copy.deepcopy(it)))
        assert list(map(repr, self.live)) == list(map(repr, self.model))

    @rule(other=st.sets(keys, max_size=4))
    def combine_views(self, other):
        for call in (operator.and_, operator.or_, operator.xor, operator.sub, operator.le, operator.gt, operator.eq):
            self.both(lambda it, v, call=call: call(it.keys(), v), other)
            self.both(lambda it, v, call=call: call(v, it.keys()), other)
        self.both(lambda it, v: it.keys().isdisjoint(v), other)

    @rule(key=keys, value=values)
    def look_into_views(self, key, value):
        self.both(lambda it, k, v: ((k, v) in it.items(), v in it.values(), len(it.items())), key, value)

    @precondition(lambda self: len(self.model) > 0)
    @rule()
    def change_while_iterating(self):
        def change(it):
            for key in it:
                it[f"new {len(it)}"] = 1

        self.both(change)

    @rule(key=keys)
    def unhashable(self, key):
        self.both(operator.getitem, [key])
        self.both(operator.setitem, {"a": key}, 1)


class SetMachine(Machine):
    @initialize(model=st.sets(keys, max_size=6))
    def start(self, model):
        self.begin(model)

    @rule(key=keys)
    def add(self, key):
        self.both(lambda it, k: it.add(k), key)

    @rule(key=keys)
    def remove(self, key):
        self.both(lambda it, k: k in it, key)
        self.both(lambda it, k: it.remove(k), key)
        self.both(lambda it, k: it.discard(k), key)

    @rule()
    def pop(self):
        if self.model:
            self.model.remove(self.live.pop())
        else:
            self.both(lambda it: it.pop())

    @rule(other=st.sets(keys, max_size=4))
    def combine(self, other):
        for call in (operator.and_, operator.or_, operator.xor, operator.sub):
            self.both(call, other)
            self.both(lambda it, v, call=call: call(v, it), other)
            self.both(call, frozenset(other))
        for name in ("union", "intersection", "difference", "symmetric_difference"):
            self.both(lambda it, v, name=name: getattr(it, name)(list(v)), other)

    @rule(other=st.sets(keys, max_size=4), call=st.sampled_from(["iand", "ior", "ixor", "isub"]))
    def combine_in_place(self, other, call):
        self.both(lambda it, v: getattr(operator, call)(it, v) is it, other)

    @rule(
        other=st.sets(keys, max_size=4),
        name=st.sampled_from(["update", "intersection_update", "difference_update", "symmetric_difference_update"]),
    )
    def update(self, other, name):
        self.both(lambda it, v: getattr(it, name)(iter(v)), other)

    @rule(other=st.sets(keys, max_size=4))
    def compare(self, other):
        for call in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
            self.both(call, other)
            self.both(lambda it, v, call=call: call(v, it), other)
        self.both(lambda it, v: (it.issubset(v), it.issuperset(v), it.isdisjoint(v)), other)

    @rule()
    def iterate(self):
        self.both(lambda it: (set(it), it.copy(), copy.copy(it)))
        self.both(lambda it: sorted(map(repr, it)))

    @precondition(lambda self: len(self.model) > 0)
    @rule()
    def change_while_iterating(self):
        def change(it):
            for _ in it:
                it.add(f"new {len(it)}")

        self.both(change)


class ByteArrayMachine(Machine):
    @initialize(model=st.binary(max_size=12))
    def start(self, model):
        self.begin(bytearray(model))

    @rule(index=indexes)
    def get(self, index):
        self.both(operator.getitem, index)

    @rule(part=slices)
    def get_slice(self, part):
        self.both(operator.getitem, part)

    @rule(index=indexes, value=st.integers(-1, 256))
    def set(self, index, value):
        self.both(operator.setitem, index, value)

    @rule(part=slices, value=st.binary(max_size=4))
    def set_slice(self, part, value):
        self.both(operator.setitem, part, value)

    @rule(part=slices)
    def delete(self, part):
        self.both(operator.delitem, part)

    @rule(value=st.integers(-1, 256))
    def append(self, value):
        self.both(lambda it, v: it.append(v), value)

    @rule(value=st.binary(max_size=4))
    def extend(self, value):
        self.both(lambda it, v: it.extend(v), value)
        self.both(lambda it, v: operator.iadd(it, v) is it, value)
        self.both(lambda it, v: (it + v, v in it, it.find(v), it.count(v), it.split(v or b"x")), value)

    @rule(index=indexes, value=st.integers(0, 255))
    def insert(self, index, value):
        self.both(lambda it, i, v: it.insert(i, v), index, value)

    @rule(index=indexes)
    def pop(self, index):
        self.both(lambda it, i: it.pop(i), index)

    @rule(value=st.integers(0, 255))
    def remove(self, value):
        self.both(lambda it, v: it.remove(v), value)

    @rule()
    def look(self):
        self.both(lambda it: (list(it), bytes(it), it.hex(), it.upper(), it.strip(), it.reverse(), it * 2, 2 * it))
        self.both(lambda it: bytes(memoryview(it)))

    @rule(other=st.binary(max_size=3))
    def compare(self, other):
        for call in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
            self.both(call, other)
            self.both(lambda it, v, call=call: call(v, it), other)

    @precondition(lambda self: len(self.model) > 8)
    @rule()
    def clear(self):
        self.both(lambda it: it.clear())


for machine in (ListMachine, DictMachine, SetMachine, ByteArrayMachine):
    machine.TestCase.settings = SETTINGS

TestList = ListMachine.TestCase
TestDict = DictMachine.TestCase
TestSet = SetMachine.TestCase
TestByteArray = ByteArrayMachine.TestCase
