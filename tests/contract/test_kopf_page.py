"""docs/kopf.md tells what goes wrong with kopf and which tests guard against it: each of them has to exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [line for line in (ROOT / "docs" / "kopf.md").read_text().splitlines() if re.match(r"\| k\d", line)]
WITHOUT = {"k20"}  # nothing stands against it


def test_every_row_is_there_once() -> None:
    assert [row.split("|")[1].strip() for row in ROWS] == [f"k{number}" for number in range(1, 29)]


def test_every_test_that_is_named_exists_and_every_row_names_one() -> None:
    files = (path.read_text() for folder in ("unit", "contract", "integration") for path in (ROOT / "tests" / folder).rglob("test_*.py"))
    tests = {name for text in files for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    for row in ROWS:
        _, number, *_, named, _ = (cell.strip() for cell in row.split("|"))
        names = re.findall(r"`(test_\w+)`", named)
        assert set(names) <= tests, f"{number}: {set(names) - tests}"
        assert names or number in WITHOUT, number
