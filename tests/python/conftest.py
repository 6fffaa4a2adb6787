# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all Python tests share."""

import os

import hypothesis

# No data base of examples: nothing is written to the source folder.
hypothesis.settings.register_profile(
    "default", deadline=None, database=None, max_examples=200, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("thorough", parent=hypothesis.settings.get_profile("default"), max_examples=5000)
hypothesis.settings.load_profile("thorough" if os.environ.get("FERRY_TEST_THOROUGH") else "default")
