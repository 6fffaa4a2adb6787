# SPDX-License-Identifier: LGPL-2.1-or-later
"""A line of processes that wait for their turn, in a list of a store.

Who holds the turn is the first one in the list. Whoever waits looks now and then whether the first one is still
alive, and takes it out if not: nobody has to be there for that but the one that waits.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

from ferry.compat._store import wait_change_async

__all__ = ["LOOK_INTERVAL", "Line", "Owner", "is_dead", "myself", "wait_until", "wait_until_async"]

#: How often somebody who waits looks whether those waited for are alive, in seconds.
LOOK_INTERVAL = 0.1

# What wakes who waits is any change of the store. While others change it all the time, looking is put off a little
# more each time, up to this.
_LONGEST_NAP = 0.002
_SHORTEST_NAP = 0.00005

_me: tuple[int, int, int] | None = None
_serials = itertools.count()

Owner = tuple[int, int, int]  # process id, its start in clock ticks, where these mean something
_STAT_STATE = 0  # fields of /proc/PID/stat behind the name
_STAT_START = 19


def _read_stat(pid: int) -> tuple[str, int] | None:
    """Return the state of a process and when it was started; None if that can't be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[_STAT_STATE].decode("ascii"), int(fields[_STAT_START])
    except (OSError, ValueError, IndexError):
        return None


def myself() -> Owner:
    """Return what this process is known by."""
    global _me
    pid = os.getpid()
    if _me is None or _me[0] != pid:
        stat = _read_stat(pid)
        spaces = 0
        for space in ("pid", "time"):
            try:
                spaces = spaces << 32 | os.stat(f"/proc/self/ns/{space}").st_ino
            except OSError:
                spaces <<= 32
        _me = pid, stat[1] if stat else 0, spaces
    return _me


def is_dead(owner: Owner) -> bool:
    """Whether a process is known to be gone. One of another PID namespace is taken for alive."""
    pid, start, spaces = owner
    if spaces != myself()[2]:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is somebody else's
    stat = _read_stat(pid)
    return stat is not None and (stat[0] in "ZX" or (start != 0 and stat[1] != start))


class Line:
    """A place in the line.

    Parameters
    ----------
    store : ferry.Store
        Where the line is.
    waiting : ferry.store.List
        The line: a list of that store.
    tag : int, default 0
        Something for `first_tag()`.
    """

    __slots__ = ("_store", "_tag", "_ticket", "_waiting")

    def __init__(self, store: Any, waiting: Any, tag: int = 0) -> None:
        self._store = store
        self._tag = tag
        self._waiting = waiting
        self._ticket: tuple[Any, ...] | None = None

    def enter(self) -> None:
        """Queue up, if not there already. End it with `leave()`."""
        ticket = self._ticket
        if ticket is None or ticket[0] != os.getpid():
            ticket = (*myself(), next(_serials), self._tag)
            self._waiting.append(ticket)
            self._ticket = ticket

    def leave(self) -> bool:
        """Give the turn, or the place in the line, up. Return whether there was one."""
        ticket, self._ticket = self._ticket, None
        if ticket is None or ticket[0] != os.getpid():
            return False
        try:
            if self._waiting[0] == ticket:
                self._waiting.pop(0)  # nobody else takes it away from there
            else:
                self._waiting.remove(ticket)
        except (IndexError, ValueError):
            return False
        return True

    def is_first(self) -> bool:
        """Whether it is the turn of who holds this."""
        ticket = self._ticket
        if ticket is None or ticket[0] != os.getpid():
            return False
        try:
            return bool(self._waiting[0] == ticket)
        except IndexError:
            return False

    def is_wanted(self) -> bool:
        """Whether somebody else waits."""
        return len(self._waiting) > (self._ticket is not None)

    def first(self) -> Owner | None:
        """Return whose turn it is."""
        try:
            return tuple(self._waiting[0][:3])
        except IndexError:
            return None

    def first_tag(self) -> int | None:
        """Return the tag of whose turn it is."""
        try:
            return self._waiting[0][4]  # type: ignore[no-any-return]
        except IndexError:
            return None

    def try_now(self) -> bool:
        """Take the turn if nobody has it and nobody waits for it."""
        if self.is_first():
            return True
        if len(self._waiting):
            self.bury()
            if len(self._waiting):
                return False
        self.enter()
        if self.is_first():
            return True
        self.leave()
        return False

    def bury(self) -> None:
        """Take the dead at the head of the line out of it."""
        while True:
            try:
                head = self._waiting[0]
                if tuple(head) == self._ticket or not is_dead(tuple(head[:3])):
                    return
                self._waiting.remove(head)
            except IndexError:
                return
            except ValueError:
                pass  # somebody else did it

    def wait(self, timeout: float | None = None) -> bool:
        """Queue up and sleep until it is our turn; return whether that came in time."""
        self.enter()
        if self.is_first():
            return True
        try:
            came = wait_until(self._store, self.is_first, timeout, self.bury)
        except BaseException:
            self.leave()
            raise
        if not came:
            self.leave()
        return came

    async def wait_async(self, timeout: float | None = None) -> bool:
        """The same for a coroutine."""
        self.enter()
        if self.is_first():
            return True
        try:
            came = await wait_until_async(self._store, self.is_first, timeout, self.bury)
        except BaseException:
            self.leave()
            raise
        if not came:
            self.leave()
        return came


