"""Every row of the benchmark, once and tiny: it must run, and measure what it says. Its ratios mean nothing at this size."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHES, FORGET, main


@pytest.fixture
def folder() -> Iterator[Path]:
    """Offer a folder that the user of Postgres may enter, too."""
    path = Path(tempfile.mkdtemp(prefix="vectorindex-bench-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_each_row_runs_and_what_it_filled_is_kept(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = folder / "kept"
    lines = folder / "lines.jsonl"
    assert main(["--rows", "2k,4k", "--reps", "1", "--folder", str(kept), "--json", str(lines)]) == 0
    printed = capfd.readouterr()
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    for size in (2_000, 4_000):
        assert {line["bench"] for line in found if line["kind"] == "ratio" and line["rows"] == size} == set(BENCHES)
    assert {line["bench"] for line in found if line["kind"] == "growth"} == {"load", "check", "sweep"}
    assert all(line["wall_seconds"] > 0 for line in found if line["kind"] == "run")
    assert all(line["median"] > 0 for line in found if line["kind"] == "ratio")
    assert "verdict" in printed.out
    assert "filling table" in printed.err

    assert main(["load", "--rows", "2k", "--reps", "1", "--folder", str(kept)]) == 0
    assert "filling table" not in capfd.readouterr().err
    assert sorted(path.name for path in (kept / "tests").iterdir()) == ["2k", "4k"]

    assert main([FORGET, "--folder", str(kept)]) == 0
    assert not kept.exists()


def test_too_large_a_table_is_refused_before_anything_is_made(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "--rows", "9999999M", "--folder", str(folder / "kept")]) == 2
    assert "rows need about" in capfd.readouterr().err
    assert not (folder / "kept").exists()
