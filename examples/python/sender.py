#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Send the arguments, one message each, and wait until they have been received.

    python3 sender.py 'memfd name=greetings' hello world
"""

import sys

import gi

gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GLib  # noqa: E402


def main() -> int:
    if len(sys.argv) < 2:
        print(f"Usage: {sys.argv[0]} DESCRIPTION [MESSAGE...]", file=sys.stderr)
        return 2
    try:
        channel = Ferry.Channel.new_from_description(sys.argv[1], Ferry.Role.SENDER)
        channel.open(None)
        for message in sys.argv[2:]:
            channel.send_bytes(GLib.Bytes.new(message.encode()), Ferry.WAIT_FOREVER, None)
        # A message lives in the channel, and the channel as long as somebody has
        # it open: so the sender stays until everything has been taken.
        channel.end_of_stream()
        channel.flush(Ferry.WAIT_FOREVER, None)
        channel.close()
    except GLib.Error as error:
        print(f"{sys.argv[0]}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
