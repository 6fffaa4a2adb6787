# SPDX-License-Identifier: LGPL-2.1-or-later
"""`multiprocessing.connection`, whose pipes lead through shared memory.

Listeners and clients are those of the standard library: what they reach need not be on the
same machine.
"""

from __future__ import annotations

from multiprocessing import connection as _standard
from typing import Any

from ferry import pipe as _pipe

__all__ = list(_standard.__all__)


class Connection(_pipe.Connection, _standard.Connection):
    """`ferry.Connection`, and by name one of `multiprocessing.connection`."""

    # What the inherited destructor looks at: there is no handle of its own to close.
    _handle = None


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:  # noqa: N802 - the name of the standard library
    """Make a pipe between two processes, as `ferry.Pipe`.

    Parameters
    ----------
    duplex : bool, default True
        Whether both ends send and receive; if not, the first one only receives and the second
        one only sends.

    Returns
    -------
    tuple of Connection
        Its two ends.
    """
    return _pipe._make_pipe(Connection, duplex)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
