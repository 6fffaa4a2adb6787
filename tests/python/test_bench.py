# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmark in Python: it measures what it says. How fast things are is not tested here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "python"
SHORT = ("--no-peers", "--repeat", "2", "--duration", "0.01", "--sizes", "100,10K")
TIMEOUT = 110  # seconds

numpy = pytest.importorskip("numpy")


def run(*arguments: str, program: str = "bench.py") -> subprocess.CompletedProcess[str]:
    """Run the benchmark."""
    return subprocess.run(
        [sys.executable, str(FOLDER / program), *arguments],
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def measure(*arguments: str) -> dict[str, Any]:
    """Return what it writes as JSON."""
    result = run("--json", *SHORT, *arguments)
    assert result.returncode == 0, result.stderr
    data: dict[str, Any] = json.loads(result.stdout)
    assert (data["program"], data["format"]) == ("ferry-bench-python", 1)
    return data


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_figures(start: str) -> None:
    data = measure("--start", start, "--kinds", "int,bytes,array,nested", "--ways", "ferry.,mp.Q", "--measures", "flow")
    assert data["machine"]["cpus"] > 0
    found = {(f["way"], f["kind"], f["size-bytes"]): f for f in data["figures"]}
    assert len(found) == len(data["figures"])
    sized = [(kind, size) for kind in ("bytes", "array") for size in (100, 10_000)]
    expected = {(way, *what) for way in ("ferry.Queue", "ferry.Pipe", "mp.Queue") for what in [("int", 0), *sized]}
    assert expected <= set(found)
    assert ("ferry.Queue", "nested", 0) in found
    assert ("ferry.Pipe bytes", "int", 0) not in found
    for key, figure in found.items():
        assert figure["error"] is None, key
        assert len(figure["samples"]) == 2
        assert min(figure["samples"]) <= figure["median"] <= max(figure["samples"])
        assert 0 < figure["median"] < 1


def test_claims(tmp_path: Path) -> None:
    """Every claim has a line, a ratio of what was measured and a verdict that follows from it; and is drawn."""
    output = tmp_path / "claims.json"
    data = measure("--claims", "--kinds", "int,bytes,dict,array", "--output", str(output))
    assert json.loads(output.read_text()) == data
    claims = {claim["what"]: claim for claim in data["claims"]}
    for what in ("int : mp.Queue", "bytes, 100 B : mp.Pipe bytes", "round trip of 100 bytes, ferry.Pipe : mp.Pipe"):
        assert claims[what]["measured"] > 0 and claims[what]["reference"] > 0
    for start in ("put of an array", "take a waiting", "loan and put", "the first message", "extra copies"):
        assert any(what.startswith(start) for what in claims), start
    for claim in claims.values():
        assert claim["ratio"] is not None, claim
        good = claim["ratio"] >= claim["limit"] if claim["relation"] == "at least" else claim["ratio"] <= claim["limit"]
        assert claim["met"] is good
    pytest.importorskip("matplotlib")
    result = run(str(output), program="plots.py")
    assert result.returncode == 0, result.stderr
    for word in ("throughput", "objects", "claims"):
        assert (tmp_path / f"claims-{word}.png").stat().st_size > 10_000


def test_table() -> None:
    pytest.importorskip("rich")
    result = run(*SHORT, "--kinds", "int", "--ways", "ferry.Queue,mp.Queue", "--measures", "flow")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    ours = next(line for line in lines if line[:1] == ["ferry.Queue"])
    theirs = next(line for line in lines if line[:1] == ["mp.Queue"])
    assert ours[2] in ("ns", "us") and theirs[3].endswith("x")


def test_strangers() -> None:
    """A payload that arrives as another is noticed."""
    sys.path.insert(0, str(FOLDER))
    try:
        import payloads
    finally:
        sys.path.remove(str(FOLDER))
    for kind, size in [(kind, 0) for kind in payloads.SMALL] + [
        (k, s) for k in payloads.SIZED for s in (10, 5000, 3 << 20)
    ]:
        obj = payloads.mark(payloads.make(kind, size), kind, 3)
        assert payloads.check(obj, kind, size, 3) is None, (kind, size)
        if kind != "bytes" or size <= 1_000_000:
            assert payloads.check(obj, kind, size, 4) is not None, (kind, size)
        assert payloads.check(payloads.make("bytes", 11), kind, size, 3) is not None, (kind, size)


def test_usage() -> None:
    for arguments in (["--sizes", "x"], ["--kinds", "tree"], ["--start", "magic"]):
        result = run(*arguments)
        assert result.returncode == 2
        assert "usage:" in result.stderr
