"""The quick start, word for word: what stands in its blocks is run by one shell, as somebody would who pastes one after the other."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "quick-start.md"
MARK = "== block"


def read_blocks() -> list[str]:
    """Return the commands for a cluster; those before need none, and end by Ctrl-C only."""
    _, _, page = PAGE.read_text(encoding="utf-8").partition("## With Kubernetes")
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(1300)
@pytest.mark.skipif(os.environ.get("CLUSTER") == "external", reason="the page is about the demo's own cluster")
def test_what_the_quick_start_prints_comes_about(tmp_path: Path) -> None:
    blocks = read_blocks()
    script = "".join(f"echo '{MARK} {number}'\n{block}" for number, block in enumerate(blocks))
    log = tmp_path / "log"
    try:
        with log.open("w") as file:
            subprocess.run(["bash", "-c", script], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=1200, check=True)
    finally:
        subprocess.run(["make", "down"], cwd=ROOT, check=False)
        for name in ("request.json", "port-forward.log"):
            (ROOT / name).unlink(missing_ok=True)
    said = log.read_text().split(MARK)[1:]
    assert len(said) == len(blocks), log.read_text()
    for block, output in zip(blocks, said, strict=True):
        for expected in expect_of(block):
            assert re.search(expected, output), f"{block}\n{output}"
        assert "error" not in output.lower(), output


def expect_of(block: str) -> list[str]:
    """Return what must be seen after a block, by what stands in it."""
    seen = {
        "make demo": "All seven steps hold",
        "> request.json": "proven\n\\d+  1.000  gold: .*\n\\d+ .* wealthily",
        "validate docs --wait": r"UPDATE 1\n(?s:.*)proven\n\d+  1.000  gold: .*\n\d+ .* golden",
        "damage.py": "patch +load +repaired +10 missing, 5 ghost, 10 changed",
        "ALTER ROLE": "Unknown .*refused user name or password",
        "create secret": "condition met",
        "vectorindex plan": "would +remove 38",
        "vectorindex approve": r"docs +True +True +2 +5\d{3} +0",
    }
    return [expected for part, expected in seen.items() if part in block]
