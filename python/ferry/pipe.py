# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Pipe()` of `multiprocessing`, through shared memory."""

from __future__ import annotations

Pipe = Connection = None
