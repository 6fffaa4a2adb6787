# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmark of live objects: it measures what it says. How fast things are is not tested here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "python"
TIMEOUT = 110 * (3 if "FERRY_TEST_SANITIZED" in os.environ else 1)

pytest.importorskip("numpy")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark."""
    return subprocess.run(
        [sys.executable, str(FOLDER / "store.py"), "--no-peers", "--repeat", "2", "--duration", "0.002", *arguments],
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_figures_and_claims(tmp_path: Path) -> None:
    """All statements on Ferry's objects are right in the other process; each claim follows from its figures."""
    output = tmp_path / "store.json"
    result = run(
        "--json", "--claims", "--output", str(output), "--tasks", "list,method,attribute,record,array,dict,chain"
    )
    assert result.returncode == 0, result.stderr
    data: dict[str, Any] = json.loads(result.stdout)
    assert (data["program"], data["format"]) == ("ferry-bench-store", 1)
    assert json.loads(output.read_text()) == data
    found = {(f["way"], f["task"]): f for f in data["figures"]}
    for figure in found.values():
        assert figure["error"] is None and len(figure["samples"]) == 2 and 0 < figure["median"] < 1
        assert 0 < figure["private"] < 1
    assert len([key for key in found if key[0] == "ferry"]) >= 38
    for way in ("ferry.compat.ultradict", "ferry.compat.shared_memory_dict", "Manager dict"):
        assert (way, "dict += int") in found and (way, "list get int") not in found
    claims = {claim["what"]: claim for claim in data["claims"]}
    claim = claims["list get int : private"]
    figure = found["ferry", "list get int"]
    assert claim["measured"] == figure["median"] and claim["reference"] == figure["private"]
    assert claim["ratio"] == pytest.approx(figure["private"] / figure["median"]) and claim["limit"] == 0.4
    assert claim["met"] == (claim["ratio"] >= 0.4)


def test_messages() -> None:
    result = run("--json", "--tasks", "take tree,throughput", "--ways", "ferry.compat.ipc")
    assert result.returncode == 0, result.stderr
    figures = {figure["task"]: figure for figure in json.loads(result.stdout)["figures"]}
    assert figures["take tree"]["median"] > 0
    for sample in figures["throughput"]["samples"]:
        assert min(sample["rate"], sample["put"], sample["take"], sample["copy"]) > 0


def test_table() -> None:
    pytest.importorskip("rich")
    result = run("--claims", "--tasks", "dict += int", "--ways", "ferry,Manager")
    assert result.returncode == 0, result.stderr
    assert "dict += int" in result.stdout and "Manager dict" in result.stdout and "1 claims" in result.stdout


def test_usage() -> None:
    result = run("--tasks", "nothing")
    assert result.returncode == 2 and "no task begins so" in result.stderr
