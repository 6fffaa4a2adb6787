# SPDX-License-Identifier: LGPL-2.1-or-later
"""Wrappers that say how an object is to be shared, and instances that become what they share.

Ferry shares each type in one way, which has the advantages of all that can be asked for here; so what remains of the
wrappers is whether the instance that was given is to be the shared one as well (in place) or stays what it is (copy).
"""

from __future__ import annotations

import copy
import enum
import functools
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ferry.compat import _store

__all__ = [
    "BigInt",
    "FastLimitedDict",
    "FastLimitedSet",
    "ForceGeneralObjectCopy",
    "ForceGeneralObjectInplace",
    "ForceMapping",
    "ForceStaticObjectCopy",
    "ForceStaticObjectInplace",
    "SmallInt",
    "dict_to_list",
    "intenum_dict_to_list",
    "intenum_list_to_dict",
    "list_to_dict",
]


class SmallInt(int):
    """An integer that is said to fit into 64 bits. All are shared alike."""


class BigInt(int):
    """An integer that may not fit into 64 bits. All are shared alike."""


class FastLimitedSet(set[Any]):
    """A set to be shared; also what is added and taken out later is seen by all."""


class FastLimitedDict(dict[Any, Any]):
    """A dict to be shared; also what is changed later is seen by all."""


class ForceMapping(dict[Any, Any]):
    """A dict to be shared as a mapping, as every dict is."""


class _Force:
    """An instance, and how it is to be shared."""

    __slots__ = ("obj",)
    IN_PLACE = False

    def __init__(self, obj: Any) -> None:
        self.obj = obj

    def __call__(self) -> Any:
        return self.obj

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.obj!r})"


class ForceStaticObjectCopy(_Force):
    """Share an instance; the one that is given stays as it is."""


class ForceStaticObjectInplace(_Force):
    """Share an instance; the one that is given becomes the shared one. The default."""

    IN_PLACE = True


class ForceGeneralObjectCopy(_Force):
    """Share an instance with whatever attributes it gets later; the one that is given stays as it is."""


class ForceGeneralObjectInplace(_Force):
    """Share an instance with whatever attributes it gets later; the one that is given becomes the shared one."""

    IN_PLACE = True


_PLAIN_OF: dict[type, type] = {
    SmallInt: int,
    BigInt: int,
    FastLimitedSet: set,
    FastLimitedDict: dict,
    ForceMapping: dict,
}
_WRAPPERS = frozenset(_PLAIN_OF) | {
    ForceStaticObjectCopy,
    ForceStaticObjectInplace,
    ForceGeneralObjectCopy,
    ForceGeneralObjectInplace,
}

# What neither is a wrapper nor may have one in it.
_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, slice, type(...), type(NotImplemented), range}
)
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class statement made it
_NO_INSTANCES = (
    *(int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, type),
    *(enum.Enum, BaseException, types.ModuleType),
)


# ---- instances ----


def _look_for_fields(cls: Any) -> bool:
    """Whether instances of a class are shared by their attributes."""
    return bool(cls.__flags__ & _HEAP_TYPE) and not issubclass(cls, _NO_INSTANCES)


