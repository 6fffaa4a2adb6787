#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Add up the test cases in the JSON logs of `meson test`.

    count-results.py LOG.json...

Prints `N passed, N failed` (and `, N skipped`), counting what a test program says
of its cases (Check's summary, TAP, unittest, pytest) and one for a program that says nothing.
A program that failed without a failed case counts as one failure: a crash or a
time-out. Fails when something failed or no test was run.
"""

import json
import re
import sys

CHECK_SUMMARY = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", re.M)
TAP_CASE = re.compile(r"^(ok|not ok)\b(?:[^#\n]|\\#)*(?:#\s*(skip|todo)\b.*)?$", re.M | re.I)
UNITTEST_SUMMARY = re.compile(r"^Ran (\d+) tests? in [\d.]+s\n\n(?:OK|FAILED|NO TESTS RAN)(?: \((.*)\))?$", re.M)
PYTEST_SUMMARY = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*$", re.M)


def count_output(text: str) -> tuple[int, int, int] | None:
    """Passed, failed and skipped cases of a program's output, if it tells them."""
    if summaries := CHECK_SUMMARY.findall(text):
        checks = sum(int(s[0]) for s in summaries)
        failed = sum(int(s[1]) + int(s[2]) for s in summaries)
        return checks - failed, failed, 0
    if summaries := UNITTEST_SUMMARY.findall(text):
        passed = failed = skipped = 0
        for ran, others in summaries:
            numbers = {word: int(n) for word, n in re.findall(r"([a-z ]+)=(\d+)", others)}
            wrong = numbers.get("failures", 0) + numbers.get("errors", 0) + numbers.get("unexpected successes", 0)
            left_out = numbers.get("skipped", 0)
            # Each subtest of a test may fail by itself.
            passed += max(0, int(ran) - wrong - left_out)
            failed += wrong
            skipped += left_out
        return passed, failed, skipped
    if cases := TAP_CASE.findall(text):
        passed = failed = skipped = 0
        for verdict, directive in cases:
            if directive:
                skipped += 1
            elif verdict.lower() == "ok":
                passed += 1
            else:
                failed += 1
        return passed, failed, skipped
    if summaries := PYTEST_SUMMARY.findall(text):
        numbers = {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", summaries[-1])}
        failed = numbers.get("failed", 0) + numbers.get("error", 0) + numbers.get("errors", 0)
        return numbers.get("passed", 0), failed, numbers.get("skipped", 0)
    return None


def count_test(entry: dict) -> tuple[int, int, int]:
    """Passed, failed and skipped cases of one entry of the log."""
    result = entry["result"]
    cases = count_output((entry.get("stdout") or "") + "\n" + (entry.get("stderr") or ""))
    if result == "SKIP":
        return 0, 0, max(1, cases[2] if cases else 0)
    passed, failed, skipped = cases or (0, 0, 0)
    if result in ("OK", "EXPECTEDFAIL"):
        if failed:
            # The program disowned these failures, as Check does for cases that are
            # meant to fail.
            passed, failed = passed + failed, 0
        return (passed, 0, skipped) if passed or skipped else (1, 0, 0)
    return passed, max(failed, 1), skipped


def main() -> int:
    total = [0, 0, 0]
    troubled = []
    for path in sys.argv[1:]:
        try:
            lines = open(path, encoding="utf-8", errors="replace").read().splitlines()
        except OSError as error:
            print(f"{path}: {error.strerror}", file=sys.stderr)
            continue
        for line in lines:
            entry = json.loads(line)
            counts = count_test(entry)
            total = [a + b for a, b in zip(total, counts)]
            if counts[1]:
                troubled.append(f"{entry['name']} ({entry['result'].lower()})")
    passed, failed, skipped = total
    print()
    if troubled:
        print("failed: " + ", ".join(troubled))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
