# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values that codecs in C make, as objects."""

from __future__ import annotations

from typing import Any


def from_variant_text(text: str) -> Any:
    """Return what a GVariant says, from its text form with types."""
    from gi.repository import GLib

    return GLib.Variant.parse(None, text, None, None).unpack()
