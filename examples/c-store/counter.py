#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""counter.py STORE N: does what counter.c does, through GObject introspection alone.

Programs of any language that GObject introspection knows look like this. In Python itself ``ferry.Store`` is more
natural: its values are lists, dicts and objects that live in the store.
"""

import sys

import gi

gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GLib  # noqa: E402


def make_config(store: Ferry.Store) -> None:
    """Make the configuration unless somebody has: a transaction holds the store."""
    store.begin_transaction(Ferry.WAIT_FOREVER, None)
    try:
        if not store.contains("cfg"):
            store.set("cfg", GLib.Variant.parse(None, "{'step': <1>, 'label': <'items'>, 'users': <@av []>}"))
            store.set("counter", GLib.Variant("x", 0))
    except GLib.Error:
        store.roll_back()
        raise
    store.commit()


def main() -> None:
    description, n = sys.argv[1], int(sys.argv[2])
    store = Ferry.Store.open(description, None)
    make_config(store)
    store.set("cfg.users[+]", GLib.Variant("s", "counter.py"))
    step = store.get("cfg.step").unpack()
    total = 0
    for _ in range(n):
        _, total = store.add_int("counter", step)
    print(total, store.get("cfg.label").unpack())
    store.close()


if __name__ == "__main__":
    main()
