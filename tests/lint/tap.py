# SPDX-License-Identifier: LGPL-2.1-or-later
"""The little of the Test Anything Protocol that the lint scripts need."""

import sys
from collections.abc import Callable


class Skip(Exception):
    """Raised by a check that cannot be made here; the message says why."""


def run(checks: list[tuple[str, Callable[[], list[str]]]]) -> int:
    """Make the checks, each a function that returns what it found wrong."""
    failed = 0
    print(f"1..{len(checks)}")
    for number, (name, check) in enumerate(checks, 1):
        try:
            problems = check()
        except Skip as reason:
            print(f"ok {number} {name} # SKIP {reason}")
            continue
        for problem in problems:
            for line in problem.splitlines():
                print(f"# {line}")
        failed += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {number} {name}")
        sys.stdout.flush()
    return 1 if failed else 0
