# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every program of docs/store-guide.md, as it stands there, and the examples in the docstrings."""

from __future__ import annotations

import doctest
import pathlib
import re
import subprocess
import sys

import ferry.store
import pytest

pytest.importorskip("numpy")

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "store-guide.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
PRINTED = [
    "{'rate': 15, 'hosts': ['a', 'b', 'c'], 'limits': {'high': 2.5}}\nDict True\n['a', 'b', 'c']\n",
    "Job(name='count', done=3, notes=['began']) anna True\n",
    "28.0 ndarray\n",
    "{'a': 2000, 'b': 2000}\n{'a': 2000, 'b': 2000}\n",
    "[0, 2, 4]\nTrue\n{'parts': [1]} True\n",
]


def test_every_block_is_known():
    assert len(BLOCKS) == len(PRINTED)


@pytest.mark.parametrize(("block", "printed"), zip(BLOCKS, PRINTED, strict=False))
def test_guide(block, printed, tmp_path):
    program = tmp_path / "guide.py"
    program.write_text(block, encoding="utf-8")
    result = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr, result.returncode) == (printed, "", 0)


def test_docstrings():
    failed, tried = doctest.testmod(ferry.store)
    assert tried > 5 and failed == 0
