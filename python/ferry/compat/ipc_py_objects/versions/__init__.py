# SPDX-License-Identifier: LGPL-2.1-or-later
"""Versions of the interface: `v_1` is the only one."""

from __future__ import annotations
