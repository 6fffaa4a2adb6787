# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live objects: Python containers that live in shared memory, for any number of processes.

A `Store` is a mapping of names to values. What is read out of it is live: a `List`, `Dict`, `Set` or `ByteArray` with all
that the plain type has, an array, or an instance of the user's class, whose changes all processes see at once.

Examples
--------
>>> import ferry
>>> store = ferry.Store()
>>> store["config"] = {"rate": 10, "hosts": ["a", "b"]}
>>> hosts = store["config"]["hosts"]
>>> hosts.append("c")
>>> store["config"]
{'rate': 10, 'hosts': ['a', 'b', 'c']}
"""

from __future__ import annotations

import ast
import collections.abc
import copyreg
import dataclasses
import datetime
import enum
import functools
import numbers
import shlex
import sys
import time
import types
import uuid
from abc import ABCMeta
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from ferry import _native
from ferry._lifecycle import close_at_exit
from ferry.errors import ChannelNotFoundError

if TYPE_CHECKING:
    import numpy

__all__ = ["ByteArray", "Dict", "List", "Set", "Store", "snapshot", "store_of"]

List = _native.StoreList
Dict = _native.StoreDict
Set = _native.StoreSet
ByteArray = _native.StoreByteArray

collections.abc.MutableSequence.register(List)
collections.abc.MutableSequence.register(ByteArray)
collections.abc.MutableMapping.register(Dict)
collections.abc.MutableSet.register(Set)
collections.abc.MappingView.register(_native.StoreDictView)

_MISSING = object()


def snapshot(obj: Any) -> Any:
    """Return a plain copy of a live object, with copies of everything in it.

    Each container is copied at one instant; objects that are shared within, and cycles, are so in the copy.

    Parameters
    ----------
    obj : object
        A `List`, `Dict`, `Set`, `ByteArray`, array or instance that was read out of a store.

    Returns
    -------
    object
        A list, dict, set, bytearray, array or instance of the class.

    Raises
    ------
    TypeError
        The object is not live.
    """
    return _native.store_snapshot(obj)


def store_of(obj: Any) -> Store | None:
    """Return the store in which an object lives, or None for one that is not live."""
    return _native.store_of(obj)


class _Transaction:
    """What `Store.transaction()` returns."""

    __slots__ = ("_store", "_timeout")

    def __init__(self, store: Store, timeout: float | None) -> None:
        self._store = store
        self._timeout = timeout

    def __enter__(self) -> Store:
        self._store.begin_transaction(self._timeout)
        return self._store

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if exc_type is None:
            self._store.commit()
        elif not self._store.closed and self._store.in_transaction:
            self._store.roll_back()


class _Watch:
    """A store as what tasks of asyncio wait for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen = store.watch()

    def fileno(self) -> int:
        return self._store.fileno()

    def check(self) -> bool:
        new = self._store.check(self._seen)
        if new is not None:
            self._seen = new
        return new is not None


def _describe(words: Iterable[str]) -> str:
    """Join words of a description: what stands behind an equals sign is quoted, not the word as a whole."""
    parts = (word.partition("=") for word in words)
    return " ".join(f"{key}={shlex.quote(value)}" if equals else key for key, equals, value in parts)


