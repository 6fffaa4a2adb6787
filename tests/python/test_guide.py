# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every program of docs/python-guide.md and docs/executor.md, as it stands there."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip("numpy")

DOCS = pathlib.Path(__file__).parents[2] / "docs"
BLOCKS = [
    block
    for page in ("python-guide.md", "executor.md")
    for block in re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)
]
PRINTED = [
    "{'number': 0}\n{'number': 1}\n{'number': 2}\n",
    "4 of 10 found room\n[0, 1, 2] [3]\nnothing came\n",
    "307200 True\n7.0\n",
    "0\n1\n2\n3\n",
    "{'done': 'a task'}\n",
    "[0 1 2 3 4 5] False\n1 2 True\n['receiver', 'receiver', 'sender']\n[]\n",
    "20 True\n70 True\n120 True\n170 True\n220 True\n[0, 1, 4, 9, 16]\n",
    "[499999500000, 1999997]\n",
    "b'hello' raw 0\n",
    "2.0\n[0 1 2 3 4 5 6 7 8 9]\n",
]


def test_every_block_is_known():
    assert len(BLOCKS) == len(PRINTED)


@pytest.mark.parametrize(("block", "printed"), zip(BLOCKS, PRINTED, strict=False))
def test_guide(block, printed, tmp_path):
    if "joblib" in block:
        pytest.importorskip("joblib", reason="python3-joblib is not installed")
    program = tmp_path / "guide.py"
    program.write_text(block, encoding="utf-8")
    result = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr, result.returncode) == (printed, "", 0)
