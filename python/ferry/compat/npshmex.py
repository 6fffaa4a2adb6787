# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package npshmex, in one line: ``from ferry.compat import npshmex``, or ``from ferry.compat.npshmex import ...``.

`ProcessPoolExecutor` is `ferry.ProcessPoolExecutor`, which needs no help for arrays; the functions put arrays in shared
memory by hand, as there. docs/executor.md tells what is different.
"""

from __future__ import annotations

import copy
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy

import ferry
from ferry import _native, shared

__all__ = [
    "ProcessPoolExecutor",
    "is_shmable",
    "is_shmkey",
    "register_array_wrapper",
    "shm_clear",
    "shm_del",
    "shm_pop",
    "shm_put",
    "unshm",
]

__version__ = "0.2.1"

_PREFIX = "shm://npshmex_"

_wrappers: dict[type, str] = {}
_put: dict[str, Any] = {}  # what this process has put, by key
_lock = threading.Lock()


class _Key(str):
    """The name of an array in shared memory. Other strings are never taken for one, whatever they look like."""

    is_temporary: bool
    _reference: Any  # of what another process has put

    def __new__(cls, text: str, is_temporary: bool, reference: Any = None) -> _Key:
        self = super().__new__(cls, text)
        self.is_temporary = is_temporary
        self._reference = reference
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        reference = self._reference
        thing = _put.get(str(self))
        if thing is not None:
            found = _native.shared_find(thing) if type(thing) is numpy.ndarray else None
            # By where it is, so that it is the same array everywhere.
            reference = thing if found is None else shared._reference(thing, found[2], found[3], False, True, False)
        return _Key, (str(self), self.is_temporary, reference)

    def load(self) -> Any:
        """Return the array."""
        thing = _put.get(str(self))
        if thing is None:
            thing = self._reference
            if isinstance(thing, tuple):
                rebuild, arguments = thing
                thing = rebuild(*arguments)
        if thing is None:
            raise FileNotFoundError(
                f"there is nothing in shared memory under the key '{self}'; it was deleted, or popped"
            )
        return thing


def register_array_wrapper(cls: type, attrname: str) -> None:
    """Let `shm_put()` take objects of a class that have an array in an attribute.

    Parameters
    ----------
    cls : type
        The class.
    attrname : str
        The name of the attribute.
    """
    _wrappers[cls] = attrname


def is_shmable(thing: object) -> bool:
    """Return whether `shm_put()` takes something: an array, or an object of a registered class."""
    return isinstance(thing, (numpy.ndarray, *_wrappers))


def is_shmkey(key: object) -> bool:
    """Return whether something is a key that `shm_put()` returned."""
    return isinstance(key, _Key)


def _share(thing: Any) -> Any:
    if type(thing) is numpy.ndarray and not thing.dtype.hasobject:
        fortran = thing.flags.f_contiguous and not thing.flags.c_contiguous
        array = shared._make(thing.shape, thing.dtype, "F" if fortran else "C", False)
        numpy.copyto(array, thing)
        return array
    if isinstance(thing, numpy.ndarray):
        return copy.deepcopy(thing)
    thing = copy.copy(thing)
    for cls, name in _wrappers.items():
        if isinstance(thing, cls):
            setattr(thing, name, _share(getattr(thing, name)))
    return thing


def shm_put(arr: Any, temp: bool = False) -> str:
    """Copy an array into shared memory.

    Parameters
    ----------
    arr : numpy.ndarray or object of a registered class
        What to put. It is not changed.
    temp : bool, default False
        Whether it is deleted when it is first retrieved, by `shm_pop()` or as an argument of a call.

    Returns
    -------
    str
        The key. As an argument of `ProcessPoolExecutor.submit()` it arrives as the array, which is the same memory in
        all processes; arrays with a mask, of subclasses and of objects arrive as copies.

    Raises
    ------
    ValueError
        It is neither of these.
    """
    if not is_shmable(arr):
        raise ValueError(
            f"shm_put() takes numpy arrays and objects of classes that register_array_wrapper() knows, not {type(arr)}"
        )
    key = _Key(f"{_PREFIX}data_{secrets.token_hex(8)}_{'TEMP' if temp else ''}", temp)
    thing = _share(arr)
    with _lock:
        _put[str(key)] = thing
    return key


def shm_pop(key: str, keep: bool | None = None) -> Any:
    """Return the array of a key, without copying it.

    Parameters
    ----------
    key : str
        What `shm_put()` returned, also in another process.
    keep : bool, optional
        Whether the key stays valid; if left out, unless it was put with `temp`. In another process than that which put
        it, it always does.

    Raises
    ------
    FileNotFoundError
        It was deleted.
    """
    key = key if isinstance(key, _Key) else _Key(key, key.endswith("_TEMP"))
    thing = key.load()
    if not (keep if keep is not None else not key.is_temporary):
        with _lock:
            _put.pop(str(key), None)
    return thing


def shm_del(key: str) -> None:
    """Delete a key. Who has the array keeps it.

    Raises
    ------
    FileNotFoundError
        This process has no such key.
    """
    with _lock:
        if str(key) not in _put:
            raise FileNotFoundError(f"this process has no array in shared memory under the key '{key}'")
        del _put[str(key)]


def shm_clear(alive: bool = False) -> None:
    """Free what nobody uses.

    What processes leave that end or are killed is gone by itself. This frees memory that is kept for the next array.

    Parameters
    ----------
    alive : bool, default False
        Whether to delete all keys of this process as well.
    """
    if alive:
        with _lock:
            _put.clear()
    _native.shared_trim()


def unshm(x: Any, keep: bool | None = None) -> Any:
    """Return something with arrays in place of keys.

    Parameters
    ----------
    x : object
        A key, or a list, tuple or dict in which keys are, at any depth; anything else is returned as it is.
    keep : bool, optional
        As for `shm_pop()`.
    """
    if isinstance(x, _Key):
        return shm_pop(x, keep)
    if type(x) in (list, tuple) and any(map(_may_have_keys, x)):
        return type(x)(unshm(item, keep) for item in x)
    if type(x) is dict and any(map(_may_have_keys, x.values())):
        return {name: unshm(item, keep) for name, item in x.items()}
    return x


def _may_have_keys(x: object) -> bool:
    return type(x) in (_Key, list, tuple, dict)


def _call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Do a call in the worker; what that put and returns by key arrives as an array."""
    return unshm(function(*args, **kwargs), False)


class ProcessPoolExecutor(ferry.ProcessPoolExecutor):
    """`npshmex.ProcessPoolExecutor`; everything else is as in `ferry.ProcessPoolExecutor`."""

    def submit(  # type: ignore[override]
        self, f: Callable[..., Any], /, *args: Any, shm_input: bool = True, shm_output: bool = True, **kwargs: Any
    ) -> Future[Any]:
        """Schedule a call.

        Parameters
        ----------
        f : callable
            What to call, in a worker.
        *args, **kwargs
            Its arguments. Keys, also within lists, tuples and dicts, arrive as arrays.
        shm_input, shm_output : bool, default True
            Without both, keys arrive, and are returned, as keys. Arrays travel through shared memory in any case.

        Returns
        -------
        concurrent.futures.Future
            Of what it returns.
        """
        if not shm_input and not shm_output:
            return super().submit(f, *args, **kwargs)
        args = tuple(map(unshm, args))
        kwargs = {name: unshm(value) for name, value in kwargs.items()}
        if not shm_output:
            return super().submit(f, *args, **kwargs)
        return super().submit(_call, f, *args, **kwargs)
