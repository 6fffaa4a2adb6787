# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the interfaces of other packages need of stores."""

from __future__ import annotations

import asyncio
import copy
import itertools
from typing import Any, Literal

import numpy

from ferry import _native
from ferry.errors import ChannelNotFoundError, MismatchError
from ferry.store import Dict, Store

__all__ = [
    "HEAD_BYTES",
    "buffer_of",
    "copy_of",
    "find",
    "is_dict",
    "is_live",
    "items_of",
    "keys_of",
    "make_live",
    "number_of",
    "open_or_join",
    "open_store",
    "wait_change_async",
]

#: What every live object takes, besides what is in it.
HEAD_BYTES = 64

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
_MODES: dict[bool | None, Literal["auto", "create", "join"]] = {None: "auto", True: "create", False: "join"}
_keys = itertools.count()


def open_store(name: str, max_bytes: int | None = None, create: bool | None = None) -> Store:
    """Open a store of objects of any class.

    Parameters
    ----------
    name : str
        Its name.
    max_bytes : int or None, optional
        The bound of its memory; None: what it has, or for a new one the default.
    create : bool or None, optional
        True: there must be none yet; False: there must be one; None: whatever there is.

    Raises
    ------
    ferry.ChannelNotFoundError, ferry.ChannelExistsError
        See `create`.
    """
    return Store(name, max_bytes=max_bytes, mode=_MODES[create], pickle=True)


def open_or_join(name: str, max_bytes: int) -> Store:
    """Open a store; if there is one already, its bound is what counts."""
    while True:
        try:
            return open_store(name, max_bytes)
        except MismatchError:
            try:
                return open_store(name, None, create=False)
            except ChannelNotFoundError:
                continue  # the last who had it has left just now


def is_live(value: Any) -> bool:
    """Whether something lives in a store."""
    return _native.store_of(value) is not None


def is_dict(value: Any) -> bool:
    """Whether something is a dict that lives in a store."""
    return type(value) is Dict


def copy_of(value: Any) -> Any:
    """Return a private copy of what was read."""
    return value if type(value) in _ATOMS else copy.deepcopy(value)


def keys_of(live: Dict) -> list[Any]:
    """Return the keys of a dict at an instant, while others change it."""
    while True:
        try:
            return list(live)
        except RuntimeError:
            continue  # it was changed meanwhile


def items_of(live: Dict) -> list[tuple[Any, Any]]:
    """Return the items of a dict at an instant, while others change it."""
    while True:
        try:
            return list(live.items())
        except RuntimeError:
            continue


def make_live(scratch: Dict, value: Any) -> Any:
    """Put an object into a store, where only who holds what is returned refers to it.

    Parameters
    ----------
    scratch : Dict
        A dict of that store that only this process uses.
    value : object
        What to put.
    """
    key = next(_keys)
    scratch[key] = value
    return scratch.pop(key)


def number_of(value: Any) -> int | None:
    """Return the number of a live object, which is the same in all processes; None for what is not live."""
    return _native.store_number(value)


def find(store: Store, number: int) -> Any:
    """Return the live object of a number; None if there is none any more."""
    return _native.store_find(store, number)


def buffer_of(value: Any) -> memoryview | None:
    """Return the bytes of an array or a tensor in a store, to be read and written; None for other things."""
    if hasattr(value, "numpy") and hasattr(value, "untyped_storage"):
        value = value.numpy()
    if isinstance(value, numpy.ndarray) and (value.flags.c_contiguous or value.flags.f_contiguous):
        return value.reshape(-1, order="A").view("u1").data
    return None


async def wait_change_async(store: Store, seen: int, timeout: float) -> int | None:
    """Wait in a coroutine until anything has changed; return the new number, or None when the time is over."""
    new = store.watch()
    if new != seen:
        return new
    try:
        return await asyncio.wait_for(store._next_change(seen), timeout)
    except TimeoutError:
        return None
