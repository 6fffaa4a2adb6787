# SPDX-License-Identifier: LGPL-2.1-or-later
"""Leaving channels in order when a process ends.

The kernel tells the others when a process is gone, however it went. What it does not do is
to remove the meeting place of a *named* channel, so those are closed before the process ends.
"""

from __future__ import annotations

import atexit
import sys
import weakref
from typing import Protocol


class _Closeable(Protocol):
    def close(self) -> None: ...


_open: weakref.WeakSet[_Closeable] = weakref.WeakSet()
_registered = False
_util_knows = False


def _close_all() -> None:
    for endpoint in list(_open):
        endpoint.close()


def _in_process_of_multiprocessing(_: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _close_all, exitpriority=-50)


def close_at_exit(endpoint: _Closeable) -> None:
    """Close `endpoint` when the process ends, if it still exists then."""
    global _registered, _util_knows
    _open.add(endpoint)
    if not _registered:
        _registered = True
        atexit.register(_close_all)
    # Processes of multiprocessing end by os._exit(), which runs no handlers of atexit but these. They forget the
    # parent's when they begin, and then call what wants to be called after a fork, or a spawn.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _util_knows:
        _util_knows = True
        util.register_after_fork(_close_all, _in_process_of_multiprocessing)
