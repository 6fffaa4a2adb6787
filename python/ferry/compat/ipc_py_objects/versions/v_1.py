# SPDX-License-Identifier: LGPL-2.1-or-later
"""Version 1 of the interface, by its own name."""

from __future__ import annotations

from ferry.compat.ipc_py_objects import *  # noqa: F403
from ferry.compat.ipc_py_objects import __all__ as __all__
