# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all Python tests share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# No data base of examples: nothing is written to the source folder.
hypothesis.settings.register_profile(
    "default", deadline=None, database=None, max_examples=200, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("thorough", parent=hypothesis.settings.get_profile("default"), max_examples=5000)
hypothesis.settings.load_profile("thorough" if os.environ.get("FERRY_TEST_THOROUGH") else "default")


@pytest.fixture
def shm_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where channels have their names in shared memory while a test runs. In /dev/shm itself others have theirs."""
    with tempfile.TemporaryDirectory(prefix="ferry-python-", dir="/dev/shm") as folder:
        monkeypatch.setenv("FERRY_SHM_DIR", folder)
        yield Path(folder)
