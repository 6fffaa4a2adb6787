#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hand live objects from C to Python and back, and look whether they are the same.

    store-objects.py TRANSPORT POST

POST is the program of examples/c-store/post.c.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TIMEOUT = 40  # seconds
N_JOBS = 20

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRANSPORT, POST = sys.argv[1:3]


def main() -> None:
    names = [f"{TRANSPORT} name=example-objects-{which}-{os.getpid()}" for which in ("store", "jobs", "done")]
    worker = [sys.executable, EXAMPLES / "c-store/work.py", *names[1:], str(N_JOBS)]
    with subprocess.Popen(worker) as working:
        try:
            posted = subprocess.run(
                [POST, *names, str(N_JOBS)], check=True, capture_output=True, text=True, timeout=TIMEOUT
            )
            assert working.wait(TIMEOUT) == 0, "work.py failed"
        finally:
            working.kill()
    expected = [f"job {i}, the same object: [<'done by work.py, number {i}'>]" for i in range(N_JOBS)]
    assert posted.stdout.splitlines() == expected, posted.stdout


if __name__ == "__main__":
    main()
