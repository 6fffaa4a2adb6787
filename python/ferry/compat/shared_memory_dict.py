# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interface of the package shared-memory-dict, through `ferry.Store`.

``from ferry.compat.shared_memory_dict import SharedMemoryDict`` in place of ``from shared_memory_dict import
SharedMemoryDict`` is all that a program has to change. What is different is told in docs/store-compat.md; in short,
every operation is atomic between processes, whether or not ``SHARED_MEMORY_USE_LOCK`` is set, and touches what it is
about instead of pickling all there is.
"""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from contextlib import suppress
from typing import Any, Final, Protocol

from ferry.compat import _store
from ferry.errors import ClosedError, NoSpaceError

__all__ = [
    "NULL_BYTE",
    "DeserializationError",
    "JSONSerializer",
    "PickleSerializer",
    "SerializationError",
    "SharedMemoryDict",
    "SharedMemoryDictSerializer",
]

NULL_BYTE: Final = b"\x00"
NOT_GIVEN: Final = object()

_DATA = "shared-memory-dict"  # key of the store

# There, `size` bounds what pickle makes of everything. Single values that can be changed in place take more than
# that, so the bound here is one that nobody meets who stays within theirs.
_FACTOR = 16
_AT_LEAST = 64 << 20  # bytes


class SerializationError(ValueError):
    """A serializer could not make bytes of an object."""

    def __init__(self, data: dict[Any, Any]) -> None:
        super().__init__(f"Failed to serialize data: {data!r}")


class DeserializationError(ValueError):
    """A serializer could not make an object of bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"Failed to deserialize data: {data!r}")


class SharedMemoryDictSerializer(Protocol):
    """Makes bytes of dicts, and dicts of bytes."""

    def dumps(self, obj: dict[Any, Any]) -> bytes:
        """Return the bytes."""
        ...

    def loads(self, data: bytes) -> dict[Any, Any]:
        """Return the dict."""
        ...


class JSONSerializer:
    """Only lets in what JSON knows, and keys become str."""

    def dumps(self, obj: dict[Any, Any]) -> bytes:
        """Return the bytes."""
        try:
            return json.dumps(obj).encode() + NULL_BYTE
        except (ValueError, TypeError):
            raise SerializationError(obj) from None

    def loads(self, data: bytes) -> dict[Any, Any]:
        """Return the dict."""
        data = data.split(NULL_BYTE, 1)[0]
        try:
            return json.loads(data)  # type: ignore[no-any-return]
        except json.JSONDecodeError:
            raise DeserializationError(data) from None


class PickleSerializer:
    """The default. Values that Ferry knows are stored as they are; only others are pickled."""

    def dumps(self, obj: dict[Any, Any]) -> bytes:
        """Return the bytes."""
        try:
            return pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
        except pickle.PicklingError:
            raise SerializationError(obj) from None

    def loads(self, data: bytes) -> dict[Any, Any]:
        """Return the dict."""
        try:
            return pickle.loads(data)  # type: ignore[no-any-return]
        except pickle.UnpicklingError:
            raise DeserializationError(data) from None


DEFAULT_SERIALIZER: Final = PickleSerializer()


class _Memory:
    """What `SharedMemoryDict.shm` is: what one does with a `multiprocessing.shared_memory.SharedMemory`."""

    def __init__(self, store: Any, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self._size = size

    @property
    def name(self) -> str:
        """What the memory is found by."""
        return self._name

    @property
    def size(self) -> int:
        """What was given as size."""
        return self._size

    def close(self) -> None:
        """Use the dict no more in this object. Others go on."""
        self._store.close()

    def unlink(self) -> None:
        """Let nobody find the dict any more; who has it goes on with it."""
        try:
            store = self._store
            store.pop(_DATA, None)
        except ClosedError:
            other = _store.open_store(self._name, None)
            other.pop(_DATA, None)
            other.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, size={self._size})"