class Store(_native.Store, MutableMapping[str, Any]):
    """A named heap in shared memory, and the mapping of names to what is in it.

    Every operation on it, and on what is read out of it, is one step for all other threads and processes: they see it
    whole or not at all. `transaction()` makes one step of several. Processes may die at any instant: what one was about
    to change is then as it was before.

    Values are None, bool, int, float, complex, str, bytes, tuple, frozenset, slice and other immutable ones, which are
    copied; list, dict, set, bytearray, NumPy arrays, torch tensors and instances of classes (dataclasses, and any other
    whose instances have a ``__dict__`` or ``__slots__``), which are live when they are read. Containers within are live,
    too; what is shared within a value, and cycles, stay so; and a live object that is assigned again is the same one.
    What nobody refers to any more is freed.

    Parameters
    ----------
    name : str, optional
        By which other processes open it. Without one it is for this process and those that it forks.
    transport : str, default "memfd"
        Where its memory comes from; one that maps memory.
    max_bytes : int, optional
        The bound of its memory, half of the machine's if left out.
    mode : {"auto", "create", "join"}, default "auto"
        Whether it must be new, or must be there already.
    pickle : bool, default False
        Whether values of classes that have their own way to be pickled can be stored, as immutable copies, and modules of
        classes are imported when an instance is read. Only where everybody who has the store is trusted: to read such
        a value runs code that its writer chose. Without it, classes are looked up in modules that are imported already.
    **properties
        Further properties of the transport.

    Raises
    ------
    ChannelNotFoundError, ChannelExistsError
        With the modes "join" and "create".
    MismatchError
        It exists with another bound, or the name is that of a channel.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        transport: str = "memfd",
        max_bytes: int | None = None,
        mode: Literal["auto", "create", "join"] = "auto",
        pickle: bool = False,
        **properties: Any,
    ) -> None:
        words = [transport]
        if name is not None:
            words.append(f"name={name}")
        if max_bytes is not None:
            words.append(f"max-bytes={int(max_bytes)}")
        if mode not in ("auto", "create", "join"):
            raise ValueError(f"mode is {mode!r}; it must be 'auto', 'create' or 'join'")
        if mode != "auto":
            words.append(f"open-mode={mode}")
        words += [f"{key.replace('_', '-')}={value}" for key, value in properties.items()]
        super().__init__(_describe(words), pickle)
        self._watch: _Watch | None = None
        close_at_exit(self)

    # A store is itself, whatever is in it.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self)} keys"
        return f"<ferry.Store {self.name!r}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_for_reference, (self.identity, self._description, self.pickle)

    def close(self) -> None:
        """Leave the store. What was read out of it can't be used any more; the last one to leave frees its memory."""
        watch = self.__dict__.get("_watch")
        if watch is not None:
            from ferry._asyncio import wake

            wake(watch)
        super().close()

    # The mapping

    def __iter__(self) -> Iterator[str]:
        return iter(self._list_keys())

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, which is set to the default if it is not there, in one step."""
        value = self.get(key, _MISSING)
        if value is not _MISSING:
            return value
        with self.transaction():
            if key not in self:
                self[key] = default
            return self[key]

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set all items of a mapping or of pairs, all or none."""
        items = dict(other, **kwargs)
        with self.transaction():
            for key, value in items.items():
                self[key] = value

    def clear(self) -> None:
        """Remove all keys, in one step."""
        with self.transaction():
            for key in self._list_keys():
                del self[key]

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the item that was added last."""
        with self.transaction():
            keys = self._list_keys()
            if not keys:
                raise KeyError("popitem(): store is empty")
            return keys[-1], self.pop(keys[-1])

    def snapshot(self) -> dict[str, Any]:
        """Return a dict with plain copies of everything, at one instant."""
        with self.transaction():
            holder: dict[str, Any] = {}
            for key in self._list_keys():
                value = self[key]
                holder[key] = _native.store_snapshot(value) if _native.store_of(value) is not None else value
            return holder

    # Several steps as one

    def transaction(self, timeout: float | None = None) -> _Transaction:
        """Return a context manager that holds the store.

        Within, nobody else changes anything in it; others read what was before. At the end all changes count at one
        instant; an exception undoes them, and so does the end of the process, however it comes. Transactions may be
        nested. What is written into arrays takes no part in them.

        Parameters
        ----------
        timeout : float, optional
            How long to wait for others, in seconds; as long as it takes if left out.

        Raises
        ------
        TimedOutError
            Somebody else holds the store.

        Examples
        --------
        >>> import ferry
        >>> store = ferry.Store()
        >>> store["from"], store["to"] = 10, 0
        >>> with store.transaction():
        ...     store["from"] -= 5
        ...     store["to"] += 5
        """
        return _Transaction(self, timeout)

    def atomic(self) -> _Transaction:
        """Return `transaction()`, for changes such as ``with store.atomic(): counts["a"] += 1``."""
        return _Transaction(self, None)

    def add(self, container: Any, key: Any, delta: Any) -> Any:
        """Add to an element in one step.

        Parameters
        ----------
        container : Store, List, Dict or a live instance
            What has the element.
        key : object
            Its index, its key or the name of the attribute.
        delta : object
            What to add. Numbers of up to 64 bits are added without holding the store.

        Returns
        -------
        object
            The sum.
        """
        kind = type(container)
        result: Any = NotImplemented
        if kind is List or kind is Dict or isinstance(container, _native.Store):
            result = container._add(key, delta)
        elif issubclass(kind, Live):
            field = kind.__ferry_fields__.get(key)
            if field is not None:
                result = _native.store_add_to_field(container, field, delta)
        if result is not NotImplemented:
            return result
        with self.transaction():
            if issubclass(kind, Live):
                setattr(container, key, getattr(container, key) + delta)
                return getattr(container, key)
            container[key] = container[key] + delta
            return container[key]

    # Waiting

    def _look(self, key: str) -> tuple[Any, Any]:
        """Return the value of a key, and what tells whether it has changed."""
        value = self.get(key, _MISSING)
        if value is _MISSING:
            return value, None
        if _native.store_of(value) is None:
            return value, (type(value), value)
        return value, (_Same(value), _native.store_version(value))

    def wait(self, key: str, predicate: Callable[[Any], Any] | None = None, timeout: float | None = None) -> Any:
        """Wait for a value.

        Parameters
        ----------
        key : str
            Whose value to wait for.
        predicate : callable, optional
            Called with the value, first at once and then whenever anything in the store has changed, until what it returns
            is true. Without one: waits until there is another value, or until the live object that it is has itself
            changed (not what it refers to).
        timeout : float, optional
            Seconds.

        Returns
        -------
        object
            The value.

        Raises
        ------
        TimeoutError
            It did not come in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        seen = self.watch()
        value, before = self._look(key)
        if predicate is not None and value is not _MISSING and predicate(value):
            return value
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            new = self.wait_change(seen, left)
            if new is None:
                raise TimeoutError(f"the value of {key!r} did not come within {timeout} s")
            seen = new
            value, now = self._look(key)
            if self._has_come(value, before, now, predicate):
                return value

    @staticmethod
    def _has_come(value: Any, before: Any, now: Any, predicate: Callable[[Any], Any] | None) -> bool:
        if value is _MISSING:
            return False
        return bool(predicate(value)) if predicate is not None else not _is_equal(before, now)

    async def _next_change(self, seen: int) -> int:
        from ferry._asyncio import wait_ready

        if self._watch is None:
            self._watch = _Watch(self)
        while (new := self.watch()) == seen:
            await wait_ready(self._watch)
        return new

    async def wait_async(
        self, key: str, predicate: Callable[[Any], Any] | None = None, timeout: float | None = None
    ) -> Any:
        """Wait for a value as `wait()` does, in a task of asyncio."""
        import asyncio

        async def wait() -> Any:
            seen = self.watch()
            value, before = self._look(key)
            if predicate is not None and value is not _MISSING and predicate(value):
                return value
            while True:
                seen = await self._next_change(seen)
                value, now = self._look(key)
                if self._has_come(value, before, now, predicate):
                    return value

        try:
            return await asyncio.wait_for(wait(), timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"the value of {key!r} did not come within {timeout} s") from None

    async def changes(self, key: str) -> AsyncIterator[Any]:
        """Yield the value of a key each time that it has changed, as `wait()` without a predicate sees it.

        Changes that come faster than they are taken are seen as one.
        """
        seen = self.watch()
        _, before = self._look(key)
        while True:
            seen = await self._next_change(seen)
            value, now = self._look(key)
            if not _is_equal(before, now):
                before = now
                if value is not _MISSING:
                    yield value