def _look_for_slots(cls: Any) -> dict[str, Any]:
    """Return the slots of a class by their names as instances know them, with the descriptors."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if type(value) is types.MemberDescriptorType and name not in ("__dict__", "__weakref__"):
                found[name] = value
    return found


# Not as decorators: a class is no Hashable to type checkers, for the classes of its instances may be none.
_has_fields: Callable[[Any], bool] = functools.lru_cache(maxsize=1024)(_look_for_fields)
_slots_of: Callable[[Any], dict[str, Any]] = functools.lru_cache(maxsize=1024)(_look_for_slots)


def _fields_of(instance: Any) -> dict[str, Any]:
    """Return the attributes of an instance with their values."""
    fields = {}
    for name, descriptor in _slots_of(type(instance)).items():
        try:
            fields[name] = descriptor.__get__(instance)
        except AttributeError:
            pass  # not set
    fields.update(getattr(instance, "__dict__", ()))
    return fields


_LIVE = "_ferry_live"  # where an instance with a __dict__ has what it stands for
_mapped_classes: weakref.WeakKeyDictionary[type, dict[tuple[str, ...], type]] = weakref.WeakKeyDictionary()


def _make_mapped_class(cls: type, names: tuple[str, ...]) -> type:
    """Make a class of the same layout whose instances stand for live ones.

    What they share has to be found somewhere in them: in their `__dict__`, or where there is none in their first slot,
    which is hidden by the property of that name.
    """
    slots = _slots_of(cls)
    if cls.__dictoffset__:
        get_live: Callable[[Any], Any] = lambda self: vars(self)[_LIVE]  # noqa: E731
    else:
        get_live = next(iter(slots.values())).__get__

    def __getattr__(self: Any, name: str) -> Any:  # noqa: N807
        return getattr(get_live(self), name)

    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807
        setattr(get_live(self), name, value)

    def __delattr__(self: Any, name: str) -> None:  # noqa: N807
        delattr(get_live(self), name)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807
        return get_live(self).__reduce_ex__(protocol)

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:  # noqa: N807
        return copy.deepcopy(get_live(self), memo)

    def __copy__(self: Any) -> Any:  # noqa: N807
        return copy.copy(get_live(self))

    def make_property(name: str) -> property:
        return property(lambda self: getattr(get_live(self), name))

    namespace: dict[str, Any] = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__getattr__": __getattr__,
        "__setattr__": __setattr__,
        "__delattr__": __delattr__,
        "__reduce_ex__": __reduce_ex__,
        "__deepcopy__": __deepcopy__,
        "__copy__": __copy__,
        # Comparisons of dataclasses are between instances of one class.
        "__class__": property(lambda self: cls),
        "__ferry_live__": property(get_live),
        **{name: make_property(name) for name in {*names, *slots}},
    }
    return type(cls)(cls.__name__, (cls,), namespace)


def live_of(instance: Any) -> Any:
    """Return what an instance stands for; None if it does not."""
    if "__ferry_live__" in vars(type(instance)):
        return instance.__ferry_live__
    return None


def become(instance: Any, live: Any) -> bool:
    """Make an instance stand for a live one; return whether it does, which some classes don't allow."""
    cls = type(instance)
    if live_of(instance) is not None:
        return True
    slots = _slots_of(cls)
    if not cls.__dictoffset__ and not slots:
        return False
    names = tuple(_fields_of(instance))
    try:
        classes = _mapped_classes.setdefault(cls, {})
        mapped = classes.get(names)
        if mapped is None:
            mapped = classes[names] = _make_mapped_class(cls, names)
        object.__setattr__(instance, "__class__", mapped)
    except TypeError:
        return False  # another layout, no class below it, or a metaclass that objects
    for descriptor in slots.values():
        try:
            descriptor.__delete__(instance)
        except AttributeError:
            pass
    if cls.__dictoffset__:
        own = vars(instance)
        own.clear()
        own[_LIVE] = live
    else:
        next(iter(slots.values())).__set__(instance, live)
    return True


# ---- what is in what is put ----


class Parcel:
    """An object on its way into the shared memory.

    Attributes
    ----------
    content : object
        What to store: the object itself or, where there are wrappers or instances that are shared already, a copy of
        what they are in.
    """

    __slots__ = ("_kept", "_places", "_root", "content")

    def __init__(self, obj: Any) -> None:
        kind = type(obj)
        self._places: dict[int, tuple[int, Callable[[Any, Any], Any], Any]] = {}  # where the first one met is
        self._kept: list[tuple[Any, bool]] = []  # instances, and whether they become what is shared
        self._root = obj
        self.content = obj
        if kind not in _ATOMS and self._look(obj):
            self.content = _Unwrapper().unwrap(obj)

    def _look(self, root: Any) -> bool:
        """Find what is in it; return whether there is something to be replaced."""
        replaced = False
        pending = [root]
        seen = {id(root)}
        copied: set[int] = set()
        while pending:
            obj = pending.pop()
            kind = type(obj)
            inner: Iterable[tuple[Callable[[Any, Any], Any] | None, Any, Any]]
            if kind in _WRAPPERS:
                replaced = True
                if isinstance(obj, _Force):
                    inner = ((_same, None, obj.obj),)
                    if not obj.IN_PLACE:
                        copied.add(id(obj.obj))
                elif isinstance(obj, dict):
                    inner = _items_of(obj)
                elif isinstance(obj, set):
                    inner = ((None, None, item) for item in obj)
                else:
                    continue
            elif kind is dict:
                if _ATOMS.issuperset(map(type, obj.values())) and _ATOMS.issuperset(map(type, obj)):
                    continue
                inner = _items_of(obj)
            elif kind is list or kind is tuple:
                if _ATOMS.issuperset(map(type, obj)):
                    continue
                inner = ((_item, i, item) for i, item in enumerate(obj))
            elif kind is set or kind is frozenset:
                inner = ((None, None, item) for item in obj)
            elif "__ferry_live__" in vars(kind):
                replaced = True
                continue
            elif _has_fields(kind) and not _store.is_live(obj):
                inner = ((getattr, name, value) for name, value in _fields_of(obj).items())
                self._kept.append((obj, id(obj) not in copied))
            else:
                continue
            for get, key, item in inner:
                if type(item) in _ATOMS or id(item) in seen:
                    continue
                seen.add(id(item))
                if get is not None:
                    self._places[id(item)] = (id(obj), get, key)
                pending.append(item)
        return replaced

    def settle(self, live: Any) -> Any:
        """Make instances what they share, now that it is there. Return what the caller gets for the object."""
        found: dict[int, Any] = {id(self._root): live}

        def find(number: int) -> Any:
            path = []
            while number not in found:
                if number not in self._places:
                    return None
                path.append(number)
                number = self._places[number][0]
            value = found[number]
            for number in reversed(path):
                _, get, key = self._places[number]
                value = found[number] = get(value, key)
            return value

        result = live
        root = self._root.obj if isinstance(self._root, _Force) else self._root
        for instance, is_in_place in self._kept:
            if is_in_place:
                theirs = find(id(instance))
                if theirs is not None and become(instance, theirs) and instance is root:
                    result = instance
        if live_of(root) is not None:
            result = root
        return result


