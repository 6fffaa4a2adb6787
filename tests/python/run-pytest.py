#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run pytest on files, as `meson test` wants it.

    run-pytest.py FILE...

Leaves nothing in the source folder. The status is 0 for success, 77 (skipped) when there is
nothing to run or no pytest, and pytest's own otherwise. In a build with sanitizers it is 1 as
well when they found something, in whatever process of the tests, or when memory was lost.
"""

import ctypes
import gc
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SKIPPED = 77
SANITIZED = "FERRY_TEST_SANITIZED"
#: A process that sent itself SIGSEGV, as some tests have it do, did not touch memory that is not there.
RAISED = re.compile(r"AddressSanitizer: SEGV .*\n.*\n *#0 0x[0-9a-f]+ in (?:__pthread_kill|pthread_kill|raise|kill)")
#: Bytes; with AddressSanitizer frames are several times as large.
STACK = 64 * 1024 * 1024


def look_for_leaks() -> None:
    """Have what nothing refers to any more reported, before the interpreter ends and leaves much behind."""
    gc.collect()
    ctypes.CDLL(None)["__lsan_do_recoverable_leak_check"]()


def main() -> int:
    """Run the files that the command line names."""
    try:
        import pytest
    except ImportError:
        print("pytest is not installed (python3-pytest)")
        return SKIPPED
    status = pytest.main(["-q", "-ra", "--color=no", "-p", "no:cacheprovider", *sys.argv[1:]])
    if SANITIZED in os.environ:
        look_for_leaks()
    return SKIPPED if status == pytest.ExitCode.NO_TESTS_COLLECTED else int(status)


def is_ours(leak: str) -> bool:
    """Whether our code asked for the memory, and not Python's or PyGObject's."""
    for frame in leak.splitlines():
        # What Python allocates goes through the hook in which memory is kept warm.
        if re.search(r"/ferry-[a-z-]+\.c:", frame) and "/ferry-python-warm.c:" not in frame:
            return True
        if "_PyEval_EvalFrameDefault" in frame or "/gi/_gi." in frame:
            break
    return False


def read_report(report: Path) -> str:
    """What is in a sanitizer's report, of leaks only those that are ours."""
    text = report.read_text(errors="replace")
    if RAISED.search(text):
        return ""
    if "LeakSanitizer" not in text:
        return text
    leaks = [leak for leak in text.split("\n\n") if leak.startswith("Direct leak")]
    return "\n\n".join(filter(is_ours, leaks))


def main_watched() -> int:
    """Run them in a process of their own, and show what sanitizers reported of it and of those that it started."""
    _, limit = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (STACK if limit < 0 else min(STACK, limit), limit))
    with tempfile.TemporaryDirectory(prefix="ferry-sanitizers-") as folder:
        reports = {
            name: f"{os.environ.get(name, '')}:log_path={folder}/report" for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS")
        }
        if "FERRY_TEST_LEAKS" in os.environ:
            # whole stacks of what is lost, though the interpreter has no frame pointers; takes several times as long
            reports["ASAN_OPTIONS"] += ":fast_unwind_on_malloc=0:malloc_context_size=20"
        environment = {**os.environ, **reports, SANITIZED: "watched"}
        status = subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
        found = [text for report in sorted(Path(folder).iterdir()) if (text := read_report(report))]
    for text in found:
        print(text)
    return 1 if found else status


# Processes that tests spawn import this file, as their main module.
if __name__ == "__main__":
    sys.exit(main_watched() if os.environ.get(SANITIZED) == "1" else main())