class _Same:
    """An object of a store that equals itself."""

    __slots__ = ("_object",)

    def __init__(self, obj: Any) -> None:
        self._object = obj

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and _native.store_is_same(self._object, other._object)

    __hash__ = None  # type: ignore[assignment]


def _is_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False


# ---- references that came from elsewhere ----

_opened: dict[bytes, Store] = {}


def _open_for_reference(identity: bytes, description: str, pickle: bool) -> Store:
    """Return the store of that identity, which is opened if it is not yet."""
    for store in [*_opened.values(), *_native.store_list()]:
        if not store.closed and store.identity == identity:
            return store
    words = shlex.split(description)
    if not any(word.startswith("name=") for word in words):
        raise ValueError("a store without a name can only be used by the process that made it and those that it forks")
    keep = [word for word in words[1:] if not word.startswith(("open-mode=", "max-bytes="))]
    store = Store.__new__(Store)
    _native.Store.__init__(store, _describe([words[0], *keep, "open-mode=join"]), pickle)
    store._watch = None
    if store.identity != identity:
        store.close()
        raise ValueError(
            f"the store {store.name!r} is not the one that the reference came from; everybody may have left that one, or "
            "it has another directory= or group= and must be open before"
        )
    close_at_exit(store)
    _opened[identity] = store
    return store


