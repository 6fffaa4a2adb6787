#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""work.py JOBS DONE N: takes live objects that post.c sends, changes them in place, and hands them back.

The store need not be opened: that happens with the first object that arrives.
"""

import sys

import ferry


def main() -> None:
    """Take N jobs."""
    with ferry.open(sys.argv[1], "receiver") as jobs, ferry.open(sys.argv[2], "sender") as done:
        for _ in range(int(sys.argv[3])):
            job = jobs.receive()
            job["log"].append(f"done by {sys.argv[0].rpartition('/')[2]}, number {job['number']}")
            done.send(job)
        done.flush()


if __name__ == "__main__":
    main()
