# SPDX-License-Identifier: LGPL-2.1-or-later
"""The general form: any transport, any codec, work queue or broadcast."""

from __future__ import annotations

Channel = Participant = Statistics = open = None
