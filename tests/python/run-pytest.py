#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run pytest on files, as `meson test` wants it.

    run-pytest.py FILE...

Leaves nothing in the source folder. The status is 0 for success, 77 (skipped) when there is
nothing to run or no pytest, and pytest's own otherwise.
"""

import sys

SKIPPED = 77


def main() -> int:
    """Run the files that the command line names."""
    try:
        import pytest
    except ImportError:
        print("pytest is not installed (python3-pytest)")
        return SKIPPED
    status = pytest.main(["-q", "-ra", "--color=no", "-p", "no:cacheprovider", *sys.argv[1:]])
    return SKIPPED if status == pytest.ExitCode.NO_TESTS_COLLECTED else int(status)


# Processes that tests spawn import this file, as their main module.
if __name__ == "__main__":
    sys.exit(main())
