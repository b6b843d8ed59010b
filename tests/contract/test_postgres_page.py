"""The script that docs/postgres.md shows is the one that is printed for its example."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_shows_the_script_as_it_is_printed() -> None:
    command = [sys.executable, "-m", "vectorindex_indexer", "sql", "--config", str(ROOT / "crds" / "examples" / "digest-columns.yaml")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip()
    assert f"```sql\n{printed}\n```\n" in (ROOT / "docs" / "postgres.md").read_text(encoding="utf-8")