def wait_until(
    store: Any, predicate: Callable[[], bool], timeout: float | None, look: Callable[[], object] | None = None
) -> bool:
    """Sleep until something is the case in a store, for so many seconds at most; return whether it is.

    Parameters
    ----------
    store : ferry.Store
        What changes.
    predicate : callable
        Asked at first and after changes.
    timeout : float or None
        In seconds.
    look : callable or None, optional
        Called every `LOOK_INTERVAL`, for what changes without the store.
    """
    wait = _Wait(timeout, look)
    seen = store.watch()
    while not predicate():
        left = wait.next_slice()
        if left is None:
            return False
        changed = store.wait_change(seen, left)
        if changed is not None:
            seen = changed
            nap = wait.next_nap()
            if nap:
                time.sleep(nap)
    return True


async def wait_until_async(
    store: Any, predicate: Callable[[], bool], timeout: float | None, look: Callable[[], object] | None = None
) -> bool:
    """The same for a coroutine."""
    wait = _Wait(timeout, look)
    seen = store.watch()
    while not predicate():
        left = wait.next_slice()
        if left is None:
            return False
        changed = await wait_change_async(store, seen, left)
        if changed is not None:
            seen = changed
            await asyncio.sleep(wait.next_nap())
    return True


class _Wait:
    """How long to sleep next."""

    __slots__ = ("_deadline", "_look", "_nap", "_next_look")

    def __init__(self, timeout: float | None, look: Callable[[], object] | None) -> None:
        now = time.monotonic()
        self._deadline = None if timeout is None else now + timeout
        self._look = look
        self._next_look = now
        self._nap = 0.0

    def next_slice(self) -> float | None:
        """Return for how many seconds to wait for a change; None when the time is over."""
        now = time.monotonic()
        if self._look is not None and now >= self._next_look:
            self._look()
            self._next_look = now + LOOK_INTERVAL
        left = LOOK_INTERVAL if self._deadline is None else min(LOOK_INTERVAL, self._deadline - now)
        return left if left > 0 else None

    def next_nap(self) -> float:
        """Return for how many seconds to leave the store alone after a change that was not the one waited for."""
        nap = self._nap
        self._nap = min(max(nap * 2, _SHORTEST_NAP), _LONGEST_NAP)
        return nap if self._deadline is None else max(min(nap, self._deadline - time.monotonic()), 0.0)