class SharedMemoryDict:
    """A dict that processes share by its name.

    What is got out of it are copies: to change a value, assign it anew.

    Parameters
    ----------
    name : str
        What it is found by. It is made if there is none, and lasts as long as any process has it.
    size : int
        How many bytes pickle may make of it, at least: there is room for that much.
    serializer : SharedMemoryDictSerializer, optional
        What each item is passed through when it is set, so that only what it takes gets in, in the form that it gives.

    Raises
    ------
    ValueError
        When something is put into it: there is no room.
    """

    def __init__(self, name: str, size: int, *, serializer: SharedMemoryDictSerializer = DEFAULT_SERIALIZER) -> None:
        self._serializer = serializer
        full_name = f"sm_{name}"
        store = _store.open_or_join(full_name, max(size * _FACTOR, _AT_LEAST))
        self._memory_block = _Memory(store, full_name, size)
        self._data = store.setdefault(_DATA, {})

    @property
    def shm(self) -> Any:
        """The memory: has `close()`, `unlink()`, `name` and `size`."""
        return self._memory_block

    def cleanup(self) -> None:
        """Use it no more in this object."""
        if hasattr(self, "_memory_block"):
            self._memory_block.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.cleanup()

    def _prepare(self, items: dict[Any, Any]) -> dict[Any, Any]:
        serializer = self._serializer
        return items if serializer is DEFAULT_SERIALIZER else serializer.loads(serializer.dumps(items))

    def _read(self) -> dict[Any, Any]:
        return copy.deepcopy(self._data)

    def __getitem__(self, key: Any) -> Any:
        return _store.copy_of(self._data[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        try:
            if self._serializer is DEFAULT_SERIALIZER:
                self._data[key] = value
            else:
                self._data.update(self._prepare({key: value}))
        except NoSpaceError as error:
            raise ValueError("exceeds available storage") from error

    def __delitem__(self, key: Any) -> None:
        del self._data[key]

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        return iter(_store.keys_of(self._data))

    def __reversed__(self) -> Iterator[Any]:
        return reversed(_store.keys_of(self._data))  # type: ignore[no-any-return]

    def __contains__(self, key: Any) -> bool:
        return key in self._data

    def __eq__(self, other: object) -> bool:
        return self._read() == (other._read() if isinstance(other, SharedMemoryDict) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> dict[Any, Any]:
        return self._read() | (other._read() if isinstance(other, SharedMemoryDict) else other)

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return other | self._read()  # type: ignore[no-any-return]

    def __ior__(self, other: Any) -> SharedMemoryDict:
        self.update(other)
        return self

    def __str__(self) -> str:
        return str(self._read())

    def __repr__(self) -> str:
        return repr(self._read())

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or the default if there is none."""
        try:
            return self[key]
        except KeyError:
            return default

    def keys(self) -> KeysView[Any]:
        """Return the keys at this moment."""
        return dict.fromkeys(_store.keys_of(self._data)).keys()

    def values(self) -> ValuesView[Any]:
        """Return the values at this moment."""
        return self._read().values()

    def items(self) -> ItemsView[Any, Any]:
        """Return the items at this moment."""
        return self._read().items()

    def pop(self, key: Any, default: Any = NOT_GIVEN) -> Any:
        """Take a key out, and return its value, or the default if there is none."""
        if default is NOT_GIVEN:
            return _store.copy_of(self._data.pop(key))
        value = self._data.pop(key, default)
        return value if value is default else _store.copy_of(value)

    def popitem(self, last: bool | None = None) -> tuple[Any, Any]:
        """Take the item that was added last."""
        if last is not None:
            warnings.warn(
                "popitem() always takes the item that was added last: leave `last` out",
                DeprecationWarning,
                stacklevel=2,
            )
        key, value = self._data.popitem()
        return key, _store.copy_of(value)

    def move_to_end(self, key: Any, last: bool | None = True) -> None:
        """Make a key the last one."""
        warnings.warn("use pop() and assign the value anew instead of move_to_end()", DeprecationWarning, stacklevel=2)
        with self._memory_block._store.transaction():
            self._data[key] = self._data.pop(key)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, which is the default if there was none."""
        try:
            if self._serializer is DEFAULT_SERIALIZER:
                self._data.setdefault(key, default)
            else:
                for prepared, value in self._prepare({key: default}).items():
                    self._data.setdefault(prepared, value)
        except NoSpaceError as error:
            raise ValueError("exceeds available storage") from error
        return self[key]

    def update(self, other: Any = (), /, **kwds: Any) -> None:
        """Put the items of another mapping, or pairs, into it: all at one instant."""
        if isinstance(other, SharedMemoryDict):
            other = other._read()
        try:
            self._data.update(self._prepare(dict(other, **kwds)))
        except NoSpaceError as error:
            raise ValueError("exceeds available storage") from error

    def clear(self) -> None:
        """Take everything out."""
        self._data.clear()
