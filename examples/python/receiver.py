#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Print every message of a channel on a line of its own, until the stream ends.

    python3 receiver.py 'memfd name=greetings'
"""

import sys

import gi

gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GLib  # noqa: E402


def main() -> int:
    if len(sys.argv) != 2:
        print(f"Usage: {sys.argv[0]} DESCRIPTION", file=sys.stderr)
        return 2
    try:
        channel = Ferry.Channel.new_from_description(sys.argv[1], Ferry.Role.RECEIVER)
        channel.open(None)
        while True:
            message = channel.receive_bytes(Ferry.WAIT_FOREVER, None)
            print(message.get_data().decode(), flush=True)
    except GLib.Error as error:
        if error.matches(Ferry.error_quark(), Ferry.Error.END_OF_STREAM):
            return 0
        print(f"{sys.argv[0]}: {error.message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