def _open_named(identity: bytes, transport: str, name: str, pickle: bool) -> Store:
    """Return the store that a message of codec `store` refers to."""
    try:
        return _open_for_reference(identity, _describe([transport, f"name={name}"] if name else [""]), pickle)
    except ChannelNotFoundError as error:
        raise ChannelNotFoundError(
            f"the store {name!r} of the object is neither open here nor to be found by its name ({error}); open it before "
            "you receive, if it has a directory= or group=",
            error.domain,
            error.code,
        ) from error


def _plain(obj: Any) -> Any:
    return obj


def _get_plain_maker() -> Callable[[Any], Any]:
    return _plain


# ---- what values are ----

_CODEC, _RECORD, _MEMBER, _NAMED, _TENSOR, _LIVE, _STAND_IN = range(1, 8)
_HEAPTYPE = 1 << 9


def _is_plain_class(cls: type) -> bool:
    """Whether all that instances have is in slots and a dict."""
    return all(base is object or base.__flags__ & _HEAPTYPE for base in cls.__mro__)


def _overrides(cls: type, *names: str) -> bool:
    return any(getattr(cls, name, None) is not getattr(object, name, None) for name in names)


def _classify(cls: type) -> int:
    if issubclass(cls, Live):
        return _LIVE
    if "__ferry_live__" in vars(cls):
        return _STAND_IN
    if issubclass(cls, type):
        return _CODEC
    if isinstance(cls, enum.EnumMeta):
        return _MEMBER
    if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple) and hasattr(cls, "_make"):
        return _NAMED
    torch = sys.modules.get("torch")
    if torch is not None and cls is getattr(torch, "Tensor", None):
        return _TENSOR
    if not _is_plain_class(cls) or cls in copyreg.dispatch_table or _overrides(cls, "__reduce__", "__reduce_ex__"):
        return _CODEC
    if dataclasses.is_dataclass(cls):
        return _RECORD
    if _overrides(cls, "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"):
        return _CODEC
    return _RECORD


def _class_info(cls: type) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Any, ...], bool]:
    """Return the slots, the other names that instances should have, the class with all of them, whether there are more."""
    slots: list[str] = []
    for base in reversed(cls.__mro__):
        if base is not object:
            slots += [
                name
                for name, value in vars(base).items()
                if isinstance(value, types.MemberDescriptorType) and name not in slots
            ]
    has_dict = cls.__dictoffset__ != 0
    declared: list[str] = []
    if has_dict and dataclasses.is_dataclass(cls):
        declared = [field.name for field in dataclasses.fields(cls) if field.name not in slots]
    return tuple(slots), tuple(declared), (cls, *slots, *declared), has_dict


def _describe_class(key: tuple[Any, ...]) -> tuple[Any, ...]:
    cls, *names = key
    return cls.__module__, cls.__qualname__, 0, *names


def _find_class(module: str, qualname: str, pickle: bool, what: str) -> Any:
    found: Any = sys.modules.get(module)
    if found is None and pickle:
        import importlib

        found = importlib.import_module(module)
    if found is None:
        raise TypeError(
            f"can't read {what} of class {module}.{qualname}: its module is not imported here; import it first, or open "
            "the store with pickle=True, which imports it (only if everybody who has the store is trusted)"
        )
    for name in qualname.split("."):
        found = getattr(found, name, None)
    if not isinstance(found, type):
        raise TypeError(
            f"can't read {what} of class {module}.{qualname}: there is no such class; classes of objects in a store must "
            "be defined at the top of a module"
        )
    return found


