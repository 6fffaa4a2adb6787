# SPDX-License-Identifier: LGPL-2.1-or-later
"""From an endpoint to what `gi.repository.Ferry` has of it."""

from __future__ import annotations

from typing import Any

from ferry import _native


def wrap(address: int) -> Any:
    """Return the `Ferry.Channel` at an address."""
    import gi

    gi.require_version("Ferry", "1.0")
    from gi.repository import Ferry  # noqa: F401 - registers the classes

    return _native.wrap_gobject(address)