def _same(parent: Any, key: Any) -> Any:
    return parent


def _item(parent: Any, key: Any) -> Any:
    return parent[key]


def _items_of(mapping: dict[Any, Any]) -> Iterable[tuple[Callable[[Any, Any], Any] | None, Any, Any]]:
    for key, value in mapping.items():
        yield None, None, key
        yield _item, key, value


class _Unwrapper:
    """Copies objects, but for what has no wrappers in it and is no container."""

    def __init__(self) -> None:
        self._memo: dict[int, Any] = {}

    def unwrap(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _ATOMS:
            return obj
        known = self._memo.get(id(obj))
        if known is not None:
            return known
        if isinstance(obj, _Force):
            return self.unwrap(obj.obj)
        kind = _PLAIN_OF.get(kind, kind)
        if kind is int:
            return int(obj)
        if kind is list:
            new_list: list[Any] = []
            self._memo[id(obj)] = new_list
            new_list.extend(map(self.unwrap, obj))
            return new_list
        if kind is dict:
            new_dict: dict[Any, Any] = {}
            self._memo[id(obj)] = new_dict
            new_dict.update((self.unwrap(key), self.unwrap(value)) for key, value in obj.items())
            return new_dict
        if kind is set:
            new_set: set[Any] = set()
            self._memo[id(obj)] = new_set
            new_set.update(map(self.unwrap, obj))
            return new_set
        if kind is tuple or kind is frozenset:
            return kind(map(self.unwrap, obj))
        theirs = live_of(obj)
        if theirs is not None:
            return theirs
        if _has_fields(kind) and not _store.is_live(obj):
            result = self._memo[id(obj)] = copy.copy(obj)
            for name, value in _fields_of(obj).items():
                other = self.unwrap(value)
                if other is not value:
                    object.__setattr__(result, name, other)
            return result
        return obj


# ---- records by number ----


def _enum_class(mapping: Iterable[Any], int_enum_class: type[enum.IntEnum] | None) -> type[enum.IntEnum] | None:
    if int_enum_class is None:
        for key in mapping:
            if isinstance(key, enum.IntEnum):
                return type(key)
    return int_enum_class


def intenum_dict_to_list(mapping: Mapping[Any, Any], int_enum_class: type[enum.IntEnum] | None = None) -> list[Any]:
    """Return a list that has the values of a mapping at the places that its keys, members of an `IntEnum`, say.

    Parameters
    ----------
    mapping : mapping
        From members, or integers, to values.
    int_enum_class : type or None, optional
        The enumeration, which is that of the keys unless said. Members that the mapping does not have get None, and so
        do numbers that are no member's: an enumeration that starts at 5 has five of them at the beginning.

    Raises
    ------
    ValueError
        A key is negative, and so no place in a list; or there are neither keys nor an enumeration.
    """
    cls = _enum_class(mapping, int_enum_class)
    numbers = [int(key) for key in mapping]
    if cls is not None:
        numbers += [int(member) for member in cls]
    if not numbers:
        raise ValueError("there is neither a key nor an enumeration that says how long the list is to be")
    if min(numbers) < 0:
        raise ValueError(f"{min(numbers)} is no place in a list: the members must not be negative")
    result = [None] * (max(numbers) + 1)
    for key, value in mapping.items():
        result[int(key)] = value
    return result


def intenum_list_to_dict(data_list: Iterable[Any], int_enum_class: type[enum.IntEnum] | None = None) -> dict[Any, Any]:
    """Return the dict for such a list: from members to values; without an enumeration from numbers.

    Raises
    ------
    ValueError
        There is a value where the enumeration has no member.
    """
    if int_enum_class is None:
        return dict(enumerate(data_list))
    members = {int(member): member for member in int_enum_class}
    result = {}
    for number, value in enumerate(data_list):
        if number in members:
            result[members[number]] = value
        elif value is not None:
            raise ValueError(f"{number} is not a valid {int_enum_class.__name__}, but there is {value!r} in its place")
    return result


def dict_to_list(mapping: Mapping[int, Any]) -> list[Any]:
    """Return a list that has the values of a mapping at the places that its keys say, and None elsewhere."""
    return intenum_dict_to_list(mapping)


def list_to_dict(data_list: Iterable[Any]) -> dict[int, Any]:
    """Return the dict from places in a list to what is there."""
    return dict(enumerate(data_list))