def _describe_named(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return type(value).__module__, type(value).__qualname__, *value


def _make_named(parts: tuple[Any, ...], pickle: bool) -> Any:
    cls = _find_class(parts[0], parts[1], pickle, "a named tuple")
    if not issubclass(cls, tuple):
        raise TypeError(f"{parts[0]}.{parts[1]} is no named tuple here")
    return tuple.__new__(cls, parts[2:])


def _describe_member(member: enum.Enum) -> tuple[Any, ...]:
    cls = type(member)
    name = member._name_
    if name is not None and cls.__members__.get(name) is member:
        return cls.__module__, cls.__qualname__, name
    return cls.__module__, cls.__qualname__, None, member._value_


def _make_member(parts: tuple[Any, ...], pickle: bool) -> Any:
    cls = _find_class(parts[0], parts[1], pickle, "a member")
    if not isinstance(cls, enum.EnumMeta):
        raise TypeError(f"{parts[0]}.{parts[1]} is no enumeration here")
    if len(parts) > 3:
        return cls(parts[3])
    member = cls.__members__.get(parts[2])
    if member is None:
        raise TypeError(f"{parts[0]}.{parts[1]} has no member {parts[2]!r} here")
    return member


def _raise_not_storable(obj: Any, message: str) -> NoReturn:
    cls = type(obj)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    for base in (list, dict, set, bytearray):
        if isinstance(obj, base):
            raise TypeError(
                f"a {name} can't be live in a store, only a {base.__name__} can: store {base.__name__}(...) of it, or open "
                "the store with pickle=True to keep a copy that can't be changed"
            )
    raise TypeError(
        f"a {name} can't be stored as it is; open the store with pickle=True to keep a copy of it that can't be changed "
        f"(only if everybody who has the store is trusted): {message}"
    )


def _raise_not_readable(message: str) -> NoReturn:
    raise TypeError(
        "the value was pickled; open the store with pickle=True to read it (only if everybody who has the store is "
        f"trusted): {message}"
    )


# ---- keys ----


def _key_stand_in(obj: Any) -> Any:
    """Return something of a basic type that is equal for what is equal to `obj`, in all processes."""
    cls = type(obj)
    if isinstance(obj, enum.Enum) and cls.__hash__ is enum.Enum.__hash__:
        return cls.__module__, cls.__qualname__, obj._name_
    if isinstance(obj, numbers.Number):
        return hash(obj) if obj == obj else 0
    if isinstance(obj, datetime.datetime):
        if obj.utcoffset() is None:
            return obj.replace(fold=0, tzinfo=None).isoformat()
        return obj.astimezone(datetime.timezone.utc).replace(fold=0, tzinfo=None).isoformat()
    if isinstance(obj, datetime.date):
        return obj.isoformat()
    if isinstance(obj, datetime.timedelta):
        return obj.days, obj.seconds, obj.microseconds
    if isinstance(obj, datetime.timezone):
        return _key_stand_in(obj.utcoffset(None))
    if isinstance(obj, uuid.UUID):
        return obj.int
    if isinstance(obj, range):
        return len(obj), obj[0] if obj else None, obj.step if len(obj) > 1 else None
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(obj, numpy.generic):
        item = obj.item()
        return item if isinstance(item, (bool, int, str, bytes)) else cls.__name__
    if isinstance(obj, (type, types.FunctionType, types.BuiltinFunctionType)):
        return obj.__module__, obj.__qualname__
    if dataclasses.is_dataclass(cls):
        params = cls.__dataclass_params__
        if params.eq and params.frozen:
            return cls.__qualname__, *(
                getattr(obj, field.name)
                for field in dataclasses.fields(obj)
                if (field.compare if field.hash is None else field.hash)
            )
    if cls.__hash__ is object.__hash__ and cls.__eq__ is object.__eq__ and _is_plain_class(cls):
        raise TypeError(
            f"a {cls.__qualname__} can't be a key in a store: it is only equal to itself, and its copy would be another"
        )
    return cls.__qualname__


# ---- arrays ----


@functools.lru_cache(maxsize=256)
def _describe_dtype(dtype: numpy.dtype[Any]) -> str:
    from numpy.lib import format as npy

    descr = npy.dtype_to_descr(dtype)
    return descr if isinstance(descr, str) else repr(descr)


@functools.lru_cache(maxsize=256)
def _read_dtype(text: str) -> numpy.dtype[Any]:
    from numpy.lib import format as npy

    return npy.descr_to_dtype(ast.literal_eval(text) if text.startswith(("[", "(")) else text)


def _copy_array(array: Any) -> Any:
    return array.clone() if not hasattr(array, "flags") else array.copy(order="K")


def _tensor_to_array(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy()


def _array_to_tensor(array: Any) -> Any:
    torch = sys.modules.get("torch")
    return array if torch is None else torch.from_numpy(array)


# ---- live instances ----


class Live:
    """What all live instances are, besides what their class is."""

    __slots__ = ()
    __ferry_class__: type
    __ferry_fields__: Mapping[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # The user's class is not told of the classes that are generated of it.
        pass

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # A new instance, as dataclasses.replace() makes one, is a plain one.
        return cls.__ferry_class__(*args, **kwargs)

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return type(self).__ferry_class__

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _native.store_reduce(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return _native.store_snapshot(self)

    def __copy__(self) -> Any:
        cls = type(self).__ferry_class__
        copy = object.__new__(cls)
        for name, field in type(self).__ferry_fields__.items():
            try:
                value = field.__get__(self)
            except AttributeError:
                continue
            _set_plain(copy, name, value)
        for name, value in (_native.store_extra(self, False) or {}).items():
            _set_plain(copy, name, value)
        return copy


def _set_plain(instance: Any, name: str, value: Any) -> None:
    try:
        object.__setattr__(instance, name, value)
    except AttributeError:
        instance.__dict__[name] = value


class _Attributes(MutableMapping[str, Any]):
    """The ``__dict__`` of a live instance."""

    __slots__ = ("_instance",)

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def _extra(self, create: bool) -> Any:
        return _native.store_extra(self._instance, create)

    def __getitem__(self, key: str) -> Any:
        cls = type(self._instance)
        field = cls.__ferry_fields__.get(key)
        if field is not None and key not in cls.__ferry_slots__:
            try:
                return _native.store_read_field(self._instance, field)
            except AttributeError:
                raise KeyError(key) from None
        extra = self._extra(False)
        if extra is None:
            raise KeyError(key)
        return extra[key]

    def __setitem__(self, key: str, value: Any) -> None:
        cls = type(self._instance)
        field = cls.__ferry_fields__.get(key)
        if field is not None and key not in cls.__ferry_slots__:
            field.__set__(self._instance, value)
        else:
            self._extra(True)[key] = value

    def __delitem__(self, key: str) -> None:
        cls = type(self._instance)
        field = cls.__ferry_fields__.get(key)
        try:
            if field is not None and key not in cls.__ferry_slots__:
                field.__delete__(self._instance)
            else:
                del (self._extra(False) or {})[key]
        except AttributeError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        cls = type(self._instance)
        for name, field in cls.__ferry_fields__.items():
            if name in cls.__ferry_slots__:
                continue
            try:
                _native.store_read_field(self._instance, field)
            except AttributeError:
                continue
            yield name
        yield from list(self._extra(False) or ())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


def _make_setattr(cls: Any) -> Callable[[Any, str, Any], None]:
    params = getattr(cls, "__dataclass_params__", None)
    if params is not None and params.frozen:

        def refuse(self: Any, name: str, value: Any) -> None:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

        return refuse

    def set_attribute(self: Any, name: str, value: Any) -> None:
        cls.__setattr__(self, name, value)
        _native.store_flush_record(self)

    return set_attribute


@functools.lru_cache(maxsize=None)
def _make_live_class(cls: type, names: tuple[str, ...]) -> type:
    slots, _, _, has_dict = _class_info(cls)
    fields = tuple(_native.StoreField(name, i) for i, name in enumerate(names))
    namespace: dict[str, Any] = {
        "__slots__": ("_ferry_handle",),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__ferry_class__": cls,
        "__ferry_fields__": dict(zip(names, fields)),
        "__ferry_slots__": frozenset(slots),
    }
    for name, field in zip(names, fields):
        known = _find_attribute(cls, name)
        # A descriptor of the user's that keeps its value in the instance's dict under its own name goes on doing so.
        if name not in slots and known is not None and hasattr(type(known), "__set__"):
            continue
        namespace[name] = field
    generic_set = cls.__setattr__ is object.__setattr__ and cls.__delattr__ is object.__delattr__
    if has_dict:
        namespace["__dict__"] = property(_Attributes)
        if not generic_set:
            namespace["__setattr__"] = _make_setattr(cls)
    meta = type(cls)
    if meta is type or meta is ABCMeta:
        live = meta(cls.__name__, (Live, cls), namespace)
    else:
        live = type.__new__(meta, cls.__name__, (Live, cls), namespace)
    custom_get = cls.__getattribute__ is not object.__getattribute__
    _native.store_finish_class(live, cls, names, fields, has_dict, generic_set, custom_get)
    return live


def _find_attribute(cls: type, name: str) -> Any:
    """Return what a class or its bases have under a name, without calling anything."""
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def _live_class(description: tuple[Any, ...], pickle: bool) -> type:
    if len(description) < 3 or not all(isinstance(word, str) for word in (*description[:2], *description[3:])):
        raise TypeError("an object in the store has a class that can't be")
    module, qualname, _, *names = description
    cls = _find_class(module, qualname, pickle, "an object")
    if _classify(cls) != _RECORD:
        raise TypeError(f"can't read an object of class {module}.{qualname}: here it is of another kind")
    slots, _, _, has_dict = _class_info(cls)
    if not has_dict and not set(names) <= set(slots):
        raise TypeError(f"can't read an object of class {module}.{qualname}: here it has other slots")
    return _make_live_class(cls, tuple(names))
