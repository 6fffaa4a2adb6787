# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interface of the package UltraDict, through `ferry.Store`: ``from ferry.compat.ultradict import UltraDict``.

A program that was written for it runs when its import names this module instead. What is different is told in
docs/store-compat.md; in short, every single operation is atomic between any processes, locks are given back when who
holds them dies, and nothing is pickled or dumped as a whole.
"""

from __future__ import annotations

import builtins
import copy
import os
import pickle
import pprint
import secrets
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from ferry import _native
from ferry.compat import _store
from ferry.compat._line import Line
from ferry.errors import ChannelNotFoundError, ClosedError, NoSpaceError

__all__ = ["Exceptions", "UltraDict"]

_DATA = "data"  # key of the store: the dict
_SETTINGS = "settings"  # (shared lock, recurse)
_LINE = "line"

# What is the same object here and there.
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


class Exceptions:
    """What is raised."""

    class CannotAttachSharedMemory(Exception):  # noqa: N818
        """There is no dict of that name."""

    class CannotAcquireLock(Exception):  # noqa: N818
        """Somebody else has the lock.

        Attributes
        ----------
        blocking_pid : int
            Which process that is; 0 if that is not known.
        timestamp : float
            When that was found, by `time.monotonic()`.
        """

        def __init__(self, *args: Any, blocking_pid: int = 0, timestamp: float | None = None) -> None:
            super().__init__("Cannot acquire lock", *args)
            self.blocking_pid = blocking_pid
            self.timestamp = timestamp or time.monotonic()

    class CannotAcquireLockTimeout(CannotAcquireLock):
        """Somebody else had the lock for the whole time.

        Attributes
        ----------
        time_passed : float
            For how many seconds that was tried.
        """

        def __init__(self, *args: Any, time_passed: float | None = None, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.time_passed = time_passed

    class ParameterMismatch(Exception):  # noqa: N818
        """The dict exists with other settings."""

    class AlreadyClosed(Exception):  # noqa: N818
        """The dict is closed."""

    class AlreadyExists(Exception):  # noqa: N818
        """There is a dict of that name already."""

    class FullDumpMemoryFull(Exception):  # noqa: N818
        """There is no room in the memory of the store."""

    class MissingDependency(Exception):  # noqa: N818
        """A package is missing. Never raised here."""


class SharedLock:
    """A lock between processes and threads, which its owner may take several times.

    Use it in a ``with`` statement, with arguments if need be: ``with ultra.lock(timeout=1.5):``. It is given back when
    its owner dies.
    """

    def __init__(self, line: Line, raises: bool) -> None:
        self._line = line
        self._raises = raises  # as there, instead of returning False
        self._thread = threading.RLock()
        self._owner = 0
        self._n = 0
        self._next: tuple[Any, ...] = ()

    @property
    def has_lock(self) -> int:
        """How often this process has taken it."""
        return self._n if self._line.is_first() else 0

    def get_remote_pid(self) -> int:
        """Return which process has it; 0: none."""
        owner = self._line.first()
        return owner[0] if owner is not None else 0

    def get_remote_lock(self) -> int:
        """Return 1 if somebody has it, otherwise 0."""
        return int(self._line.first() is not None)

    def acquire(
        self,
        block: bool = True,
        timeout: float | None = None,
        sleep_time: float = 0.000001,
        steal_after_timeout: bool = False,
    ) -> bool:
        """Take the lock.

        Parameters
        ----------
        block : bool, default True
            Whether to wait for it.
        timeout : float or None, optional
            For how many seconds; whether or not `block` is true.
        sleep_time : float, optional
            Accepted; whoever waits sleeps until there is something to do.
        steal_after_timeout : bool, default False
            Accepted; what a dead process had is taken from it in any case, and nothing from who lives.

        Returns
        -------
        bool
            Whether it is taken.

        Raises
        ------
        CannotAcquireLock
            It is not, and the dict was made with ``shared_lock=True``.
        CannotAcquireLockTimeout
            Likewise, and there was a time-out.
        """
        began = time.monotonic()
        if not block and timeout is None:
            taken = self._thread.acquire(blocking=False)
        elif timeout is None:
            taken = self._thread.acquire()
        else:
            taken = self._thread.acquire(timeout=max(timeout, 0))
        if taken:
            if self._line.is_first():
                self._n += 1
                return True
            self._n = 0  # not ours any more, if it ever was: this is another process
            try:
                if not block and timeout is None:
                    taken = self._line.try_now()
                else:
                    left = None if timeout is None else max(began + timeout - time.monotonic(), 0)
                    taken = self._line.wait(left)
            except BaseException:
                self._thread.release()
                raise
            if taken:
                self._n = 1
                return True
            self._thread.release()
        if not self._raises:
            return False
        pid = self.get_remote_pid()
        if timeout is None:
            raise Exceptions.CannotAcquireLock(blocking_pid=pid)
        raise Exceptions.CannotAcquireLockTimeout(
            blocking_pid=pid, timestamp=began, time_passed=time.monotonic() - began
        )

    def release(self, *args: Any) -> bool:
        """Give it back, as often as it was taken. False if it was not."""
        try:
            self._thread.release()
        except RuntimeError:
            if self._raises:
                return False
            raise AssertionError("the lock is not held by this thread, so it can't release it") from None
        self._n -= 1
        if self._n == 0:
            self._line.leave()
        return True

    def reset(self) -> None:
        """Nothing has to be done by hand after a crash."""
        self._line.bury()

    def status(self) -> dict[str, int]:
        """Return who has it."""
        return {
            "has_lock": self.has_lock,
            "lock_remote": self.get_remote_lock(),
            "pid": os.getpid(),
            "pid_remote": self.get_remote_pid(),
        }

    def print_status(self, status: dict[str, int] | None = None) -> None:
        """Print who has it."""
        pprint.pprint(status or self.status())

    def __call__(
        self,
        block: bool = True,
        timeout: float | None = None,
        sleep_time: float = 0.000001,
        steal_after_timeout: bool = False,
        steal: bool = False,
    ) -> SharedLock:
        """Say how the next ``with`` statement takes it."""
        self._next = (block, timeout, sleep_time, steal_after_timeout)
        return self

    def __enter__(self) -> SharedLock:
        arguments, self._next = self._next, ()
        if not self.acquire(*arguments):
            raise Exceptions.CannotAcquireLock(blocking_pid=self.get_remote_pid())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def __repr__(self) -> str:
        status = " ".join(f"{name}={value}" for name, value in self.status().items())
        return f"<{type(self).__name__} {status}>"


class UltraDict(MutableMapping[Any, Any]):
    """A dict that processes share.

    Parameters
    ----------
    *args, **kwargs
        What to put into it, as for `dict`.
    name : str or None, optional
        What it is found by; None: a name that nobody has, see `name`.
    create : bool or None, optional
        True: there must be none yet. False: there must be one. None: whatever there is.
    buffer_size : int, default 10_000
        Accepted: there is no stream of changes whose buffer could be full.
    serializer : module or object, default pickle
        Something with `dumps()` and `loads()`. Values are stored as what it makes of them; with pickle, as they are.
    shared_lock : bool or None, optional
        True: `lock` raises what is in `Exceptions`; otherwise it behaves as `multiprocessing.RLock`. It is the same
        lock.
    full_dump_size : int or None, optional
        Accepted: there are no dumps.
    auto_unlink : bool or None, optional
        Whether `close()` of this object unlinks; None: if it has created the dict.
    recurse : bool or None, optional
        Whether dicts in it are shared as well, and come out as `UltraDict`. Otherwise what comes out is a copy.
    recurse_register : object, optional
        Accepted: nothing has to be kept track of.

    Raises
    ------
    Exceptions.AlreadyExists, Exceptions.CannotAttachSharedMemory
        See `create`.
    Exceptions.ParameterMismatch
        It exists with another `shared_lock` or `recurse`.
    """

    Exceptions = Exceptions
    SharedLock = SharedLock

    def __init__(
        self,
        *args: Any,
        name: str | None = None,
        create: bool | None = None,
        buffer_size: int = 10_000,
        serializer: Any = pickle,
        shared_lock: bool | None = None,
        full_dump_size: int | None = None,
        auto_unlink: bool | None = None,
        recurse: bool | None = None,
        recurse_register: Any = None,
        **kwargs: Any,
    ) -> None:
        if recurse and serializer is not pickle:
            raise ValueError("recurse=True goes with the default serializer only")
        self.name = name or f"ultra_{secrets.token_hex(6)}"
        self.buffer_size = buffer_size
        self.full_dump_size = full_dump_size
        self.serializer = serializer
        self.recurse_register = recurse_register
        self.closed = False
        self._path: tuple[Any, ...] = ()
        self._parent: UltraDict | None = None
        created = self._open(name is not None, create, shared_lock, recurse)
        self.auto_unlink = created if auto_unlink is None else auto_unlink
        self._created = created
        self._finalizer = weakref.finalize(
            self, _finish, os.getpid(), self._store, self._live if created and self.auto_unlink else None
        )
        try:
            self.update(*args, **kwargs)
        except BaseException:
            self.close()
            raise

    def _open(self, is_named: bool, create: bool | None, shared_lock: bool | None, recurse: bool | None) -> bool:
        """Find or make the dict; return whether it was made."""
        try:
            store = _store.open_store(self.name, None, create=False if create is False else None)
        except ChannelNotFoundError:
            raise Exceptions.CannotAttachSharedMemory(
                f"there is no UltraDict '{self.name}': its creator is gone, or has not come yet"
            ) from None
        try:
            with store.transaction():
                settings = store.get(_SETTINGS)
                if settings is None:
                    if create is False:
                        raise Exceptions.CannotAttachSharedMemory(f"the UltraDict '{self.name}' was unlinked")
                    settings = (bool(shared_lock), bool(recurse))
                    store[_DATA] = {}
                    store[_LINE] = []
                    store[_SETTINGS] = settings
                    created = True
                else:
                    if create:
                        raise Exceptions.AlreadyExists(
                            f"there is an UltraDict '{self.name}' already; use another name, or create=None"
                        )
                    for what, ours, theirs in (
                        ("shared_lock", shared_lock, settings[0]),
                        ("recurse", recurse, settings[1]),
                    ):
                        if ours is not None and bool(ours) != theirs:
                            raise Exceptions.ParameterMismatch(
                                f"{what}={ours} was asked for, but the UltraDict '{self.name}' has {what}={theirs}"
                            )
                    created = False
                self._live = store[_DATA]
                line = store[_LINE]
        except BaseException:
            store.close()
            raise
        self._store = store
        self.shared_lock: bool = settings[0]
        self.recurse: bool = settings[1]
        self.lock = SharedLock(Line(store, line), self.shared_lock)
        return created

    @classmethod
    def _nested(cls, parent: UltraDict, live: Any) -> UltraDict:
        """Return a dict within another one."""
        self = cls.__new__(cls)
        for name in (
            "name",
            "buffer_size",
            "full_dump_size",
            "serializer",
            "recurse_register",
            "shared_lock",
            "recurse",
        ):
            setattr(self, name, getattr(parent, name))
        self.lock = parent.lock
        self.closed = False
        self.auto_unlink = self._created = False
        self._parent = parent
        self._store = parent._store
        self._live = live
        return self

    # ---- values ----

    def _plain(self, value: Any) -> Any:
        """Return what a value is for the caller."""
        if type(value) in _ATOMS:
            return value
        if self.recurse and _store.is_dict(value):
            return self._nested(self, value)
        return copy.deepcopy(value)

    def _load(self, value: Any) -> Any:
        if self.serializer is pickle:
            return self._plain(value)
        return self.serializer.loads(value)

    def _dump(self, item: Any) -> Any:
        if isinstance(item, UltraDict):
            return item._live if self.recurse and item._store is self._store else item._plain_dict()
        return item if self.serializer is pickle else self.serializer.dumps(item)

    def _check(self) -> Any:
        live = self._live
        if self.closed or (self._parent is not None and self._parent.closed):
            raise Exceptions.AlreadyClosed(
                f"the UltraDict '{self.name}' is closed: only what was in it at that time is left, in `data`"
            )
        return live

    def _plain_dict(self) -> dict[Any, Any]:
        """Return a private copy of all that is in it."""
        live = self._check()
        if self.serializer is pickle:
            return copy.deepcopy(live)
        return {key: self.serializer.loads(value) for key, value in copy.deepcopy(live).items()}

    # ---- a dict ----

    def __getitem__(self, key: Any) -> Any:
        if self.closed:
            self._check()
        try:
            value = self._live[key]
        except ClosedError:
            self._check()  # the one that it is in was closed
            raise
        if type(value) in _ATOMS and self.serializer is pickle:
            return value
        return self._load(value)

    def __setitem__(self, key: Any, item: Any) -> None:
        if self.closed:
            self._check()
        try:
            if type(item) in _ATOMS and self.serializer is pickle:
                self._live[key] = item
            else:
                self._live[key] = self._dump(item)
        except NoSpaceError as error:
            raise Exceptions.FullDumpMemoryFull(str(error)) from error
        except ClosedError:
            self._check()
            raise

    def __delitem__(self, key: Any) -> None:
        del self._check()[key]

    def __contains__(self, key: Any) -> bool:
        return key in self._check()

    has_key = __contains__

    def __len__(self) -> int:
        return len(self._check())

    def __iter__(self) -> Iterator[Any]:
        return iter(_store.keys_of(self._check()))

    def __reversed__(self) -> Iterator[Any]:
        return reversed(_store.keys_of(self._check()))  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, UltraDict):
            other = other._plain_dict()
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._plain_dict() == other

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> dict[Any, Any]:
        return self._plain_dict() | (other._plain_dict() if isinstance(other, UltraDict) else other)

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return other | self._plain_dict()  # type: ignore[no-any-return]

    def __ior__(self, other: Any) -> UltraDict:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return repr(self.data)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or the default if there is none."""
        try:
            return self[key]
        except KeyError:
            return default

    def keys(self) -> Any:
        """Return the keys at this moment."""
        return dict.fromkeys(_store.keys_of(self._check())).keys()

    def values(self) -> Any:
        """Return the values at this moment."""
        return dict(self.items()).values()

    def items(self) -> Any:
        """Return the keys and values at this moment."""
        return {key: self._load(value) for key, value in _store.items_of(self._check())}.items()

    def pop(self, key: Any, *default: Any) -> Any:
        """Take a key out, and return its value, or the default if there is none."""
        return self._leaving(self._check().pop(key, *default), default)

    def _leaving(self, value: Any, default: tuple[Any, ...] = ()) -> Any:
        if default and value is default[0]:
            return value
        return self._load(value)

    def popitem(self) -> tuple[Any, Any]:
        """Take the item that was added last."""
        key, value = self._check().popitem()
        return key, self._load(value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, which is the default if there was none."""
        self._check().setdefault(key, self._dump(default))
        return self[key]

    def clear(self) -> None:
        """Take everything out."""
        self._check().clear()

    def update(self, other: Any = None, /, *args: Any, **kwargs: Any) -> None:
        """Put the items of another mapping, or pairs, into it: all at one instant."""
        new: dict[Any, Any] = {}
        if other is not None:
            items: Iterable[Any] = other.items() if isinstance(other, Mapping) else other
            new.update(items)
        new.update(kwargs)
        live = self._check()
        if new:
            try:
                live.update({key: self._dump(value) for key, value in new.items()})
            except NoSpaceError as error:
                raise Exceptions.FullDumpMemoryFull(str(error)) from error

    def copy(self) -> dict[Any, Any]:
        """Return a private copy of all that is in it."""
        return self._plain_dict()

    __copy__ = copy

    def __deepcopy__(self, memo: builtins.dict[int, Any]) -> builtins.dict[Any, Any]:
        return self._plain_dict()

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None) -> UltraDict:
        """Make a dict that has a value for each key."""
        return cls(dict.fromkeys(iterable, value))

    # ---- what it is made of ----

    @property
    def data(self) -> Any:
        """What is in it: a `ferry.store.Dict`, and after `close()` the dict that it was then."""
        return self._live

    def dump(self) -> None:
        """Nothing: changes are where everybody sees them."""
        self._check()

    def load(self, force: bool = False) -> None:
        """Nothing: changes are seen at once."""
        self._check()

    def apply_update(self) -> None:
        """Nothing: changes are seen at once."""
        self._check()

    def status(self) -> builtins.dict[str, Any]:
        """Return what there is to know about it."""
        names = ("name", "buffer_size", "full_dump_size", "shared_lock", "recurse", "auto_unlink", "closed")
        return {**{name: getattr(self, name) for name in names}, "lock": self.lock, **self.lock.status()}

    def print_status(self, status: builtins.dict[str, Any] | None = None, stderr: bool = False) -> None:
        """Print that."""
        pprint.pprint(status or self.status(), stream=sys.stderr if stderr else sys.stdout)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._parent is not None:
            return _restore_nested, (self._parent, self._live)
        return _restore, (type(self), self.name, self.serializer if self.serializer is not pickle else None)

    def close(self, unlink: bool = False, from_finalizer: bool = False) -> Any:
        """Use it no more; return what is in it. Others go on.

        Parameters
        ----------
        unlink : bool, default False
            Also let nobody find it any more.
        """
        if self.closed:
            return None
        if self._parent is not None:
            self.closed = True
            return None
        data = self._plain_dict()
        if unlink or (self.auto_unlink and self._created):
            _unlink(self._store, self._live)
        self.closed = True
        self._live = data
        self._finalizer.detach()
        self.lock._line.leave()
        self._store.close()
        return data

    def unlink(self) -> None:
        """Close it, and let nobody find it any more."""
        self.close(unlink=True)

    @staticmethod
    def unlink_by_name(name: str, ignore_errors: bool = False) -> bool:
        """Let nobody find the dict of a name any more; return whether there was one.

        Raises
        ------
        Exceptions.CannotAttachSharedMemory
            There was none, and `ignore_errors` is false.
        """
        try:
            store = _store.open_store(name, None, create=False)
        except ChannelNotFoundError:
            store = None
        found = False
        if store is not None:
            found = store.pop(_SETTINGS, None) is not None
            store.close()
        if not found and not ignore_errors:
            raise Exceptions.CannotAttachSharedMemory(f"there is no UltraDict '{name}'")
        return found

    def __enter__(self) -> UltraDict:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _unlink(store: Any, live: Any) -> None:
    with store.transaction():
        if store.get(_SETTINGS) is not None and _native.store_is_same(store[_DATA], live):
            del store[_SETTINGS]


def _finish(pid: int, store: Any, live: Any) -> None:
    """What is done at the end of a dict that nobody has closed, and at exit; not in a process that was forked since."""
    if os.getpid() != pid:
        return
    try:
        if live is not None:
            _unlink(store, live)
    finally:
        store.close()


def _restore(cls: type[UltraDict], name: str, serializer: Any) -> UltraDict:
    return cls(name=name, create=False, auto_unlink=False, serializer=serializer or pickle)


def _restore_nested(parent: UltraDict, live: Any) -> UltraDict:
    return UltraDict._nested(parent, live)
